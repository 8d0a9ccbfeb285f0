# SPDX-License-Identifier: Apache-2.0
"""`BtrfsTree`: btrfs, of which `btrfs restore` brings the few files that are looked at into a directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.conversion.guest.caged import read_head
from coppice.conversion.guest.tree import Node, NodeKind
from coppice.conversion.guest.unknown import NotFoundOutError, last_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.conversion.guest.caged import Reader

SUBVOLUMES = ("", "root", "@", "@rootfs", "@/.snapshots/1/snapshot")
"""Where distributions have their first directory: the file system's own, Fedora's, Ubuntu's, Debian's, openSUSE's."""
MOST_BROUGHT_BYTES = 256 * 1024 * 1024
"""Of any one file, and of all together."""


class BtrfsTree:
    """Some files of a btrfs file system, as they were brought.

    Symbolic links are not among them, because `btrfs restore` leaves them out: a name that is one is not there.

    Args:
        path: A file that holds the file system and nothing else.
        reader: Runs btrfs.
        workplace: A directory of this tree's own.
        wanted: Which files: each part of a path is a regular expression (POSIX, extended), from the first directory on.

    Raises:
        NotFoundOutError: They cannot be brought.
    """

    def __init__(self, path: Path, reader: Reader, workplace: Path, wanted: Sequence[tuple[str, ...]]) -> None:
        self._top = workplace / "brought"
        self._top.mkdir()
        cage = reader.cage(path, writes=[self._top])
        argv = ["btrfs", "restore", "--path-regex", _expression(wanted), cage.inside(path), cage.inside(self._top)]
        done = reader.look(cage, argv, file_size_bytes=MOST_BROUGHT_BYTES)
        if done.stderr.strip():
            # It goes on where it can: what it left out is not known from what is not there.
            raise NotFoundOutError(f"btrfs cannot read all of the file system: {last_line(done.stderr)}")

    @property
    def root(self) -> Node:
        """Return the directory of the subvolume that the guest starts from."""
        top = Node(identity=str(self._top), kind=NodeKind.DIRECTORY)
        for subvolume in SUBVOLUMES:
            place: Node | None = top
            for name in filter(None, subvolume.split("/")):
                place = None if place is None else self._directory(place, name)
            if place is not None and any(self._directory(place, name) for name in ("etc", "usr")):
                return place
        return top

    def _directory(self, above: Node, name: str) -> Node | None:
        found = self.children(above).get(name)
        return found if found is not None and found.kind is NodeKind.DIRECTORY else None

    def children(self, directory: Node) -> Mapping[str, Node]:
        """Return what of a directory was brought; see `coppice.conversion.guest.tree.Tree`."""
        try:
            with os.scandir(directory.identity) as entries:
                return {entry.name: Node(identity=entry.path, kind=_kind(entry)) for entry in entries}
        except OSError as problem:
            raise NotFoundOutError(f"what was brought cannot be read: {problem.strerror}") from problem

    def target(self, link: Node) -> str:
        """Say that links are not brought."""
        raise NotFoundOutError(f"the symbolic link {Path(link.identity).name!r} was not brought")

    def head(self, file: Node, most_bytes: int) -> bytes:
        """Return the first bytes of a file; see `coppice.conversion.guest.tree.Tree`."""
        return read_head(Path(file.identity), most_bytes)


def _kind(entry: os.DirEntry[str]) -> NodeKind:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        return NodeKind.FILE
    if stat.S_ISDIR(mode):
        return NodeKind.DIRECTORY
    return NodeKind.LINK if stat.S_ISLNK(mode) else NodeKind.OTHER


def _expression(wanted: Sequence[tuple[str, ...]]) -> str:
    """Return an expression for each path and all directories on the way to it, below each subvolume."""
    paths: dict[str, None] = {}
    for subvolume in SUBVOLUMES:
        before = [part.replace(".", r"\.") for part in subvolume.split("/") if part]
        for one in ((), *wanted):
            parts = [*before, *one]
            paths.update(dict.fromkeys("/".join(parts[:count]) for count in range(1, len(parts) + 1)))
    return f"^/(|{'|'.join(paths)})$"
