# SPDX-License-Identifier: Apache-2.0
"""What of a commit is taken: the folders of definitions, as plain files; and how they are laid down and known again.

A file's name comes from whoever may push. So names are plain, nothing is a link or another repository, and all of it is
bounded; what is laid down is known by a digest over every name and byte.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from coppice import atomic
from coppice.definition.git_address import MAX_DEPTH, is_plain_part
from coppice.errors import DefinitionSourceError
from coppice.model.identifiers import is_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from coppice.definition.git_address import GitAddress

APPLIANCE: Final = "appliance.toml"
MAX_FILES: Final = 2000
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 32 * 1024 * 1024
MAX_PATH_LENGTH: Final = 400
_LARGE_FILE_POINTER = b"version https://git-lfs.github.com/spec/"
_KINDS = {"120000": "a symbolic link", "160000": "another repository (a submodule)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a commit.

    Attributes:
        mode: As git writes it: ``100644``.
        identifier: Of its content.
        path: Below the folder that was asked for.
    """

    mode: str
    identifier: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenFile:
    """A file of a definition."""

    content: bytes
    is_executable: bool = False


class Snapshot(Protocol):
    """A commit that can be read."""

    def entries(self, folder: str) -> tuple[Entry, ...] | None:
        """Return all files below ``folder``; None: there is no such folder."""
        ...

    def contents(self, entries: Sequence[Entry]) -> list[bytes]:
        """Return what is in the files, in their order."""
        ...


def take(snapshot: Snapshot, address: GitAddress) -> dict[str, TakenFile]:
    """Return the files of the definitions that ``address`` leads to, by path; each is in the folder of its definition.

    Where the path is the folder of one definition, its parents come with it, as far as they are beside it.

    Raises:
        DefinitionSourceError: There is none, or one has what no definition has; the message names it.
    """
    found = snapshot.entries(address.path)
    if found is None:
        raise DefinitionSourceError(
            f"there is no folder {address.path!r} in {address.url} at {address.ref or 'its default branch'}",
            context={"url": address.url, "path": address.path},
        )
    if any(entry.path == APPLIANCE for entry in found):
        return _with_parents(snapshot, address, found)
    names = dict.fromkeys(entry.path.partition("/")[0] for entry in found if entry.path.partition("/")[2] == APPLIANCE)
    if not names:
        raise DefinitionSourceError(
            f"no folder in {address} has an {APPLIANCE}",
            resolution="Name the folder whose folders are definitions, behind #REF:",
        )
    wanted = [entry for entry in found if entry.path.partition("/")[0] in names and "/" in entry.path]
    return _contents(snapshot, wanted)


def _with_parents(snapshot: Snapshot, address: GitAddress, found: tuple[Entry, ...]) -> dict[str, TakenFile]:
    beside = address.path.rpartition("/")[0]
    taken: dict[str, TakenFile] = {}
    name: str | None = address.folder
    entries: tuple[Entry, ...] | None = found
    while name is not None and entries is not None and any(entry.path == APPLIANCE for entry in entries):
        moved = [Entry(mode=each.mode, identifier=each.identifier, path=f"{name}/{each.path}") for each in entries]
        taken |= _contents(snapshot, moved)
        _check_total(taken)
        parent = _parent(taken[f"{name}/{APPLIANCE}"].content)
        if not address.path or parent is None or f"{parent}/{APPLIANCE}" in taken:
            break
        name, entries = parent, snapshot.entries(f"{beside}/{parent}".lstrip("/"))
    return taken


def _parent(content: bytes) -> str | None:
    try:
        said = tomllib.loads(content.decode("utf-8")).get("from")
    except (ValueError, RecursionError):
        # Whoever reads it as a definition says what is wrong with it.
        return None
    name = said.partition("@")[0] if isinstance(said, str) else ""
    return name if is_name(name) else None


def _contents(snapshot: Snapshot, entries: Sequence[Entry]) -> dict[str, TakenFile]:
    if len(entries) > MAX_FILES:
        _refuse(f"the definitions have more than {MAX_FILES} files")
    for entry in entries:
        _check(entry)
    contents = snapshot.contents(entries)
    taken: dict[str, TakenFile] = {}
    for entry, content in zip(entries, contents, strict=True):
        if len(content) > MAX_FILE_BYTES:
            _refuse(f"{entry.path} is larger than {MAX_FILE_BYTES} bytes")
        if content.startswith(_LARGE_FILE_POINTER):
            _refuse(f"{entry.path} is kept in Git LFS, which is not followed")
        taken[entry.path] = TakenFile(content=content, is_executable=entry.mode == "100755")
    _check_total(taken)
    return taken


def _check_total(taken: Mapping[str, TakenFile]) -> None:
    if len(taken) > MAX_FILES:
        _refuse(f"the definitions have more than {MAX_FILES} files")
    if sum(len(each.content) for each in taken.values()) > MAX_TOTAL_BYTES:
        _refuse(f"the definitions have more than {MAX_TOTAL_BYTES} bytes")


def _check(entry: Entry) -> None:
    parts = entry.path.split("/")
    shown = entry.path[:200]
    if entry.mode in _KINDS:
        _refuse(f"{shown} is {_KINDS[entry.mode]}")
    if entry.mode not in {"100644", "100755", "100664"}:
        _refuse(f"{shown} is no ordinary file")
    if not all(is_plain_part(part) for part in parts) or len(parts) > MAX_DEPTH or len(entry.path) > MAX_PATH_LENGTH:
        _refuse(f"{shown!r} is a name that is not taken (letters, digits, . _ + - only)")
    if not is_name(parts[0]):
        _refuse(f"{parts[0][:80]!r} cannot be the name of a definition")


def names_of(files: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the definitions that ``files`` are of."""
    return tuple(sorted({path.partition("/")[0] for path in files}))


def digest_of(files: Mapping[str, TakenFile]) -> str:
    """Return the sha256 over names, modes and bytes of all ``files``."""
    state = hashlib.sha256(b"coppice definitions 1\n")
    for path, file in sorted(files.items()):
        state.update(f"{path}\0{'x' if file.is_executable else '-'}{len(file.content)}\0".encode())
        state.update(file.content)
    return state.hexdigest()


def lay_down(files: Mapping[str, TakenFile], folder: Path) -> None:
    """Write ``files`` below ``folder``, which is made; it is there whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    if folder.is_dir():
        return
    with atomic.replacing_directory(folder) as place:
        for path, file in sorted(files.items()):
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(
                target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if file.is_executable else 0o644
            )
            with os.fdopen(handle, "wb") as stream:
                stream.write(file.content)


def read_laid(folder: Path) -> dict[str, TakenFile]:
    """Return what lies below ``folder``, as `lay_down` put it there.

    Raises:
        DefinitionSourceError: Something else lies there.
        StorageError: It cannot be read.
    """
    with atomic.storage_errors("reading", folder):
        return dict(_laid(folder, ""))


def _laid(folder: Path, below: str) -> Iterator[tuple[str, TakenFile]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        kind = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(kind.st_mode):
            yield from _laid(folder / entry.name, f"{below}{entry.name}/")
        elif stat.S_ISREG(kind.st_mode) and kind.st_size <= MAX_FILE_BYTES:
            content = (folder / entry.name).read_bytes()
            yield f"{below}{entry.name}", TakenFile(content=content, is_executable=bool(kind.st_mode & stat.S_IXUSR))
        else:
            raise DefinitionSourceError(f"{folder / entry.name} is no file of a definition")


def _refuse(why: str) -> NoReturn:
    raise DefinitionSourceError(
        why, resolution="Ask whoever keeps the repository, or add another folder or commit of it."
    )
