# SPDX-License-Identifier: Apache-2.0
"""`FatTree`: FAT, read by mtools where it lies; a name's case does not count."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.conversion.guest.tree import Node, NodeKind
from coppice.conversion.guest.unknown import NotFoundOutError, last_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.conversion.guest.caged import Reader
    from coppice.conversion.guest.disk_bytes import Stretch

_NOTHING = re.compile(rb"\s*")
_ENVIRONMENT = {"MTOOLS_SKIP_CHECK": "1", "MTOOLS_LOWER_CASE": "0"}
"""mtools wants the geometry of real floppies otherwise."""


class FatTree:
    """The files of a FAT file system; a node's identity is its path, names are in lower case.

    Args:
        stretch: Where it lies.
        reader: Runs mtools.
        workplace: A directory of this tree's own.
    """

    root = Node(identity="::", kind=NodeKind.DIRECTORY)

    def __init__(self, stretch: Stretch, reader: Reader, workplace: Path) -> None:
        self._stretch = stretch
        self._reader = reader
        self._workplace = workplace
        self._seen: dict[str, Mapping[str, Node]] = {}

    def children(self, directory: Node) -> Mapping[str, Node]:
        """Return what is in a directory; see `coppice.conversion.guest.tree.Tree`."""
        if directory.identity not in self._seen:
            cage = self._reader.cage(self._stretch.path)
            image = f"{cage.inside(self._stretch.path)}@@{self._stretch.offset}"
            argv = ["mdir", "-a", "-b", "-i", image, f"{directory.identity}/"]
            done = self._reader.look(cage, argv, env=_ENVIRONMENT)
            if done.stderr.strip():
                raise NotFoundOutError(f"mtools cannot read the file system: {last_line(done.stderr)}")
            self._seen[directory.identity] = _entries(done.text(), directory.identity)
        return self._seen[directory.identity]

    def target(self, link: Node) -> str:
        """Say that there are no symbolic links in FAT."""
        raise NotFoundOutError(f"FAT has no symbolic links, and {link.identity} is none")

    def head(self, file: Node, most_bytes: int) -> bytes:
        """Return the first bytes of a file; see `coppice.conversion.guest.tree.Tree`."""
        destination = self._workplace / "head"
        cage = self._reader.cage(self._stretch.path, writes=[destination])
        image = f"{cage.inside(self._stretch.path)}@@{self._stretch.offset}"
        argv = ["mcopy", "-n", "-o", "-i", image, file.identity, cage.inside(destination)]
        return self._reader.take(cage, argv, destination, most_bytes, may_say=_NOTHING)


def _entries(said: str, directory: str) -> Mapping[str, Node]:
    found: dict[str, Node] = {}
    for line in said.split("\n"):
        if not line.startswith(f"{directory}/"):
            continue
        kind = NodeKind.DIRECTORY if line.endswith("/") else NodeKind.FILE
        path = line.rstrip("/")
        name = path[len(directory) + 1 :].lower()
        if name and "/" not in name and name not in {".", ".."}:
            found.setdefault(name, Node(identity=path, kind=kind))
    return found
