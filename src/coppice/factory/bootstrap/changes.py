# SPDX-License-Identifier: Apache-2.0
"""The commands of ``debugfs`` that make a file system with one listing into one with another: pure, no I/O.

What did not change is not touched, so that its blocks stay where they are.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.bootstrap.listing import OVERLAY, Kind, Listing, Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_LINE = 8000
_MADE_BY_MKE2FS = frozenset({"/", "/lost+found"})
EMPTY: Listing = {"/": Node(kind=Kind.DIRECTORY)}
"""Of a file system that was just made."""


class Script:
    """Commands for debugfs.

    Attributes:
        commands: In order.
    """

    def __init__(self, epoch: int, staged: Callable[[str], Path]) -> None:
        """Start an empty script.

        Args:
            epoch: Seconds since 1970 of everything that it makes and does not say otherwise of.
            staged: Where the content with a sha256 is.
        """
        self.commands: list[str] = []
        self._epoch = epoch
        self._staged = staged

    def change(self, before: Listing, after: Listing) -> None:
        """Add what makes ``after`` of ``before``.

        Raises:
            BuildError: A name cannot be written.
        """
        gone = [path for path, node in before.items() if self._goes(path, node, before, after)]
        # What is in a directory goes before it does.
        for path in sorted(gone, reverse=True):
            if path not in _MADE_BY_MKE2FS:
                self._command("rmdir" if before[path].kind is Kind.DIRECTORY else "rm", path)
        left = before.keys() - set(gone)
        counts = Counter(node.target for node in after.values() if node.kind is Kind.LINK)
        linked: dict[str, None] = {}
        for path, node in after.items():
            if path in _MADE_BY_MKE2FS or path in left:
                self._set_facts(path, node, before.get(path, EMPTY["/"]))
            elif node.kind is Kind.LINK:
                self._command("ln", node.target, path)
                linked[node.target] = None
            else:
                self._make(path, node)
        for path in linked:
            # debugfs makes the directory entry and leaves counting to the caller.
            self._set(path, "links_count", str(1 + counts[path]))

    def text(self) -> str:
        """Return it as debugfs reads it."""
        return "\n".join(self.commands) + "\n"

    @staticmethod
    def _goes(path: str, node: Node, before: Listing, after: Listing) -> bool:
        new = after.get(path)
        if new is None or new.kind is not node.kind:
            return True
        if node.kind is Kind.LINK:
            old_file, new_file = before.get(node.target), after.get(new.target)
            return node.target != new.target or not _is_written_once(old_file, new_file)
        if node.kind is Kind.SYMLINK:
            return not node.same(new)
        return node.kind is Kind.FILE and not _is_written_once(node, new)

    def _make(self, path: str, node: Node) -> None:
        if node.kind is Kind.DIRECTORY:
            self._command("mkdir", path)
            self._set(path, "mode", f"0{stat.S_IFDIR | node.mode:o}")
        elif node.kind is Kind.SYMLINK:
            self._command("symlink", path, node.target)
        else:
            self._command("write", str(self._staged(node.digest)), path)
            self._set(path, "mode", f"0{stat.S_IFREG | node.mode:o}")
        if node.uid:
            self._set(path, "uid", str(node.uid))
        if node.gid:
            self._set(path, "gid", str(node.gid))
        if node.mtime < self._epoch:
            self._set(path, "mtime", f"@{node.mtime}")
        if node.capability:
            # Capabilities only: ACLs have another form on disk, and labels are the booted system's affair.
            self._command("ea_set", "-f", str(self._staged(capability_name(node))), path, "security.capability")

    def _set_facts(self, path: str, node: Node, before: Node) -> None:
        kind = stat.S_IFDIR if node.kind is Kind.DIRECTORY else stat.S_IFREG
        if node.mode != before.mode:
            self._set(path, "mode", f"0{kind | node.mode:o}")
        if node.uid != before.uid:
            self._set(path, "uid", str(node.uid))
        if node.gid != before.gid:
            self._set(path, "gid", str(node.gid))
        if node.mtime != before.mtime:
            self._set(path, "mtime", f"@{node.mtime}")

    def _set(self, path: str, what: str, value: str) -> None:
        self._command("set_inode_field", path, what, value)

    def _command(self, verb: str, *words: str) -> None:
        line = " ".join((verb, *(f'"{word.replace(chr(34), chr(34) * 2)}"' for word in words)))
        if "\n" in line or len(line.encode("utf-8", errors="surrogateescape")) > _MAX_LINE:
            raise BuildError(f"a path that cannot be written into a file system: {line[:200]!r}")
        self.commands.append(line)


def capability_name(node: Node) -> str:
    """Return under which name a node's capability is staged."""
    return f"capability-{node.capability}"


def with_folders(listing: Listing, path: str) -> None:
    """Add the directories that lead to ``path`` where they are not there.

    Raises:
        BuildError: One of them is no directory.
    """
    parent = os.path.dirname(path)  # noqa: PTH120 - a path of the guest
    if parent not in listing:
        with_folders(listing, parent)
        listing[parent] = Node(kind=Kind.DIRECTORY, layer=OVERLAY)
    elif listing[parent].kind is not Kind.DIRECTORY:
        raise BuildError(f"{path} cannot be laid over the tree: {parent} is no directory there")


def _is_written_once(old: Node | None, new: Node | None) -> bool:
    return (
        old is not None
        and new is not None
        and (old.kind, old.digest, old.size_bytes, old.capability)
        == (new.kind, new.digest, new.size_bytes, new.capability)
    )
