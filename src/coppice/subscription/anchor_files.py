# SPDX-License-Identifier: Apache-2.0
"""The files of a directory of trust anchors: which there are, under which names, and their bytes.

One file may have many names: the grid's directories hold ``NAME.pem`` with a symbolic link for each of two hashes of
its subject. It is read and counted once.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.errors import TrustAnchorError
from coppice.formats.certificates import read_blocks, reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryptography import x509

_MIB = 1024 * 1024


class FileKind(StrEnum):
    """What a file's name says that it holds."""

    CERTIFICATE = "certificate"
    CRL = "crl"
    NAMESPACES = "namespaces"
    SIGNING_POLICY = "signing-policy"
    OTHER = "other"


_ENDINGS = {
    "pem": FileKind.CERTIFICATE,
    "crt": FileKind.CERTIFICATE,
    "cer": FileKind.CERTIFICATE,
    "der": FileKind.CERTIFICATE,
    "crl": FileKind.CRL,
    "namespaces": FileKind.NAMESPACES,
    "signing_policy": FileKind.SIGNING_POLICY,
}
_NUMBERED = re.compile(r"r?[0-9]{1,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLimits:
    """Bounds of what is read as trust anchors.

    Attributes:
        certificate_bytes: Longest file of certificates; a bundle has to fit.
        crl_bytes: Longest CRL.
        policy_bytes: Longest namespaces or signing policy file.
        files: Most entries of a directory.
    """

    certificate_bytes: int = 16 * _MIB
    crl_bytes: int = 64 * _MIB
    policy_bytes: int = _MIB
    files: int = 20_000

    def of(self, kind: FileKind) -> int:
        """Return the bound for a file of ``kind``."""
        if kind is FileKind.CRL:
            return self.crl_bytes
        return self.certificate_bytes if kind is FileKind.CERTIFICATE else self.policy_bytes


DEFAULT_LIMITS = AnchorLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """One file under all its names.

    Attributes:
        path: By one of its names.
        names: All of them, in order.
        kind: What it holds, by its name.
        state: Changes when the file does: device, inode, size, and times of change.
        problem: Why it cannot be read; empty: nothing is known against it.
    """

    path: Path
    names: tuple[str, ...]
    kind: FileKind
    state: tuple[int, ...] = ()
    problem: str = ""

    @property
    def stems(self) -> frozenset[str]:
        """Return its names without what follows the last dot."""
        return frozenset(name.rpartition(".")[0] for name in self.names)


Entry = tuple[str, FileKind, tuple[int, ...], str]
"""A name in a directory: itself, what it holds, the file's state, and why it cannot be read."""


def list_entries(directory: Path, limits: AnchorLimits = DEFAULT_LIMITS) -> tuple[Entry, ...]:
    """Return every name in ``directory``; the same again as long as no file there changes.

    Raises:
        TrustAnchorError: The directory cannot be read, or holds too much.
    """
    try:
        # Names are looked at relative to the open directory: they are hundreds, and asked for often.
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise unreadable(directory, problem) from problem
    try:
        names = sorted(os.listdir(descriptor))  # noqa: PTH208 - relative to an open directory
        if len(names) > limits.files:
            raise TrustAnchorError(
                f"the directory of trust anchors {directory} has {len(names)} entries; {limits.files} are the most",
                context={"path": str(directory)},
            )
        return tuple(_entry(name, descriptor) for name in names)
    except OSError as problem:
        raise unreadable(directory, problem) from problem
    finally:
        os.close(descriptor)


def _entry(name: str, directory: int) -> Entry:
    kind = kind_of(name)
    if kind is FileKind.OTHER:
        return name, kind, (), ""
    try:
        status = os.stat(name, dir_fd=directory)
    except OSError as problem:
        return name, kind, (), problem.strerror or str(problem)
    return name, kind, _state(status), "" if stat.S_ISREG(status.st_mode) else "not a regular file"


def group_files(directory: Path, entries: Iterable[Entry]) -> tuple[NamedFile, ...]:
    """Return the files of a directory, each once under all its names."""
    together: dict[object, list[Entry]] = {}
    for entry in entries:
        name, kind, state, _problem = entry
        # Device and inode; what could not be looked at is by itself.
        together.setdefault((kind, state[:2]) if state else name, []).append(entry)
    return tuple(
        NamedFile(
            path=directory / found[0][0],
            names=tuple(entry[0] for entry in found),
            kind=found[0][1],
            state=found[0][2],
            problem=found[0][3],
        )
        for found in together.values()
    )


def kind_of(name: str) -> FileKind:
    """Return what a file called ``name`` holds."""
    stem, _, ending = name.rpartition(".")
    if not stem:
        return FileKind.OTHER
    if stem.endswith(".crl") and ending in {"pem", "der"}:
        return FileKind.CRL
    if _NUMBERED.fullmatch(ending):
        return FileKind.CRL if ending[0] == "r" else FileKind.CERTIFICATE
    return _ENDINGS.get(ending, FileKind.OTHER)


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when the file at ``path`` does.

    Raises:
        OSError: It is not there.
    """
    return _state(path.stat())


def read_file(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a regular file, or longer than ``limit_bytes``.
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = "not a regular file"
            raise ValueError(message)
        data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        message = f"longer than {limit_bytes} bytes"
        raise ValueError(message)
    return data


def unreadable(path: Path, problem: OSError) -> TrustAnchorError:
    """Return the error that says that ``path`` cannot be read."""
    return TrustAnchorError(
        f"the trust anchors at {path} cannot be read: {problem.strerror or problem}",
        resolution="Name a PEM file or a directory that this user may read.",
        context={"path": str(path)},
    )


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_objects(
    file: NamedFile, limits: AnchorLimits
) -> tuple[list[x509.Certificate | x509.CertificateRevocationList], list[str]]:
    """Return the certificates and CRLs in ``file``, and what cannot be read of it."""
    if file.problem:
        return [], [file.problem]
    try:
        found = list(read_blocks(read_file(file.path, limits.of(file.kind))))
    except (OSError, ValueError) as problem:
        return [], [reason(problem)]
    return [one for one in found if not isinstance(one, str)], [one for one in found if isinstance(one, str)]
