# SPDX-License-Identifier: Apache-2.0
"""What a program needs of the machine to start: itself, the loader, libraries; not the folders that programs lie in."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from coppice import process
from coppice.errors import ToolFailedError, ToolMissingError

_LIBRARY_FOLDERS = ("/lib", "/lib64", "/lib32", "/libx32")
_LIBRARY_TREES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libx32", "/usr/local/lib", "/usr/local/lib64")
_LOADER_CACHE = "/etc/ld.so.cache"
_PROGRAM_FOLDERS = ("/bin", "/sbin")
_DISTRIBUTION = ("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")
"""Programs from there have their libraries in the usual folders."""
_LISTED = re.compile(rb"(?:=>\s*|^\s*)(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_HEAD_BYTES = 4096
_PT_INTERP = 3
_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Files of the machine that a program reads.

    Attributes:
        program: The program, in the folder that it really lies in; under its own name, which tells some what to do.
        trees: Folders and files, each by its own path.
        links: Symbolic links: where, and to what.
    """

    program: str
    trees: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    def paths(self) -> tuple[str, ...]:
        """Return all that it reads."""
        return (self.program, *self.trees)


def needs_of(name: str) -> Needs:
    """Return what the program ``name`` needs.

    Args:
        name: Its name, or its path.

    Raises:
        ToolMissingError: It is not installed.
        ToolFailedError: What it needs could not be found out.
    """
    found = name if os.sep in name else process.find_tool(name)
    program = str(Path(os.path.realpath(Path(found).parent), Path(found).name))
    try:
        state = os.stat(program)  # noqa: PTH116 - follows links, as starting it does
    except OSError as problem:
        raise ToolMissingError(f"cannot run {found}: {problem.strerror}", context={"tool": name}) from problem
    return _needs_of(program, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _needs_of(program: str, _modified: int, _size: int) -> Needs:
    # The time and the length are for the cache alone: a program that was installed anew is looked at anew.
    trees = [tree for tree in (*_LIBRARY_TREES, _LOADER_CACHE) if Path(tree).exists()]
    folders = list(_LIBRARY_FOLDERS)
    extra: tuple[str, ...] = ()
    real = os.path.realpath(program)
    head = _read_head(real)
    if head.startswith(b"#!"):
        # A script may call upon anything that is installed; it still cannot start it.
        trees.append("/usr")
        folders += _PROGRAM_FOLDERS
        extra = _interpreters(head)
    elif not real.startswith(_DISTRIBUTION):
        extra = _libraries(real, head)
    links = []
    for folder in folders:
        if Path(folder).is_symlink():
            links.append((folder, os.readlink(folder)))  # noqa: PTH115 - as it is written
        elif Path(folder).is_dir():
            trees.append(folder)
    covered = tuple(f"{tree}/" for tree in trees)
    others = dict.fromkeys(each for each in extra if not _plain(each).startswith(covered))
    return Needs(program=program, trees=(*sorted(set(trees)), *others), links=tuple(links))


def _plain(path: str) -> str:
    return str(Path(os.path.realpath(Path(path).parent), Path(path).name))


def _read_head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as problem:
        raise ToolFailedError(f"cannot run {path}: {problem.strerror}", context={"argv": [path]}) from problem


def _interpreters(head: bytes) -> tuple[str, ...]:
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split()
    if not words:
        return ()
    found = [words[0]]
    if Path(words[0]).name == "env" and len(words) > 1:
        found.append(process.find_tool(words[1]))
    return tuple(each for each in found if os.path.isabs(each))  # noqa: PTH117 - a string of another's file


def _libraries(program: str, head: bytes) -> tuple[str, ...]:
    loader = _loader(head)
    if loader is None:
        return ()
    # The loader says it itself; the program is one that this machine trusts, and is not run by that.
    said = process.run([loader, "--list", program], timeout_seconds=_SECONDS).stdout
    return (loader, *(os.fsdecode(each) for each in _LISTED.findall(said)))


def _loader(head: bytes) -> str | None:
    """Return the loader that an ELF file of 64 bits names (System V ABI, program header PT_INTERP)."""
    if not head.startswith(b"\x7fELF\x02\x01"):
        return None
    try:
        (start,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for number in range(count):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", head, start + number * size)
            if kind == _PT_INTERP:
                return os.fsdecode(head[offset : offset + length].rstrip(b"\0")) or None
    except (struct.error, OverflowError):
        return None
    return None
