# SPDX-License-Identifier: Apache-2.0
"""`XfsTree`: XFS, whose directories and lists of blocks xfs_db reads; the blocks themselves are read here."""

from __future__ import annotations

import re
import stat
import struct
from typing import TYPE_CHECKING

from coppice.conversion.guest.tree import Node, NodeKind
from coppice.conversion.guest.unknown import NotFoundOutError, last_line
from coppice.conversion.window import FileWindow
from coppice.errors import ImageRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.conversion.guest.caged import Reader

_ENTRY = re.compile(r"[0-9]+ +([0-9]+) +([a-z]+) +0x[0-9a-f]+ +([0-9]+) (.+) \(good\)")
_DAMAGED = re.compile(r" \((?!good\))[a-z ]+\)$", re.MULTILINE)
_VALUE = re.compile(r"^core\.size = ([0-9]+)$", re.MULTILINE)
_FORMAT = re.compile(r"^core\.format = [0-9] \(([a-z]+)\)$", re.MULTILINE)
_TARGET = re.compile(r'^u3?\.symlink = "(.*)"$', re.MULTILINE)
_BLOCKS = re.compile(
    r"^data offset ([0-9]+) startblock [0-9]+ \(([0-9]+)/([0-9]+)\) count ([0-9]+) flag ([01])$", re.MULTILINE
)
_MODE = re.compile(r"^core\.mode = ([0-7]{1,7})$", re.MULTILINE)
_UNTYPED = "unknown"
_MODES = {stat.S_IFREG: NodeKind.FILE, stat.S_IFDIR: NodeKind.DIRECTORY, stat.S_IFLNK: NodeKind.LINK}
_KINDS = {"regular": NodeKind.FILE, "directory": NodeKind.DIRECTORY, "symlink": NodeKind.LINK}
MOST_UNTYPED = 4096
_BLOCK_SIZES = frozenset(1 << shift for shift in range(9, 17))


class XfsTree:
    """The files of an XFS file system; a node's identity is the number of its inode.

    Args:
        path: A file that holds the file system and nothing else.
        reader: Runs xfs_db.

    Raises:
        NotFoundOutError: Its superblock cannot be.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path = path
        self._reader = reader
        self._seen: dict[str, Mapping[str, Node]] = {}
        head = self._read(0, 512)
        if len(head) != 512 or head[:4] != b"XFSB":  # noqa: PLR2004 - the length of a sector
            raise NotFoundOutError("there is no XFS superblock")
        self._block_bytes, self._group_blocks = (
            struct.unpack_from(">I", head, 4)[0],
            struct.unpack_from(">I", head, 84)[0],
        )
        if self._block_bytes not in _BLOCK_SIZES:
            raise NotFoundOutError(f"XFS has no blocks of {self._block_bytes} bytes")
        self._root = Node(identity=str(struct.unpack_from(">Q", head, 56)[0]), kind=NodeKind.DIRECTORY)

    @property
    def root(self) -> Node:
        """Return its first directory."""
        return self._root

    def children(self, directory: Node) -> Mapping[str, Node]:
        """Return what is in a directory; see `coppice.conversion.guest.tree.Tree`."""
        if directory.identity not in self._seen:
            said = self._ask(f"inode {directory.identity}", "ls")
            found = [
                entry for entry in map(_ENTRY.fullmatch, said.split("\n")) if entry and entry[4] not in {".", ".."}
            ]
            kinds = self._kinds([entry[1] for entry in found if entry[2] == _UNTYPED])
            self._seen[directory.identity] = {
                entry[4]: Node(identity=entry[1], kind=kinds.get(entry[1]) or _KINDS.get(entry[2], NodeKind.OTHER))
                for entry in found
            }
        return self._seen[directory.identity]

    def target(self, link: Node) -> str:
        """Return what a symbolic link says; see `coppice.conversion.guest.tree.Tree`."""
        said = self._ask(f"inode {link.identity}", "print")
        found = _TARGET.search(said)
        if found is None:
            raise NotFoundOutError("xfs_db does not say where a symbolic link leads")
        return found[1]

    def head(self, file: Node, most_bytes: int) -> bytes:
        """Return the first bytes of a file; see `coppice.conversion.guest.tree.Tree`."""
        said = self._ask(f"inode {file.identity}", "print core.format core.size", "bmap")
        size, form = _VALUE.search(said), _FORMAT.search(said)
        if size is None or form is None or form[1] not in {"extents", "btree"}:
            raise NotFoundOutError("xfs_db does not say where a file lies")
        length = min(int(size[1]), most_bytes)
        content = bytearray(length)
        for found in _BLOCKS.finditer(said):
            offset, group, block, count, unwritten = (int(number) for number in found.groups())
            at = offset * self._block_bytes
            if at >= length or unwritten:
                continue
            wanted = min(count * self._block_bytes, length - at)
            piece = self._read((group * self._group_blocks + block) * self._block_bytes, wanted)
            if len(piece) != wanted:
                raise NotFoundOutError("a file would lie outside of its file system")
            content[at : at + wanted] = piece
        return bytes(content)

    def _kinds(self, inodes: list[str]) -> dict[str, NodeKind]:
        """Return what inodes are whose directory does not say so: those of file systems made before 2014 or so."""
        if not inodes:
            return {}
        if len(inodes) > MOST_UNTYPED:
            raise NotFoundOutError(f"a directory has more than {MOST_UNTYPED} names and does not say what they are")
        commands = [command for inode in inodes for command in (f"inode {inode}", "print core.mode")]
        modes = _MODE.findall(self._ask(*commands))
        if len(modes) != len(inodes):
            raise NotFoundOutError("xfs_db does not say what the names of a directory are")
        kinds = [_MODES.get(stat.S_IFMT(int(mode, 8)), NodeKind.OTHER) for mode in modes]
        return dict(zip(inodes, kinds, strict=True))

    def _read(self, start: int, length: int) -> bytes:
        try:
            with FileWindow(self._path) as window:
                return window.read(start, length) if start < window.size_bytes else b""
        except (OSError, ImageRefusedError) as problem:
            raise NotFoundOutError("what was brought of the disk cannot be read") from problem

    def _ask(self, *commands: str) -> str:
        cage = self._reader.cage(self._path)
        argv = ["xfs_db", "-r", "-f"]
        for command in commands:
            argv += ["-c", command]
        done = self._reader.look(cage, [*argv, cage.inside(self._path)])
        text = done.text()
        if done.stderr.strip() or text.startswith(("bad ", "Not a directory", "Metadata ")):
            raise NotFoundOutError(f"xfs_db cannot read the file system: {last_line(done.stderr or done.stdout)}")
        return text
