# SPDX-License-Identifier: Apache-2.0
"""Gather a folder of descriptors: its files in order, and of each image that is in force its length and its sha512.

A sha512 that a descriptor lacks is made of the image. What was made is noted by the state of the file, so that an image
is read again only when it changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.errors import StorageError, TransferTooLargeError, UnreachableError
from coppice.formats.event_descriptor import MAX_DESCRIPTOR_BYTES
from coppice.model.checksum import Checksum
from coppice.subscription.fetch import state_of_file
from coppice.subscription.source.descriptor_events import DescriptorFile, last_words, order_of, read_event
from coppice.subscription.source.gathered import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.formats.limits import ListLimits
    from coppice.subscription.source.descriptor_events import Event

DESCRIPTOR = "descriptor "
PROBLEM = "problem "
IMAGE = "image "
"""How the names of documents begin; the name of a descriptor's file follows."""
_PIECE_BYTES = 1024 * 1024
_MAX_NOTES_BYTES = 16 * 1024 * 1024
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderContents:
    """What a folder says.

    Attributes:
        documents: Descriptors in their order, and what was found of their images.
        state: What changes when anything of it does; None: a file was written just now, and may be once more.
    """

    documents: tuple[Document, ...]
    state: str | None


def gather_folder(folder: Path, limits: ListLimits, notes_directory: Path | None) -> FolderContents:
    """Return what a folder, and the folders in it, say.

    Raises:
        UnreachableError: It cannot be read, or there is no descriptor.
        TransferTooLargeError: There are more files than a list may have images.
    """
    found = []
    for path, written_at in _files(folder, limits):
        event = read_event(_read(path, path.relative_to(folder).as_posix()))
        found.append((order_of(event, written_at), event))
    found.sort(key=lambda each: each[0])
    if not found:
        raise UnreachableError(
            f"the folder {folder} holds no descriptor (*.json)",
            resolution="If all appliances have ended, leave their expiration descriptors there.",
            context={"path": str(folder)},
        )
    notes = _Notes(folder, notes_directory)
    documents: list[Document] = []
    states: list[str | None] = []
    in_force = {event.file.name: event for event in last_words(event for _, event in found).registered.values()}
    for _, event in found:
        documents.append(_document(folder, event))
        if event.file.name in in_force:
            image, state = _image(folder, event, notes)
            documents.append(image)
            states.append(state)
    notes.write()
    if None in states:
        return FolderContents(documents=tuple(documents), state=None)
    return FolderContents(documents=tuple(documents), state=json.dumps(states))


def _files(folder: Path, limits: ListLimits) -> Iterator[tuple[Path, float]]:
    count = 0
    try:
        for directory in (folder, *_folders(folder)):
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.endswith(".json") or entry.is_dir():
                        continue
                    count += 1
                    if count > limits.images:
                        raise TransferTooLargeError(
                            f"the folder {folder} holds more than {limits.images} descriptors",
                            resolution="Remove those of versions that are over, or raise lists.maximum_images in the "
                            "settings.",
                        )
                    try:
                        # Of a link its own: one that leads nowhere today is a descriptor that cannot be read.
                        written_at = entry.stat(follow_symlinks=not entry.is_symlink()).st_mtime
                    except FileNotFoundError:  # removed, or renamed, meanwhile
                        continue
                    yield directory / entry.name, written_at
    except OSError as problem:
        # Also of one folder of many: what it holds would seem to have ended.
        raise UnreachableError(
            f"the folder {folder} cannot be read: {problem.strerror}", context={"path": str(folder)}
        ) from problem


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if not each.name.startswith(".") and each.is_dir(follow_symlinks=False)]
    return [folder / name for name in sorted(names)]


def _read(path: Path, name: str) -> DescriptorFile:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", errors="replace")
        return DescriptorFile(name=shown, data=b"", problem="its name is no UTF-8 text")
    try:
        handle = os.open(path, _OPEN)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return DescriptorFile(name=name, data=b"", problem="it is no regular file")
            data = stream.read(MAX_DESCRIPTOR_BYTES + 1)
    except OSError as problem:
        return DescriptorFile(name=name, data=b"", problem=f"it cannot be read: {problem.strerror}")
    if len(data) > MAX_DESCRIPTOR_BYTES:
        return DescriptorFile(name=name, data=b"", problem=f"it is longer than {MAX_DESCRIPTOR_BYTES} bytes")
    return DescriptorFile(name=name, data=data)


def _document(folder: Path, event: Event) -> Document:
    file = event.file
    uri = (folder / file.name).as_uri()
    if file.problem is not None:
        return Document(name=PROBLEM + file.name, uri=uri, data=file.problem.encode())
    return Document(name=DESCRIPTOR + file.name, uri=uri, data=file.data)


def _image(folder: Path, event: Event, notes: _Notes) -> tuple[Document, str | None]:
    """Return what was found of the image of a registration, and the state of its file."""
    disk = event.told.disk if event.told is not None else None
    given = "" if disk is None else disk.path
    path = os.path.normpath(Path((folder / event.file.name).parent, given))
    facts: dict[str, object] = {"path": path}
    state: str | None = "missing"
    try:
        handle = os.open(path, _OPEN)
        with os.fdopen(handle, "rb", buffering=0):
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                facts["problem"] = "its image is no regular file"
            elif before.st_size == 0:
                facts["problem"], state = "its image is empty", None
            else:
                state = state_of_file(before).etag
                facts["size_bytes"] = before.st_size
                facts["sha512"] = (
                    disk.checksum.hexdigest
                    if disk is not None and disk.checksum is not None
                    else notes.checksum(path, state, handle)
                )
                if os.fstat(handle).st_mtime_ns != before.st_mtime_ns:
                    facts = {"path": path, "problem": "its image is being written"}
                    state = None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        facts["problem"] = f"its image cannot be read: {reason}"
    payload = json.dumps(facts, sort_keys=True).encode("ascii")
    return Document(name=IMAGE + event.file.name, uri=Path(path).as_uri(), data=payload), state


class _Notes:
    """The sha512 of images by the state of their files; they can be lost, and cost time then."""

    def __init__(self, folder: Path, directory: Path | None) -> None:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        self._path = None if directory is None else directory / f"descriptors-{name}.json"
        self._known = {} if self._path is None else _read_notes(self._path)
        self._used: dict[str, str] = {}

    def checksum(self, path: str, state: str | None, handle: int) -> str:
        """Return the sha512 of an open file; ``state`` None: it may still change, and is not noted."""
        key = f"{state} {path}"
        found = self._known.get(key) if state is not None else None
        if found is None:
            hasher = hashlib.sha512()
            while piece := os.read(handle, _PIECE_BYTES):
                hasher.update(piece)
            found = hasher.hexdigest()
        if state is not None:
            self._used[key] = found
        return found

    def write(self) -> None:
        """Keep what was used."""
        if self._path is None or self._used == self._known:
            return
        with contextlib.suppress(StorageError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self._path, json.dumps(self._used).encode("ascii"), mode=0o600)


def _read_notes(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(_MAX_NOTES_BYTES))
        known = {str(key): str(value) for key, value in found.items()}
        return {key: Checksum("sha512", value).hexdigest for key, value in known.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
