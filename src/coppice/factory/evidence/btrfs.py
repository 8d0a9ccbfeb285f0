# SPDX-License-Identifier: Apache-2.0
"""Read the btrfs file system of a raw disk without mounting it, by own code: its tools bring no links and no owners.

It answers what `Ext4Disk` answers. What it does not know (compression, subvolumes, RAID) is an error: nothing is taken
for "not there" because it could not be read.
"""

from __future__ import annotations

import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.factory.evidence.btrfs_nodes import (
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_DATA,
    FIRST_INODE,
    FS_TREE,
    INODE_ITEM,
    ROOT_TREE_DIRECTORY,
    XATTR_ITEM,
    BtrfsTrees,
    unreadable,
)
from coppice.factory.evidence.contents import hashed
from coppice.factory.evidence.ext4 import zeros
from coppice.factory.evidence.tree import GuestTree, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from coppice.factory.evidence.btrfs_nodes import Item
    from coppice.factory.evidence.contents import Contents, Digests
    from coppice.factory.evidence.ownership import Ownership

CAPABILITY = "security.capability"
_INODE = struct.Struct("<QQQQQIIIIQQQ32x12x12xqI12x")
_ENTRY = struct.Struct("<QBQQHHB")
_EXTENT = struct.Struct("<QQBBHB")
_EXTENT_PLACE = struct.Struct("<QQQQ")
_INLINE, _WRITTEN, _RESERVED = 0, 1, 2
_CHUNK_BYTES = 1024 * 1024
_MOST_NODES = 2_000_000
_MOST_ITEMS = 4 * _MOST_NODES
_MOST_LEVELS = 256
_MOST_FILE_BYTES = 1024**4
_MOST_NAME_BYTES = 255
# Of all files together: so many times what the disk has. Files have holes.
_MOST_TIMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """A run of a file's bytes: where it lies, or itself."""

    at: int
    length: int
    address: int = 0
    inline: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Inode:
    """A file, directory or link.

    Attributes:
        mode: Kind and permissions.
        uid: Owner's number.
        gid: Group's number.
        size_bytes: Length of its content.
        links: How many names it has.
        mtime: Seconds since 1970.
        attributes: By name, what else is known of it.
    """

    mode: int
    uid: int
    gid: int
    size_bytes: int
    links: int
    mtime: int
    attributes: dict[str, bytes] = field(default_factory=dict)
    extents: list[_Extent] = field(default_factory=list)


