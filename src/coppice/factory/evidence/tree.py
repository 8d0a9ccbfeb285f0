# SPDX-License-Identifier: Apache-2.0
"""The file tree of an image as it was read: names, permissions, link targets, and contents when they are asked for."""

from __future__ import annotations

import bisect
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_TEXT_BYTES = 4 * 1024 * 1024
_MAX_LINKS = 40
_AFTER_SLASH = "0"
"""The sign that follows the slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Something in the tree.

    Attributes:
        path: Absolute, in the guest.
        inode: Its number; of hard links the same.
        mode: Kind and permissions, as `os.stat` has them.
        owner: Number of the user.
        group: Number of the group.
        size_bytes: Length of its content.
        target: Of a symbolic link; empty otherwise.
    """

    path: str
    inode: int
    mode: int
    owner: int = 0
    group: int = 0
    size_bytes: int = 0
    target: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class GuestTree:
    """The tree of an image.

    Args:
        nodes: Everything in it but its root.
        read: Gives the content of a file.
    """

    def __init__(self, nodes: Mapping[str, Node], read: Callable[[Node], bytes]) -> None:
        self._nodes = dict(nodes)
        self._read = read
        self._paths = sorted(self._nodes)
        self._folders: dict[str, str] = {}

    def __iter__(self) -> Iterator[Node]:
        """Give everything, by path."""
        return (self._nodes[path] for path in self._paths)

    def get(self, path: str) -> Node | None:
        """Return what is at ``path`` itself, be it a link; directories on the way may be links."""
        return self._nodes.get(self.true_path(path))

    def find(self, path: str) -> Node | None:
        """Return what ``path`` leads to, through links; None: nothing."""
        for _ in range(_MAX_LINKS):
            node = self.get(path)
            if node is None or not node.is_link:
                return node
            path = posixpath.join(posixpath.dirname(node.path), node.target)
        return None

    def true_path(self, path: str) -> str:
        """Return ``path`` with the links among its directories followed, inside of the tree."""
        folder, _, name = posixpath.normpath(path).lstrip("/").rpartition("/")
        return f"{self._true_folder(folder, 0)}/{name}"

    def text(self, path: str) -> str | None:
        """Return the text that ``path`` leads to; None: there is no such file.

        Raises:
            BuildError: It is too long to be what it should be.
        """
        node = self.find(path)
        if node is None or not node.is_file:
            return None
        return self.text_of(node)

    def text_of(self, node: Node) -> str:
        """Return the text of a file.

        Raises:
            BuildError: It is too long to be a text that is looked at.
        """
        if node.size_bytes > MAX_TEXT_BYTES:
            raise BuildError(f"{node.path} in the image has {node.size_bytes} bytes, too many for what it should be")
        return self._read(node).decode("utf-8", errors="replace")

    def content(self, node: Node) -> bytes:
        """Return the bytes of a file."""
        return self._read(node)

    def below(self, folder: str) -> Iterator[Node]:
        """Give everything below ``folder``, at any depth."""
        true = self._folder(folder)
        first = bisect.bisect_left(self._paths, f"{true}/")
        last = bisect.bisect_left(self._paths, f"{true}{_AFTER_SLASH}")
        return (self._nodes[path] for path in self._paths[first:last])

    def inside(self, folder: str) -> Iterator[Node]:
        """Give what ``folder`` itself holds."""
        true = self._folder(folder)
        return (node for node in self.below(folder) if node.path.rpartition("/")[0] == true)

    def _folder(self, folder: str) -> str:
        return self._true_folder(posixpath.normpath(folder).strip("/"), 0)

    def _true_folder(self, folder: str, depth: int) -> str:
        if not folder:
            return ""
        known = self._folders.get(folder)
        if known is not None:
            return known
        parent, _, name = folder.rpartition("/")
        here = f"{self._true_folder(parent, depth)}/{name}"
        node = self._nodes.get(here)
        if node is not None and node.is_link and depth < _MAX_LINKS:
            led = posixpath.normpath(posixpath.join(posixpath.dirname(here), node.target)).lstrip("/")
            here = self._true_folder(led, depth + 1)
        self._folders[folder] = here
        return here
