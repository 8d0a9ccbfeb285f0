# SPDX-License-Identifier: Apache-2.0
"""What a loss of power leaves behind: the directories of a command at any of its calls, under a weak file system.

The calls of a command are taken from a trace (``strace``), with all that it wrote. From them `PowerCut` makes the state
in which a machine may come up again that lost its power after any of these calls. Promised is no more than what
journalling file systems promise:

- what was written to a file is there when it was flushed (fsync, fdatasync) afterwards; otherwise it is there, or not,
  page by page, in any order;
- names (made, renamed, linked, removed) come in their order; those before the last flush of whatever file or
  directory are there; of those after it as many as the file system liked, whether or not the bytes behind them are.

Files elsewhere that the command copied from must be there still when the trace is followed. Locks, times and
permissions are left out; so is what is written into mapped memory, which SQLite does with its ``-shm`` file only, and
that it makes anew.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CALLS = (
    *("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "fsync", "fdatasync", "ftruncate", "fallocate", "write", "writev", "pwrite64"),
    *("lseek", "copy_file_range", "sendfile"),
)
OPTIONS = ("-y", "-xx", "-s", "67108864", "-e", f"trace={','.join(_CALLS)}")
"""Options of ``strace`` for a trace that can be replayed; ``-o`` and a file come besides."""
_PAGE = 4096
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?")
_HALF = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_REST = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_HANDLE = re.compile(r"(\d+)<([^>]*)>")
_COPIED = re.compile(r"(\d+)<([^>]*)>, (NULL|\[\d+\]), (\d+)<([^>]*)>, (NULL|\[\d+\]), ")
_AT = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "((?:\\x[0-9a-f]{2})*)"')


class Loss(StrEnum):
    """How much of what was not flushed is lost."""

    DATA = "data"
    """All bytes; every name is there."""
    ALL = "all"
    """All bytes and all names."""
    NOTHING = "nothing"
    """No byte and no name."""
    SOME = "some"
    """Some pages, and the last few names."""


@dataclass(eq=False, slots=True)
class _File:
    """Bytes, by whatever names: those at the beginning, and what was done to them at which call."""

    base: bytes = b""
    changes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """Call, position, bytes; None: it was cut, or made longer, to that position."""
    flushes: list[int] = field(default_factory=list)

    def size(self) -> int:
        """Return how long it is when everything was done."""
        length = len(self.base)
        for _, position, piece in self.changes:
            length = position if piece is None else max(length, position + len(piece))
        return length

    def content(self, cut: int, loss: Loss, chooser: random.Random) -> bytes:
        """Return what is there after a loss of power behind call number ``cut``."""
        flushed = cut if loss is Loss.NOTHING else max((each for each in self.flushes if each <= cut), default=-1)
        found = bytearray(self.base)
        for number, position, piece in self.changes:
            if number > cut:
                break
            if number > flushed and loss in {Loss.DATA, Loss.ALL}:
                continue
            if piece is None:
                if number <= flushed or chooser.random() < 0.5:  # noqa: PLR2004 - a coin
                    found[position:] = bytes(max(0, position - len(found)))
                continue
            for start in range(0, len(piece), _PAGE):
                if number <= flushed or chooser.random() < 0.5:  # noqa: PLR2004 - a coin
                    part = piece[start : start + _PAGE]
                    found.extend(bytes(max(0, position + start - len(found))))
                    found[position + start : position + start + len(part)] = part
        return bytes(found)


_Entry = _File | str | None
"""What a name leads to: a file, the target of a symbolic link, or a directory."""


class PowerCut:
    """Replays a trace over directories as they were before it.

    Args:
        roots: The directories; what lies elsewhere is left out. They are read when this is made.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._before: dict[str, _Entry] = {}
        known: dict[tuple[int, int], _File] = {}
        for found in sorted(each for root in roots for each in (root, *root.rglob("*"))):
            state = found.lstat()
            if found.is_symlink():
                self._before[str(found)] = str(found.readlink())
            elif found.is_dir():
                self._before[str(found)] = None
            else:
                place = (state.st_dev, state.st_ino)
                self._before[str(found)] = known.setdefault(place, _File())
                known[place].base = found.read_bytes()
        self._names = dict(self._before)
        self._offsets: dict[tuple[str, str], int] = {}
        self._steps: list[tuple[int, str, str, _Entry]] = []
        self._flushes: list[int] = []
        self.calls = 0

    def follow(self, lines: Iterable[str]) -> None:
        """Take in a trace that was made with `OPTIONS`.

        Raises:
            ValueError: A call of it cannot be replayed.
        """
        halves: dict[tuple[str, str], str] = {}
        for line in lines:
            if half := _HALF.match(line):
                halves[half[1], half[2]] = half[3]
                continue
            if rest := _REST.match(line):
                line = f"{rest[1]} {rest[2]}({halves.pop((rest[1], rest[2]), '')}{rest[3]}"  # noqa: PLW2901 - one call
            found = _LINE.match(line)
            if found is not None and int(found[4]) >= 0:
                self._call(found[2], found[3], int(found[4]), _plain(found[5] or ""))

    def restore(self, cut: int, loss: Loss, seed: int = 0) -> None:
        """Make the directories what they are when power is lost behind call number ``cut``.

        Args:
            cut: From 0 (before everything) to `calls`.
            loss: How much is lost that was not flushed.
            seed: Decides what is lost, for `Loss.SOME`.
        """
        chooser = random.Random(seed)  # noqa: S311 - what is lost
        flushed = max((each for each in self._flushes if each <= cut), default=0)
        last = flushed if loss is Loss.ALL else chooser.randint(flushed, cut) if loss is Loss.SOME else cut
        names = dict(self._before)
        for number, what, named, changed in self._steps:
            if number <= last:
                _apply(names, what, named, changed)
        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)
        made: dict[int, Path] = {}
        for name, entry in sorted(names.items()):
            path = Path(name)
            if entry is None:
                path.mkdir(parents=True, exist_ok=True)
            elif isinstance(entry, str):
                path.symlink_to(entry)
            elif id(entry) in made:
                os.link(made[id(entry)], path)
            else:
                path.write_bytes(entry.content(cut, loss, chooser))
                made[id(entry)] = path

    def _call(self, call: str, said: str, result: int, returned: str) -> None:
        self.calls += 1
        if any(dots for _, dots in _TEXT.findall(said)):
            problem = f"the trace of {call} is cut"
            raise ValueError(problem)
        if call == "openat":
            self._opened(said, str(result), returned)
        elif call in {"fsync", "fdatasync", "ftruncate", "fallocate", "write", "writev", "pwrite64", "lseek"}:
            self._handled(call, said, result)
        elif call == "copy_file_range":
            self._copied(said, result)
        elif call == "sendfile":
            if any(self._is_inside(_plain(path)) for _, path in _HANDLE.findall(said)):
                problem = f"{call} cannot be replayed"
                raise ValueError(problem)
        else:
            self._named(call, said)

    def _opened(self, said: str, handle: str, path: str) -> None:
        if not self._is_inside(path):
            return
        entry = self._names.get(path)
        if path not in self._names and "O_CREAT" in said:
            entry = _File()
            self._step("put", path, entry)
        if isinstance(entry, _File):
            if "O_TRUNC" in said:
                entry.changes.append((self.calls, 0, None))
            self._offsets[handle, path] = -1 if "O_APPEND" in said else 0

    def _handled(self, call: str, said: str, result: int) -> None:
        named = _HANDLE.match(said)
        if named is None or not self._is_inside(path := _plain(named[2])):
            return
        entry = self._names.get(path)
        if call in {"fsync", "fdatasync"}:
            self._flushes.append(self.calls)
            if isinstance(entry, _File):
                entry.flushes.append(self.calls)
            return
        # What has no name any more is nobody's.
        if not isinstance(entry, _File):
            return
        place = (named[1], path)
        if call == "lseek":
            self._offsets[place] = result
        elif call == "ftruncate":
            entry.changes.append((self.calls, int(said.rpartition(", ")[2]), None))
        elif call == "fallocate":
            end = sum(int(each) for each in said.split(", ")[-2:])
            if end > entry.size():
                entry.changes.append((self.calls, end, None))
        else:
            data = b"".join(_bytes(text) for text, _ in _TEXT.findall(said))[:result]
            if call == "pwrite64":
                start = int(said.rpartition(", ")[2])
            else:
                known = self._offsets.get(place, 0)
                start = entry.size() if known < 0 else known
                self._offsets[place] = -1 if known < 0 else start + len(data)
            entry.changes.append((self.calls, start, data))

    def _copied(self, said: str, length: int) -> None:
        """Take in a copy that the kernel made."""
        ends = _COPIED.match(said)
        if ends is None or not self._is_inside(target := _plain(ends[5])):
            return
        source, entry = _plain(ends[2]), self._names.get(target)
        known = self._names.get(source)
        start, data = self._place(ends[1], source, ends[3], length), b""
        if isinstance(known, _File):
            data = known.content(self.calls, Loss.NOTHING, random.Random(0))[start : start + length]  # noqa: S311 - no choice
        elif not self._is_inside(source):
            with Path(source).open("rb") as stream:
                stream.seek(start)
                data = stream.read(length)
        if len(data) != length or not isinstance(entry, _File):
            problem = f"what was copied from {source} is not there any more"
            raise ValueError(problem)
        entry.changes.append((self.calls, self._place(ends[4], target, ends[6], length), data))

    def _place(self, handle: str, path: str, said: str, length: int) -> int:
        """Return where a copy begins: where the call says, else where the handle is, which goes on."""
        if said != "NULL":
            return int(said.strip("[]"))
        start = self._offsets.get((handle, path), 0)
        self._offsets[handle, path] = start + length
        return start

    def _named(self, call: str, said: str) -> None:
        pairs = [str(Path(_plain(folder)) / _plain(name)) for folder, name in _AT.findall(said)]
        paths = pairs or [_plain(text) for text, _ in _TEXT.findall(said)]
        target = paths[-1]
        if call.startswith("symlink"):
            texts = [_plain(text) for text, _ in _TEXT.findall(said)]
            if self._is_inside(target):
                self._step("put", target, texts[0])
        elif call.startswith("mkdir"):
            if self._is_inside(target):
                self._step("put", target, None)
        elif call.startswith("rename"):
            if self._is_inside(target):
                self._step("move", paths[0], target)
                self._moved(paths[0], target)
        elif call.startswith("link"):
            if self._is_inside(target):
                self._step("put", target, self._names[paths[0]])
        elif self._is_inside(target):
            self._step("remove", target, None)

    def _moved(self, old: str, new: str) -> None:
        for handle, path in list(self._offsets):
            if path == old or path.startswith(f"{old}/"):
                self._offsets[handle, new + path[len(old) :]] = self._offsets.pop((handle, path))

    def _step(self, what: str, path: str, entry: _Entry) -> None:
        self._steps.append((self.calls, what, path, entry))
        _apply(self._names, what, path, entry)

    def _is_inside(self, path: str) -> bool:
        return any(path == str(root) or path.startswith(f"{root}/") for root in self._roots)


def _apply(names: dict[str, _Entry], what: str, path: str, entry: _Entry) -> None:
    if what == "put":
        names[path] = entry
    elif what == "remove":
        names.pop(path, None)
    else:
        moved = {each: names[each] for each in names if each == path or each.startswith(f"{path}/")}
        if len({id(names.get(path)), id(names.get(str(entry)))}) == 1 and isinstance(names.get(path), _File):
            # Two names of one file: nothing happens (POSIX, rename).
            return
        for each in moved:
            del names[each]
        for each, known in moved.items():
            names[f"{entry}{each[len(path) :]}"] = known


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _plain(text: str) -> str:
    return os.fsdecode(_bytes(text)) if text.startswith("\\x") else text