class BtrfsDisk:
    """A btrfs file system in a raw disk.

    Args:
        raw: The disk.
        offset_bytes: Where the file system starts.

    Raises:
        BuildError: It cannot be read.
    """

    def __init__(self, raw: Path, offset_bytes: int) -> None:
        self._raw = raw
        self._offset_bytes = offset_bytes
        self.inodes: dict[int, Inode] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._counted = 0
        self._trees: BtrfsTrees | None = None
        # Names are there twice: a machine lists a directory by one, and finds what is in it by the other.
        sought: dict[int, dict[str, int]] = {}
        with self._open() as trees:
            _check_first(trees)
            if FS_TREE not in trees.roots:
                raise unreadable("it has no files")
            for node in trees.walk(trees.roots[FS_TREE]):
                for item in node.items():
                    if item.kind in {DIR_ITEM, DIR_INDEX}:
                        self._take_names(self._entries if item.kind == DIR_INDEX else sought, item)
                    else:
                        self._take(item)
        if sought != self._entries:
            raise unreadable("what a directory lists is not what is found in it")

    def tree(self) -> GuestTree:
        """Return the whole tree.

        Raises:
            BuildError: It cannot be read.
        """
        nodes: dict[str, Node] = {}
        level = [("", FIRST_INODE)]
        reached = {FIRST_INODE}
        for _ in range(_MOST_LEVELS):
            if not level:
                break
            below: list[tuple[str, int]] = []
            for folder, above in level:
                for name, number in self._entries.get(above, {}).items():
                    node = self._node(f"{folder}/{name}", number)
                    nodes[node.path] = node
                    if len(nodes) > _MOST_NODES:
                        raise unreadable(f"it has more than {_MOST_NODES} files")
                    if not node.is_folder:
                        continue
                    if number in reached:
                        raise unreadable(f"the directory {node.path[:200]!r} is in two places")
                    reached.add(number)
                    below.append((node.path, number))
            level = below
        else:
            raise unreadable("its directories go too deep")
        return GuestTree(nodes, self.content)

    def content(self, node: Node) -> bytes:
        """Return the content of a file.

        Raises:
            BuildError: It is not where it should be.
        """
        with self._open() as trees:
            return b"".join(self._pieces(node.inode, trees))

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
        vouched = {each.true_path for each in ownership.delivered if each.md5}
        with_md5 = {node.inode for node in files if node.path in vouched}
        with_sha1 = {node.inode for node in files if node.path not in ownership.packages}
        by_inode: dict[int, Digests] = {}
        with self._open() as trees:
            for number in self._to_hash({node.inode for node in files}, trees):
                by_inode[number] = contents.digests_of(
                    self.inodes[number].size_bytes,
                    partial(self._pieces, number, trees),
                    md5=number in with_md5,
                    sha1=number in with_sha1,
                )
        return {node.path: by_inode[node.inode] for node in files}

    def contents(self, tree: GuestTree) -> dict[int, str]:
        """Return the sha256 of every file's content, by the number of its inode.

        Raises:
            BuildError: A file cannot be read.
        """
        numbers = {node.inode for node in tree if node.is_file}
        with self._open() as trees:
            return {number: hashed(self._pieces(number, trees)).sha256 for number in self._to_hash(numbers, trees)}

    def capable(self, nodes: Iterable[Node]) -> frozenset[str]:
        """Return the paths of those ``nodes`` that have capabilities: rights of root, in part."""
        return frozenset(node.path for node in nodes if CAPABILITY in self.inodes[node.inode].attributes)

    @contextmanager
    def _open(self) -> Iterator[BtrfsTrees]:
        with storage_errors("reading", self._raw), self._raw.open("rb") as disk:
            if self._trees is None:
                self._trees = BtrfsTrees(disk, self._offset_bytes)
            yield self._trees.over(disk)

    def _count(self) -> None:
        self._counted += 1
        if self._counted > _MOST_ITEMS:
            raise unreadable(f"it has more than {_MOST_ITEMS} names and parts of files")

    def _take_names(self, entries: dict[int, dict[str, int]], item: Item) -> None:
        names = entries.setdefault(item.objectid, {})
        for raw, _, target in _named(item.data):
            self._count()
            if target[1] != INODE_ITEM:
                raise unreadable(f"{raw[:80]!r} is a subvolume")
            name = _name(raw)
            if name in names:
                raise unreadable(f"{name[:80]!r} is in a directory twice")
            names[name] = target[0]

    def _take(self, item: Item) -> None:
        if item.kind == INODE_ITEM:
            if item.objectid in self.inodes or len(self.inodes) >= _MOST_NODES:
                raise unreadable(f"an inode is there twice, or there are more than {_MOST_NODES}")
            self.inodes[item.objectid] = _inode(item.data)
        elif item.kind in {XATTR_ITEM, EXTENT_DATA}:
            if item.objectid not in self.inodes:
                raise unreadable("something is of a file that is not there")
            inode = self.inodes[item.objectid]
            self._count()
            if item.kind == EXTENT_DATA:
                inode.extents += _extents(item)
            else:
                inode.attributes |= {_text(name): value for name, value, _ in _named(item.data)}

    def _node(self, path: str, number: int) -> Node:
        inode = self.inodes.get(number)
        if inode is None:
            raise unreadable(f"{path[:200]!r} is not there")
        target = ""
        if stat.S_ISLNK(inode.mode):
            # Some programs end a link's target with a zero, which is not counted.
            inline = b"".join(extent.inline or b"" for extent in inode.extents)
            if len(inline) < inode.size_bytes:
                raise unreadable(f"the link {path[:200]!r} leads nowhere")
            target = _text(inline[: inode.size_bytes])
        return Node(
            path=path,
            inode=number,
            mode=inode.mode,
            owner=inode.uid,
            group=inode.gid,
            size_bytes=inode.size_bytes if stat.S_ISREG(inode.mode) or stat.S_ISLNK(inode.mode) else 0,
            target=target,
        )

    def _first_address(self, number: int) -> tuple[int, int]:
        extents = self.inodes[number].extents
        return extents[0].address if extents else 0, number

    def _to_hash(self, numbers: set[int], trees: BtrfsTrees) -> list[int]:
        """Return the inodes in the order in which they lie on the disk."""
        total = sum(self.inodes[number].size_bytes for number in numbers)
        if total > _MOST_TIMES * trees.disk_bytes:
            raise unreadable(f"its files have {total} bytes, and the disk has {trees.disk_bytes}")
        return sorted(numbers, key=self._first_address)

    def _pieces(self, number: int, trees: BtrfsTrees) -> Iterator[bytes]:
        inode = self.inodes[number]
        at, end = 0, inode.size_bytes
        if end > _MOST_FILE_BYTES:
            raise unreadable(f"a file has {end} bytes")
        for extent in inode.extents:
            if extent.at < at:
                raise unreadable("the parts of a file lie over one another")
            yield from zeros(min(extent.at, end) - at)
            at = min(extent.at, end)
            length = min(extent.length, end - at)
            if extent.inline is not None:
                yield extent.inline[:length]
            elif not extent.address:
                yield from zeros(length)
            else:
                for begin in range(0, length, _CHUNK_BYTES):
                    yield trees.read(extent.address + begin, min(_CHUNK_BYTES, length - begin))
            at += length
        yield from zeros(end - at)


