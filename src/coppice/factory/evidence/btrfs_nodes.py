# SPDX-License-Identifier: Apache-2.0
"""How btrfs lies on a disk: its superblock, where its addresses are on the disk, and the nodes of its trees.

Only what the writing of one and the reading of one share. Nothing is believed that the disk says of lengths and
places: whatever does not fit is an error, never "nothing there".
"""

from __future__ import annotations

import copy
import os
import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.formats.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

SUPERBLOCK_BYTES = 4096
SUPERBLOCK_PLACES = (64 * 1024, 64 * 1024**2, 256 * 1024**3)
HEADER_BYTES = 101
CHECKSUM_BYTES = 32
FIRST_INODE = 256

ROOT_TREE, EXTENT_TREE, CHUNK_TREE, FS_TREE, ROOT_TREE_DIRECTORY, UUID_TREE = 1, 2, 3, 5, 6, 9
INODE_ITEM, XATTR_ITEM, DIR_ITEM, DIR_INDEX, EXTENT_DATA = 1, 24, 84, 96, 108
ROOT_ITEM, EXTENT_ITEM, CHUNK_ITEM, UUID_OF_SUBVOLUME = 132, 168, 228, 251

_MAGIC = b"_BHRfS_M"
_MAGIC_AT = 64
_ITEM = struct.Struct("<QBQII")
_KEY = struct.Struct("<QBQ")
_POINTER = struct.Struct("<QBQQQ")
_CHUNK = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")
_ROOT = struct.Struct("<176xQ")
_SYSTEM_CHUNKS_AT = 811
_MOST_SYSTEM_BYTES = 2048
# Data, system and metadata, each there once or, on the same disk, twice.
_PLAIN_CHUNK = 0x1 | 0x2 | 0x4 | 0x20
_TWICE = 0x20
_CRC32C = 0
_NODE_SIZES = (4096, 8192, 16384, 32768, 65536)
_MOST_LEVELS = 8
_MOST_NODES = 500_000
_MOST_CHUNKS = 16384
# Between these are the numbers of subvolumes.
_FIRST_SUBVOLUME, _AFTER_SUBVOLUMES = 256, 2**64 - 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """The parts of a superblock that are needed.

    Attributes:
        raw: All of it.
        generation: Number of the last transaction.
        root: Address of the tree of trees.
        chunk_root: Address of the tree of chunks.
        size_bytes: Of the file system.
        node_bytes: Of a node.
        features: What a kernel has to know to read it.
        writing_features: What a kernel has to know to write to it.
    """

    raw: bytes
    generation: int
    root: int
    chunk_root: int
    size_bytes: int
    node_bytes: int
    features: int
    writing_features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A run of addresses, and where on the disk it is.

    Attributes:
        start: Its first address.
        length: How many there are.
        places: Where it starts on the disk, each time that it is there.
    """

    start: int
    length: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is in a leaf.

    Attributes:
        objectid: First part of its key: mostly the number of an inode.
        kind: Second part: what it is.
        offset: Third part.
        start: Where its data start in the node.
        data: What it holds.
    """

    objectid: int
    kind: int
    offset: int
    start: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A node of a tree.

    Attributes:
        address: Where it is, as btrfs counts.
        level: 0: a leaf.
        count: How many items or pointers it has.
        data: All of it.
    """

    address: int
    level: int
    count: int
    data: bytes

    def last_key(self, before: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the key of a leaf's last item; of one without items, ``before``.

        Args:
            before: The last key of the leaves before it.

        Raises:
            BuildError: A key does not follow upon the one before it, or the items are longer than the leaf.
        """
        total = 0
        end = HEADER_BYTES + self.count * _ITEM.size
        for objectid, kind, offset, _, size in _ITEM.iter_unpack(self.data[HEADER_BYTES:end]):
            key = (objectid, kind, offset)
            if key <= before:
                raise unreadable("a tree is not in its order")
            before = key
            total += size
        if end + total > len(self.data):
            raise unreadable("what is in a node is longer than the node")
        return before

    def items(self) -> Iterator[Item]:
        """Give what a leaf holds.

        Raises:
            BuildError: It goes beyond the node.
        """
        for number in range(self.count if not self.level else 0):
            objectid, kind, offset, at, size = _ITEM.unpack_from(self.data, HEADER_BYTES + number * _ITEM.size)
            start = HEADER_BYTES + at
            if start + size > len(self.data) or start < HEADER_BYTES + self.count * _ITEM.size:
                raise unreadable("an item goes beyond its node")
            yield Item(objectid=objectid, kind=kind, offset=offset, start=start, data=self.data[start : start + size])

    @property
    def first_key(self) -> tuple[int, int, int]:
        """The key of its first item or pointer; it has one."""
        objectid, kind, offset = _KEY.unpack_from(self.data, HEADER_BYTES)
        return objectid, kind, offset

    def pointers(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Give the addresses of the nodes below, and the first key of each."""
        for number in range(self.count if self.level else 0):
            objectid, kind, offset, address, _ = _POINTER.unpack_from(self.data, HEADER_BYTES + number * _POINTER.size)
            yield address, (objectid, kind, offset)


class BtrfsTrees:
    """The trees of a btrfs file system on one disk, without RAID.

    Args:
        disk: Open for reading.
        offset_bytes: Where the file system starts.

    Raises:
        BuildError: It is none, or not one of that kind.
    """

    def __init__(self, disk: BinaryIO, offset_bytes: int) -> None:
        self._disk = disk
        self._offset_bytes = offset_bytes
        self._end = disk.seek(0, os.SEEK_END)
        self.superblock = _superblock(self._read(SUPERBLOCK_PLACES[0], SUPERBLOCK_BYTES))
        self._chunks = _in_order(_system_chunks(self.superblock.raw))
        self._chunks = _in_order(
            _chunk(item.offset, item.data)
            for node in self.walk(self.superblock.chunk_root)
            for item in node.items()
            if item.kind == CHUNK_ITEM
        )
        self.roots: dict[int, int] = {}
        for node in self.walk(self.superblock.root):
            for item in node.items():
                if item.kind == ROOT_ITEM:
                    self._take_root(item)

    @property
    def disk_bytes(self) -> int:
        """How long the disk is."""
        return self._end

    def over(self, disk: BinaryIO) -> BtrfsTrees:
        """Return the same trees, read from the same disk that was opened anew."""
        same = copy.copy(self)
        same._disk = disk  # noqa: SLF001 - its own
        return same

    def _take_root(self, item: Item) -> None:
        if _FIRST_SUBVOLUME <= item.objectid < _AFTER_SUBVOLUMES:
            raise unreadable(f"it has a subvolume, {item.objectid}")
        if item.objectid in self.roots:
            raise unreadable(f"the tree {item.objectid} is there twice")
        self.roots[item.objectid] = _root_address(item)

    def walk(self, address: int) -> Iterator[TreeNode]:
        """Give the nodes of the tree whose first node is at ``address``, in the order of their keys.

        Raises:
            BuildError: One of them cannot be read.
        """
        size = self.superblock.node_bytes
        waiting: list[tuple[int, int | None, tuple[int, int, int]]] = [(address, None, (0, 0, 0))]
        last = (-1, 0, 0)
        for _ in range(_MOST_NODES):
            if not waiting:
                return
            at, level, key = waiting.pop()
            node = _node(at, self.read(at, size))
            if not node.count and (node.level or level is not None):
                raise unreadable("a node has nothing in it")
            if level is not None and node.first_key != key:
                # A machine looks for it by that key.
                raise unreadable("a node starts with another key than the one above it says")
            # Each is one level below the one that names it, so that no circle is walked for ever.
            if node.level != level if level is not None else node.level >= _MOST_LEVELS:
                raise unreadable("a node has another level than its place")
            if not node.level:
                # So no node is come to twice, either.
                last = node.last_key(last)
            yield node
            waiting += [(below, node.level - 1, first) for below, first in reversed(list(node.pointers()))]
        raise unreadable(f"a tree has more than {_MOST_NODES} nodes")

    def places(self, address: int, length: int) -> tuple[int, ...]:
        """Return where on the disk ``length`` bytes at an address are, counted from the file system's start.

        Raises:
            BuildError: They are nowhere.
        """
        number = bisect_right(self._chunks, address, key=lambda chunk: chunk.start)
        if number:
            chunk = self._chunks[number - 1]
            if address + length <= chunk.start + chunk.length:
                return tuple(place + address - chunk.start for place in chunk.places)
        raise unreadable(f"the address {address} is nowhere on the disk")

    def read(self, address: int, length: int) -> bytes:
        """Return the bytes at an address.

        Raises:
            BuildError: They are not on the disk, or are there twice, and not the same.
        """
        first, *others = (self._read(place, length) for place in self.places(address, length))
        # A machine may read either.
        if any(other != first for other in others):
            raise unreadable(f"what is at the address {address} is there twice, and not the same")
        return first

    def _read(self, place: int, length: int) -> bytes:
        if self._offset_bytes + place + length > self._end:
            raise unreadable("it goes on after the end of the disk")
        self._disk.seek(self._offset_bytes + place)
        return self._disk.read(length)


def is_btrfs(disk: BinaryIO, offset_bytes: int) -> bool:
    """Tell whether there is btrfs at that place of an open disk."""
    disk.seek(offset_bytes + SUPERBLOCK_PLACES[0] + _MAGIC_AT)
    return disk.read(len(_MAGIC)) == _MAGIC


def unreadable(why: str) -> BuildError:
    """Return the error that a file system cannot be read; it is not to be taken for "nothing there"."""
    return BuildError("looking into the image failed", details=f"its btrfs cannot be read: {why}")


def _superblock(raw: bytes) -> Superblock:
    if raw[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise unreadable("there is none")
    generation, root, chunk_root, log_root = struct.unpack_from("<QQQQ", raw, 72)
    size_bytes, _, _, devices, _, node_bytes = struct.unpack_from("<QQQQII", raw, 112)
    writing_features, features, checksum = struct.unpack_from("<QQH", raw, 180)
    if checksum != _CRC32C or crc32c(raw[CHECKSUM_BYTES:]) != struct.unpack_from("<I", raw)[0]:
        raise unreadable("its superblock has another checksum than it says")
    if devices != 1 or node_bytes not in _NODE_SIZES:
        raise unreadable("it is on several disks, or its nodes have no size that nodes have")
    if log_root:
        raise unreadable("it was not shut down cleanly")
    return Superblock(
        raw=raw,
        generation=generation,
        root=root,
        chunk_root=chunk_root,
        size_bytes=size_bytes,
        node_bytes=node_bytes,
        features=features,
        writing_features=writing_features,
    )


def _system_chunks(raw: bytes) -> Iterator[Chunk]:
    (length,) = struct.unpack_from("<I", raw, 160)
    at, end = _SYSTEM_CHUNKS_AT, _SYSTEM_CHUNKS_AT + min(length, _MOST_SYSTEM_BYTES)
    while at + 17 + _CHUNK.size <= end:
        _, kind, start = struct.unpack_from("<QBQ", raw, at)
        if kind != CHUNK_ITEM:
            raise unreadable("its superblock does not say where its chunks are")
        stripes = _CHUNK.unpack_from(raw, at + 17)[7]
        size = _CHUNK.size + stripes * _STRIPE.size
        yield _chunk(start, raw[at + 17 : min(end, at + 17 + size)])
        at += 17 + size


def _chunk(start: int, data: bytes) -> Chunk:
    if len(data) < _CHUNK.size:
        raise unreadable("a chunk is cut off")
    length, _, _, kind, _, _, _, stripes, _ = _CHUNK.unpack_from(data)
    if (
        kind & ~_PLAIN_CHUNK
        or stripes != (2 if kind & _TWICE else 1)
        or len(data) < _CHUNK.size + stripes * _STRIPE.size
    ):
        raise unreadable("it is a RAID, or a chunk is cut off")
    places = tuple(_STRIPE.unpack_from(data, _CHUNK.size + number * _STRIPE.size)[1] for number in range(stripes))
    return Chunk(start=start, length=length, places=places)


def _in_order(chunks: Iterable[Chunk]) -> list[Chunk]:
    found: list[Chunk] = []
    for chunk in chunks:
        found.append(chunk)
        if len(found) > _MOST_CHUNKS:
            raise unreadable(f"it has more than {_MOST_CHUNKS} chunks")
    found.sort(key=lambda chunk: chunk.start)
    if any(one.start + one.length > other.start for one, other in pairwise(found)):
        raise unreadable("its chunks lie over one another")
    return found


def _root_address(item: Item) -> int:
    if len(item.data) < _ROOT.size:
        raise unreadable("the root of a tree is cut off")
    address: int = _ROOT.unpack_from(item.data)[0]
    return address


def _node(address: int, data: bytes) -> TreeNode:
    told, count, level = struct.unpack_from("<Q", data, 48)[0], *struct.unpack_from("<IB", data, 96)
    size = _POINTER.size if level else _ITEM.size
    if told != address or HEADER_BYTES + count * size > len(data):
        raise unreadable(f"there is no node at the address {address}")
    if crc32c(data[CHECKSUM_BYTES:]) != struct.unpack_from("<I", data)[0]:
        raise unreadable(f"the node at the address {address} has another checksum than it says")
    return TreeNode(address=address, level=level, count=count, data=data)
