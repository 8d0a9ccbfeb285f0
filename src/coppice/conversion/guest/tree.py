# SPDX-License-Identifier: Apache-2.0
"""`Tree`: the files of a guest's file system, whichever program reads it; names are followed inside of it only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from coppice.conversion.guest.unknown import NotFoundOutError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_LINKS = 40
"""As many symbolic links are followed on the way to one file, as by Linux."""


class NodeKind(StrEnum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A file, directory or link of a guest.

    Attributes:
        identity: By which its tree finds it again: the number of an inode, a path.
        kind: What it is.
    """

    identity: str
    kind: NodeKind


class Tree(Protocol):
    """A guest's file system; each method raises `NotFoundOutError` where it cannot say."""

    @property
    def root(self) -> Node:
        """Return its first directory."""
        ...

    def children(self, directory: Node) -> Mapping[str, Node]:
        """Return what is in a directory, without ``.`` and ``..``."""
        ...

    def target(self, link: Node) -> str:
        """Return what a symbolic link says."""
        ...

    def head(self, file: Node, most_bytes: int) -> bytes:
        """Return the first bytes of a regular file: ``most_bytes``, or all where it has fewer."""
        ...


def find(tree: Tree, path: str) -> Node | None:
    """Return what a path leads to, links followed; None: there is no such thing.

    A link leads to a place in the same tree, wherever it points; ``..`` of the first directory is itself.

    Raises:
        NotFoundOutError: The tree cannot say, or links lead round in circles.
    """
    above = [tree.root]
    pending = _parts(path)
    links = 0
    while pending:
        name = pending.pop()
        here = above[-1]
        if name == "..":
            above = above[:-1] or above
            continue
        if here.kind is not NodeKind.DIRECTORY:
            return None
        node = tree.children(here).get(name)
        if node is None:
            return None
        if node.kind is NodeKind.LINK:
            links += 1
            if links > MOST_LINKS:
                raise NotFoundOutError(f"more than {MOST_LINKS} symbolic links lead on from {path}")
            target = tree.target(node)
            above = above[:1] if target.startswith("/") else above
            pending += _parts(target)
        else:
            above.append(node)
    return above[-1]


def _parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]
