# SPDX-License-Identifier: Apache-2.0
"""A directory of archived events: one JSON file an event, as ITCHY 0.2 writes and reads them.

``SECONDS_TYPE_IDENTIFIER.json``, where events without an image have ``NoID``. Names tell whole seconds only, and sorted
as text an image would come before it left: the true order is that of a run (`rank`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import fsync_directory, partial_path, storage_errors, sweep_partials
from coppice.errors import DocumentError, InputError, StorageError, UnreadableFileError
from coppice.events.vmcatcher import KINDS, PREFIX, TYPE
from coppice.formats.strict_json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.events.model import EventKind

KEYS = tuple(
    PREFIX + name
    for name in (
        "TYPE",
        "DC_DESCRIPTION",
        "DC_IDENTIFIER",
        "DC_TITLE",
        "HV_HYPERVISOR",
        "HV_SIZE",
        "HV_URI",
        "HV_VERSION",
        "HV_FORMAT",
        "SL_ARCH",
        "SL_CHECKSUM_SHA512",
        "SL_COMMENTS",
        "SL_OS",
        "SL_OSVERSION",
        "FILENAME",
        "IL_DC_IDENTIFIER",
        "AD_MPURI",
        "VO",
    )
)
"""What an archived event has; null: its handler was not given it."""
NO_IDENTIFIER = "NoID"
MAX_FILE_BYTES = 256 * 1024
FILE_MODE = 0o664
_MAX_WAIT_SECONDS = 100_000
_ORDER = (
    "SubscriptionImageNew",
    "ProcessPrefix",
    "ExpirePrefix",
    "ExpirePostfix",
    "AvailablePrefix",
    "AvailablePostfix",
    "ProcessPostfix",
)
_NAME = re.compile(r"([0-9]{1,11})_([A-Za-z0-9]{1,64})_([A-Za-z0-9-]{1,128})\.json", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9-]{1,128}", re.ASCII)
_TYPE_WORD = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedName:
    """The name of an archived event.

    Attributes:
        seconds: When it happened, since 1970.
        type: What vmcatcher calls it.
        label: Of which image: its identifier, as far as a file's name can hold it.
    """

    seconds: int
    type: str
    label: str

    @classmethod
    def parse(cls, name: str) -> ArchivedName | None:
        """Return what a file's name says; None: it is no archived event."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(seconds=int(found[1]), type=found[2], label=found[3])

    @property
    def file_name(self) -> str:
        """The name."""
        return f"{self.seconds}_{self.type}_{self.label}.json"

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Sorts events into the order in which they happened, as far as their names tell."""
        return (self.seconds, rank(self.type), self.label, self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedEvent:
    """An archived event that was read.

    Attributes:
        name: Its name.
        kind: What happened.
        variables: What it says.
        digest: sha256 of name and content.
    """

    name: ArchivedName
    kind: EventKind
    variables: Mapping[str, str]
    digest: str


def rank(event_type: str) -> int:
    """Return the place of a type within a second: what expires does so before what becomes available."""
    return _ORDER.index(event_type) if event_type in _ORDER else len(_ORDER)


def label_of(identifier: str | None) -> str:
    """Return what stands for an image's identifier in a name: itself, where it cannot be taken for a path."""
    if not identifier:
        return NO_IDENTIFIER
    if _LABEL.fullmatch(identifier):
        return identifier
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", identifier)[:64]
    return f"{plain}-{hashlib.sha256(identifier.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def archive_event(
    directory: Path, variables: Mapping[str, str], *, seconds: int, mode: int = FILE_MODE, dry_run: bool = False
) -> Path:
    """Write the event that a handler of vmcatcher was given; return its file.

    A file is there as a whole or not at all, and no other is ever written over: an event that would sort before an
    earlier one of the same image, or has its name, is given the next second that is free.

    Args:
        directory: Where archived events lie; it is made when it is missing.
        variables: The environment.
        seconds: When, since 1970.
        mode: Rights of the file.
        dry_run: Only say which file would be written.

    Raises:
        InputError: The environment tells of no event.
        StorageError: The file cannot be written.
    """
    event_type = variables.get(TYPE, "")
    if not _TYPE_WORD.fullmatch(event_type):
        raise InputError(
            f"the environment tells of no event: {TYPE} is {_shown(event_type)}",
            resolution="vmcatcher calls `coppice event archive` itself: name it with --execute, or in "
            "VMCATCHER_CACHE_EVENT.",
        )
    said = {key: _text(variables[key]) if variables.get(key) else None for key in KEYS}
    data = json.dumps(said, ensure_ascii=True, indent=2).encode("ascii") + b"\n"
    label = label_of(variables.get(f"{PREFIX}DC_IDENTIFIER"))
    with storage_errors("writing to", directory):
        if dry_run:
            taken = _newest(directory, label) if directory.is_dir() else None
            return directory / _next_name(ArchivedName(seconds=seconds, type=event_type, label=label), taken).file_name
        directory.mkdir(parents=True, exist_ok=True)
        sweep_partials(directory, older_than_seconds=_STALE_SECONDS)
        return _write_new(directory, ArchivedName(seconds=seconds, type=event_type, label=label), data, mode)


