# SPDX-License-Identifier: Apache-2.0
"""`ExtTree`: ext2, ext3 and ext4, read by debugfs where they lie."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from coppice.conversion.guest.tree import Node, NodeKind
from coppice.conversion.guest.unknown import NotFoundOutError, last_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.conversion.guest.caged import Reader
    from coppice.conversion.guest.disk_bytes import Stretch

_ENTRY = re.compile(r"/([0-9]+)/([0-7]{6})/[0-9]+/[0-9]+/(.+)/[0-9]*/")
_SHORT_TARGET = re.compile(r'^Fast link dest: "(.*)"$', re.MULTILINE)
_VERSION = re.compile(rb"debugfs [0-9.]+ \([^)\n]*\)\n?")
_KINDS = {stat.S_IFREG: NodeKind.FILE, stat.S_IFDIR: NodeKind.DIRECTORY, stat.S_IFLNK: NodeKind.LINK}
_MOST_TARGET_BYTES = 4096


class ExtTree:
    """The files of an ext file system; a node's identity is the number of its inode.

    Args:
        stretch: Where it lies.
        reader: Runs debugfs.
        workplace: A directory of this tree's own.
    """

    root = Node(identity="2", kind=NodeKind.DIRECTORY)

    def __init__(self, stretch: Stretch, reader: Reader, workplace: Path) -> None:
        self._stretch = stretch
        self._reader = reader
        self._workplace = workplace
        self._seen: dict[str, Mapping[str, Node]] = {}

    def children(self, directory: Node) -> Mapping[str, Node]:
        """Return what is in a directory; see `coppice.conversion.guest.tree.Tree`."""
        if directory.identity not in self._seen:
            said = self._ask(f"ls -p <{directory.identity}>")
            found = (_ENTRY.fullmatch(line) for line in said.split("\n"))
            self._seen[directory.identity] = {
                entry[3]: Node(identity=entry[1], kind=_KINDS.get(stat.S_IFMT(int(entry[2], 8)), NodeKind.OTHER))
                for entry in found
                if entry is not None and entry[3] not in {".", ".."}
            }
        return self._seen[directory.identity]

    def target(self, link: Node) -> str:
        """Return what a symbolic link says; see `coppice.conversion.guest.tree.Tree`."""
        found = _SHORT_TARGET.search(self._ask(f"stat <{link.identity}>"))
        if found is not None:
            return found[1]
        return self.head(link, _MOST_TARGET_BYTES).decode("utf-8", errors="replace")

    def head(self, file: Node, most_bytes: int) -> bytes:
        """Return the first bytes of a file; see `coppice.conversion.guest.tree.Tree`."""
        destination = self._workplace / "head"
        cage = self._reader.cage(self._stretch.path, writes=[destination])
        argv = self._argv(f'dump <{file.identity}> "{cage.inside(destination)}"', cage.inside(self._stretch.path))
        return self._reader.take(cage, argv, destination, most_bytes, may_say=_VERSION)

    def _ask(self, words: str) -> str:
        cage = self._reader.cage(self._stretch.path)
        done = self._reader.look(cage, self._argv(words, cage.inside(self._stretch.path)))
        # It ends with 0 whatever happened: what it says beside its version is what went wrong.
        if _VERSION.fullmatch(done.stderr) is None:
            raise NotFoundOutError(f"debugfs cannot read the file system: {last_line(done.stderr)}")
        return done.text()

    def _argv(self, words: str, inside: str) -> list[str]:
        # "-c": bitmaps are not read, which nothing here needs, and nothing is ever written.
        return ["debugfs", "-c", "-R", words, f"{inside}?offset={self._stretch.offset}"]