def _check_first(trees: BtrfsTrees) -> None:
    """Refuse a file system whose files are in another subvolume than its first."""
    for node in trees.walk(trees.superblock.root):
        for item in node.items():
            if (item.objectid, item.kind) != (ROOT_TREE_DIRECTORY, DIR_ITEM):
                continue
            for name, _, target in _named(item.data):
                if name == b"default" and target[0] != FS_TREE:
                    raise unreadable("what it shows is a subvolume")


def _inode(data: bytes) -> Inode:
    if len(data) < _INODE.size:
        raise unreadable("an inode is cut off")
    _, _, size, _, _, links, uid, gid, mode, _, _, _, mtime, _ = _INODE.unpack_from(data)
    return Inode(mode=mode, uid=uid, gid=gid, size_bytes=size, links=links, mtime=mtime)


def _named(data: bytes) -> Iterator[tuple[bytes, bytes, tuple[int, int]]]:
    """Give the name, value and target's key of what is in a directory's item, or a list of attributes."""
    at = 0
    while at < len(data):
        if at + _ENTRY.size > len(data):
            raise unreadable("a name is cut off")
        objectid, kind, _, _, value_bytes, name_bytes, _ = _ENTRY.unpack_from(data, at)
        start, at = at + _ENTRY.size, at + _ENTRY.size + name_bytes + value_bytes
        if at > len(data):
            raise unreadable("a name is cut off")
        yield data[start : start + name_bytes], data[start + name_bytes : at], (objectid, kind)


def _extents(item: Item) -> Iterator[_Extent]:
    if len(item.data) < _EXTENT.size:
        raise unreadable("a part of a file is cut off")
    _, length, compression, encryption, other, kind = _EXTENT.unpack_from(item.data)
    if compression or encryption or other:
        raise unreadable("a file is compressed")
    if kind == _INLINE:
        inline = item.data[_EXTENT.size :]
        yield _Extent(at=item.offset, length=len(inline), inline=inline)
        return
    if kind not in {_WRITTEN, _RESERVED} or len(item.data) < _EXTENT.size + _EXTENT_PLACE.size:
        raise unreadable("a part of a file is cut off, or of a kind that is not known")
    address, _, within, length = _EXTENT_PLACE.unpack_from(item.data, _EXTENT.size)
    # What is reserved reads as zeros, as a hole does, which has no address.
    is_written = kind == _WRITTEN and address
    yield _Extent(at=item.offset, length=length, address=address + within if is_written else 0)


def _name(name: bytes) -> str:
    if not name or len(name) > _MOST_NAME_BYTES or b"/" in name or b"\0" in name or name in {b".", b".."}:
        raise unreadable(f"a name that cannot be: {name[:80]!r}")
    return _text(name)


def _text(text: bytes) -> str:
    return text.decode("utf-8", errors="surrogateescape")
