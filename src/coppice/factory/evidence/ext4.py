# SPDX-License-Identifier: Apache-2.0
"""Read the ext4 file system of a raw disk without mounting it: debugfs tells what is where, the disk gives the bytes.

Directories are asked for level by level, each level by one call, so that a whole system is listed in a second. Nothing
is taken for "not there" because it could not be read: what debugfs says in another form than expected is an error.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.factory.evidence.tree import GuestTree, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from coppice.factory.evidence.contents import Contents, Digests
    from coppice.factory.evidence.ownership import Ownership

_TOOL_SECONDS = 300.0
_ANSWER_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_ROOT_INODE = 2
_MOST_NODES = 2_000_000
_MOST_LEVELS = 256
# Of all files together: so many times what the disk has. Files have holes.
_MOST_TIMES = 16
_ENTRY = re.compile(r"/(\d+)/(\d{6})/(\d+)/(\d+)/([^/]*)/(\d*)/")
_LINK = re.compile(r'^Fast link dest: "(.*)"$', re.MULTILINE | re.DOTALL)
_EXTENT = re.compile(r"\s*\d+/\s*\d+\s+\d+/\s*\d+\s+(\d+) -\s*\d+\s+(\d+) -\s*\d+\s+(\d+)(\s+Uninit)?\s*")
_EXTENT_HEADER = re.compile(r"Level Entries\s+Logical\s+Physical Length Flags")
_CAPABILITY = "security.capability"
_FEATURES = re.compile(r"^Filesystem features: +(.*)$", re.MULTILINE)
# Neither casefold, by which a file has many names, nor encrypt, nor a journal that has to be replayed.
_FEATURES_READ = """\
64bit bigalloc dir_index dir_nlink ea_inode ext_attr extent extra_isize fast_commit filetype flex_bg has_journal
huge_file large_dir large_file meta_bg metadata_csum metadata_csum_seed mmp orphan_file project quota resize_inode
sparse_super sparse_super2 stable_inodes uninit_bg verity
"""
_KNOWN_FEATURES = frozenset(_FEATURES_READ.split())
_BLOCK_SIZE = re.compile(r"^Block size:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """A run of blocks of a file."""

    logical: int
    physical: int
    blocks: int
    is_written: bool


class Ext4Disk:
    """An ext4 file system in a raw disk.

    Args:
        raw: The disk.
        offset_bytes: Where the file system starts.
        work: An empty directory for scripts.
    """

    def __init__(self, raw: Path, offset_bytes: int, work: Path) -> None:
        self._raw = raw
        self._offset_bytes = offset_bytes
        self._script = work / "debugfs.commands"
        said = self._ask(["stats -h"])[0]
        match = _BLOCK_SIZE.search(said)
        if match is None:
            raise _unreadable("it does not tell its block size")
        self._block_bytes = int(match[1])
        features = _FEATURES.search(said)
        unknown = sorted(set(features[1].split()) - _KNOWN_FEATURES) if features else ["none"]
        if unknown:
            # Whoever knows them may find other files, or the same ones under other names.
            raise _unreadable(f"its file system has features that are not read: {', '.join(unknown)}")
        self._extents: dict[int, tuple[_Extent, ...]] = {}

    def tree(self) -> GuestTree:
        """Return the whole tree.

        Raises:
            BuildError: It cannot be read.
        """
        nodes: dict[str, Node] = {}
        level: list[tuple[str, int]] = [("", _ROOT_INODE)]
        for _ in range(_MOST_LEVELS):
            if not level:
                break
            answers = self._ask([f"ls -p <{inode}>" for _, inode in level])
            found = [node for (folder, _), said in zip(level, answers, strict=True) for node in _entries(folder, said)]
            nodes |= {node.path: node for node in found}
            if len(nodes) > _MOST_NODES:
                raise _unreadable(f"it has more than {_MOST_NODES} files")
            level = [(node.path, node.inode) for node in found if node.is_folder]
        else:
            raise _unreadable("its directories go too deep")
        nodes.pop("/lost+found", None)
        self._follow(nodes)
        self._extents |= self._locate({node.inode for node in nodes.values() if node.is_file and node.size_bytes})
        return GuestTree(nodes, self.content)

    def top_folders(self) -> frozenset[str]:
        """Return the names of the directories at the top of the tree.

        Raises:
            BuildError: It cannot be read.
        """
        found = _entries("", self._ask([f"ls -p <{_ROOT_INODE}>"])[0])
        return frozenset(node.name for node in found if node.is_folder)

    def content(self, node: Node) -> bytes:
        """Return the content of a file.

        Raises:
            BuildError: It is not where it should be.
        """
        with storage_errors("reading", self._raw), self._raw.open("rb") as disk:
            return b"".join(self._pieces(node, disk))

    def digests(self, tree: GuestTree, ownership: Ownership, contents: Contents) -> dict[str, Digests]:
        """Return the digests of every file's content, by path; the disk is read in its own order.

        Args:
            tree: The tree.
            ownership: What packages vouch for: of that, the MD5 sums; of what no package has, the SHA-1 as well.
            contents: Those that are known; all that are met are known to it afterwards.

        Raises:
            BuildError: A file cannot be read.
        """
        files = [node for node in tree if node.is_file]
        self._check_sizes(files)
        vouched = {each.true_path for each in ownership.delivered if each.md5}
        with_md5 = {node.inode for node in files if node.path in vouched}
        with_sha1 = {node.inode for node in files if node.path not in ownership.packages}
        by_inode: dict[int, Digests] = {}
        with storage_errors("reading", self._raw), self._raw.open("rb") as disk:
            for node in sorted(files, key=self._first_block):
                if node.inode not in by_inode:
                    by_inode[node.inode] = contents.digests_of(
                        node.size_bytes,
                        partial(self._pieces, node, disk),
                        md5=node.inode in with_md5,
                        sha1=node.inode in with_sha1,
                    )
        return {node.path: by_inode[node.inode] for node in files}

    def capable(self, nodes: Iterable[Node]) -> frozenset[str]:
        """Return the paths of those ``nodes`` that have capabilities: rights of root, in part.

        Raises:
            BuildError: The file system cannot be read.
        """
        asked = list(nodes)
        answers = self._ask([f"ea_list <{node.inode}>" for node in asked])
        return frozenset(node.path for node, said in zip(asked, answers, strict=True) if _CAPABILITY in said)

    def _check_sizes(self, files: Sequence[Node]) -> None:
        total = sum({node.inode: node.size_bytes for node in files}.values())
        with storage_errors("reading", self._raw):
            disk_bytes = self._raw.stat().st_size
        if total > _MOST_TIMES * disk_bytes:
            raise _unreadable(f"its files have {total} bytes, and the disk has {disk_bytes}")

    def _first_block(self, node: Node) -> int:
        extents = self._extents.get(node.inode, ())
        return extents[0].physical if extents else 0

    def _pieces(self, node: Node, disk: BinaryIO) -> Iterator[bytes]:
        left, at = node.size_bytes, 0
        for extent in self._extents.get(node.inode, ()):
            start = extent.logical * self._block_bytes
            gap = min(left, start - at)
            yield from zeros(gap)
            left, at = left - gap, at + gap
            length = min(left, extent.blocks * self._block_bytes)
            if extent.is_written:
                disk.seek(self._offset_bytes + extent.physical * self._block_bytes)
                yield from _read(disk, length, node.path)
            else:
                yield from zeros(length)
            left, at = left - length, at + length
        yield from zeros(left)

    def _follow(self, nodes: dict[str, Node]) -> None:
        links = [node for node in nodes.values() if node.is_link]
        answers = self._ask([f"stat <{node.inode}>" for node in links])
        slow = []
        for node, said in zip(links, answers, strict=True):
            match = _LINK.search(said)
            if match is None:
                slow.append(node)
            else:
                nodes[node.path] = replace(node, target=match[1])
        # A long target lies in a block, like a file's content.
        self._extents |= self._locate({node.inode for node in slow})
        for node in slow:
            target = self.content(node).decode("utf-8", errors="surrogateescape")
            nodes[node.path] = replace(node, target=target)

    def _locate(self, inodes: Iterable[int]) -> dict[int, tuple[_Extent, ...]]:
        wanted = sorted(inodes)
        answers = self._ask([f"ex -l <{inode}>" for inode in wanted])
        return {inode: tuple(_extents(said)) for inode, said in zip(wanted, answers, strict=True)}

    def _ask(self, commands: Sequence[str]) -> list[str]:
        """Return what debugfs answers to each command."""
        if not commands:
            return []
        script = self._script
        with storage_errors("writing", script):
            script.write_text("\n".join(commands) + "\n", encoding="ascii")
        try:
            completed = run_caged(
                lambda inside: ["debugfs", "-f", inside(script), f"{inside(self._raw)}?offset={self._offset_bytes}"],
                reads=[self._raw, script],
                timeout_seconds=_TOOL_SECONDS,
                capture_bytes=_ANSWER_BYTES,
            )
        except ToolFailedError as problem:
            raise BuildError(f"looking into the image failed: {problem.message}", details=problem.details) from problem
        complaints = completed.stderr.decode("utf-8", errors="replace").splitlines()
        if any(not line.startswith("debugfs ") for line in complaints):
            raise _unreadable("\n".join(complaints[:20]))
        said = completed.stdout.decode("utf-8", errors="surrogateescape")
        # Each command is echoed before its answer. A name that imitates an echo makes one too many.
        pieces = re.split(r"^debugfs: (.*)\n", said, flags=re.MULTILINE)
        if pieces[1::2] != list(commands):
            raise _unreadable("its answers do not go with what was asked")
        return pieces[2::2]


def _entries(folder: str, said: str) -> Iterator[Node]:
    for line in said.split("\n"):
        if not line:
            continue
        match = _ENTRY.fullmatch(line)
        if match is None:
            raise _unreadable(f"an entry of {folder or '/'} has no name that can be read: {line[:200]!r}")
        if match[5] in {".", ".."} or match[1] == "0":
            continue
        mode = int(match[2], 8)
        size = int(match[6] or 0)
        yield Node(
            path=f"{folder}/{match[5]}",
            inode=int(match[1]),
            mode=mode,
            owner=int(match[3]),
            group=int(match[4]),
            size_bytes=size if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else 0,
        )


def _extents(said: str) -> Iterator[_Extent]:
    header, *lines = said.split("\n")
    if not _EXTENT_HEADER.match(header):
        raise _unreadable(f"a file has no extents: {header[:200]!r}")
    for line in lines:
        if not line.strip():
            continue
        match = _EXTENT.fullmatch(line)
        if match is None:
            raise _unreadable(f"an extent that cannot be read: {line[:200]!r}")
        yield _Extent(logical=int(match[1]), physical=int(match[2]), blocks=int(match[3]), is_written=match[4] is None)


def zeros(length: int) -> Iterator[bytes]:
    """Give that many zeros, in pieces."""
    while length > 0:
        yield bytes(min(length, _CHUNK_BYTES))
        length -= _CHUNK_BYTES


def _read(disk: BinaryIO, length: int, path: str) -> Iterator[bytes]:
    while length > 0:
        piece = disk.read(min(length, _CHUNK_BYTES))
        if not piece:
            raise _unreadable(f"{path} goes on after the end of the disk")
        yield piece
        length -= len(piece)


def _unreadable(why: str) -> BuildError:
    # Not to be taken for "nothing there".
    return BuildError("looking into the image failed", details=why)