def _write_new(directory: Path, wanted: ArchivedName, data: bytes, mode: int) -> Path:
    temporary = partial_path(directory / wanted.file_name)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(handle, mode)
            stream.write(data)
            stream.flush()
            os.fsync(handle)
        for _ in range(_MAX_WAIT_SECONDS):
            wanted = _next_name(wanted, _newest(directory, wanted.label))
            try:
                os.link(temporary, directory / wanted.file_name)
            except FileExistsError:
                continue
            fsync_directory(directory)
            return directory / wanted.file_name
    finally:
        temporary.unlink(missing_ok=True)
    raise StorageError(f"no name is free for an event in {directory}")


def _next_name(wanted: ArchivedName, newest: ArchivedName | None) -> ArchivedName:
    if newest is None or (newest.seconds, rank(newest.type)) < (wanted.seconds, rank(wanted.type)):
        return wanted
    same_second = rank(newest.type) < rank(wanted.type)
    seconds = newest.seconds if same_second else newest.seconds + 1
    return ArchivedName(seconds=seconds, type=wanted.type, label=wanted.label)


def _newest(directory: Path, label: str) -> ArchivedName | None:
    ending = f"_{label}.json"
    with os.scandir(directory) as entries:
        names = [ArchivedName.parse(entry.name) for entry in entries if entry.name.endswith(ending)]
    found = [name for name in names if name is not None and name.label == label]
    return max(found, key=lambda name: (name.seconds, rank(name.type)), default=None)


def archived_names(directory: Path) -> tuple[tuple[ArchivedName, ...], tuple[str, ...]]:
    """Return the archived events of a directory in their true order, and the names of what else lies there.

    Raises:
        UnreadableFileError: The directory cannot be read.
    """
    events: list[ArchivedName] = []
    others: list[str] = []
    for name, is_directory in _entries(directory):
        parsed = ArchivedName.parse(name)
        if parsed is not None and not is_directory and parsed.file_name == name:
            events.append(parsed)
        elif not is_directory and not name.startswith("."):
            others.append(name)
    return tuple(sorted(events, key=lambda each: each.order)), tuple(sorted(others))


def _entries(directory: Path) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False)
    except OSError as problem:
        raise UnreadableFileError(
            f"cannot read the directory {directory}: {problem.strerror}", context={"path": str(directory)}
        ) from problem


def read_archived(directory: Path, name: ArchivedName) -> ArchivedEvent:
    """Read an archived event.

    Raises:
        DocumentError: It is no event: too long, no JSON, or not what its name says.
        UnreadableFileError: It cannot be read.
    """
    path = directory / name.file_name
    content = _content(path)
    document = read_json(content, what="archived event", max_bytes=MAX_FILE_BYTES, max_depth=2, max_values=1000)
    variables: dict[str, str] = {}
    for key, value in document.items():
        if value is not None and not isinstance(value, str):
            raise DocumentError(f"{key[:80]!r} is no text")
        if value:
            variables[key] = value
    kind = KINDS.get(name.type)
    if kind is None:
        raise DocumentError(f"no event of vmcatcher is called {name.type!r}")
    if variables.get(TYPE, name.type) != name.type:
        raise DocumentError(f"it says that it is {variables[TYPE][:80]!r}, and its name says {name.type!r}")
    if label_of(variables.get(f"{PREFIX}DC_IDENTIFIER")).lower() != name.label.lower():
        raise DocumentError("it is about another image than its name says")
    digest = hashlib.sha256(name.file_name.encode() + b"\0" + content).hexdigest()
    return ArchivedEvent(name=name, kind=kind, variables=variables, digest=digest)


def _content(path: Path) -> bytes:
    try:
        # A pipe would be waited for, a link could lead anywhere.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise DocumentError("it is no regular file")
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise DocumentError("it is a link; links are not followed") from problem
        raise UnreadableFileError(f"cannot read {path}: {problem.strerror}", context={"path": str(path)}) from problem
    if len(content) > MAX_FILE_BYTES:
        raise DocumentError(f"it is longer than {MAX_FILE_BYTES} bytes")
    return content


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _shown(value: str) -> str:
    return f"{value[:80]!r}" if value else "not set"
