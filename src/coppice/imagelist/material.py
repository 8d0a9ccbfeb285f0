# SPDX-License-Identifier: Apache-2.0
"""What is read before anybody signs: bounded files, passphrases, and a certificate with the key that belongs to it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import CredentialError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cryptography import x509

    from coppice.catalogue.model import EndorserIdentity
    from coppice.formats.cms_sign import Signer

    Ask = Callable[[str], str]
    """Asks a person for a secret: takes what to say, gives what was typed."""

MAX_KEY_FILE_BYTES = 1024 * 1024
"""Of a file with certificates or a key."""
MAX_PASSPHRASE_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMaterial:
    """A certificate and what signs with its key; that the two fit was tried.

    Attributes:
        certificate: The endorser's.
        chain: Certificates that came with it; sent along with the signature.
        signer: Signs with the key.
        warnings: What its owner should know.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    signer: Signer
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassphraseSource:
    """Where a passphrase or PIN comes from; it is fetched when it is needed, and never kept.

    Attributes:
        identity: Names the file or variable, or says that a person is asked.
        environ: The environment.
        ask: Asks a person; None: there is nobody at a terminal.
    """

    identity: EndorserIdentity
    environ: Mapping[str, str]
    ask: Ask | None

    @property
    def named(self) -> bool:
        """Tell whether any source is named."""
        identity = self.identity
        return bool(identity.passphrase_file or identity.passphrase_variable or identity.ask_passphrase)

    def fetch(self, what: str) -> bytes | None:
        """Return the secret; None where no source is named.

        Args:
            what: The secret's name for people, such as "the passphrase of jane.key".

        Raises:
            UnreadableFileError: The file cannot be read.
            CredentialError: The source holds nothing, or there is nobody to ask.
        """
        identity = self.identity
        if identity.passphrase_file is not None:
            lines = read_bounded(identity.passphrase_file, "passphrase file", MAX_PASSPHRASE_FILE_BYTES).splitlines()
            return _not_empty(lines[0] if lines else b"", what, f"the first line of {identity.passphrase_file} is")
        if identity.passphrase_variable is not None:
            value = os.fsencode(self.environ.get(identity.passphrase_variable, ""))
            return _not_empty(value, what, f"the environment variable {identity.passphrase_variable} is not set, or")
        if not identity.ask_passphrase:
            return None
        if self.ask is None:
            raise CredentialError(
                f"{what} is to be asked for, and there is no terminal to ask on",
                resolution="Run the command on a terminal, or have the endorser's passphrase in a file or an "
                "environment variable (`coppice endorser edit`).",
            )
        return _not_empty(self.ask(what).encode("utf-8", errors="surrogateescape"), what, "what was typed is")


def _not_empty(secret: bytes, what: str, where: str) -> bytes:
    if not secret:
        raise CredentialError(f"{what} is missing: {where} empty", resolution=f"Put {what} there.")
    return secret


def read_bounded(path: Path, what: str, limit_bytes: int = MAX_KEY_FILE_BYTES) -> bytes:
    """Return the bytes of a file that a person named.

    Raises:
        UnreadableFileError: It cannot be read, or is longer than ``limit_bytes``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as problem:
        raise UnreadableFileError(
            f"the {what} {path} cannot be read: {problem.strerror}",
            resolution="Check the path and this user's rights.",
            context={"path": str(path)},
        ) from problem
    if len(data) > limit_bytes:
        raise UnreadableFileError(
            f"the {what} {path} is longer than {limit_bytes} bytes, which no such file is",
            resolution="Check the path.",
            context={"path": str(path)},
        )
    return data


def warn_of_readers(path: Path, what: str) -> tuple[str, ...]:
    """Return a warning when others than its owner can reach a secret file; none is given where that is not known."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ()
    return (f"others can reach the {what} {path} (mode {mode:04o}): chmod 600 it",) if mode & 0o077 else ()
