# SPDX-License-Identifier: Apache-2.0
"""Take out of a fresh btrfs file system what another run of ``mkfs.btrfs`` would have put there otherwise.

Three identifiers are drawn by lot and cannot be given; the times of inodes are those of the building machine; bytes
that nobody reads hold what was in the memory, or an earlier state. None of it is kept: what is left are the files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.bootstrap.filesystem import zero_written
from coppice.factory.evidence.btrfs_nodes import (
    CHECKSUM_BYTES,
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_ITEM,
    EXTENT_TREE,
    FS_TREE,
    HEADER_BYTES,
    INODE_ITEM,
    ROOT_ITEM,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_PLACES,
    UUID_OF_SUBVOLUME,
    XATTR_ITEM,
    BtrfsTrees,
)
from coppice.formats.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO
    from uuid import UUID

    from coppice.factory.evidence.btrfs_nodes import Item, Superblock, TreeNode

_HEADER_CHUNK_UUID = slice(64, 80)
_DEVICE_UUID = slice(267, 283)
_ROOT_UUID = slice(247, 263)
_ITEM_HEAD = 25
_POINTER_BYTES = 33
_KEY = struct.Struct("<QBQ")
_TIME = struct.Struct("<qI")
_ACCESSED, _CHANGED, _MODIFIED, _MADE = 112, 124, 136, 148
_ROOT_CHANGED, _ROOT_MADE = 327, 339
_TRANSACTION_AT = 17
_VALUE_LENGTHS = struct.Struct("<HH")
_ENTRY_BYTES = 30
_BACKUPS_AT, _BACKUP_BYTES, _BACKUPS = 2859, 168, 4
_DATA_EXTENT = 0x1
# extref, skinny-metadata, no-holes, mixed-backref, and, to be written, the tree of free space: Linux 4.5 knows them.
_FEATURES = 0x341
_WRITING_FEATURES = 0x3


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is not left to chance.

    Attributes:
        device: Identifier of the device.
        chunks: Identifier of the tree of chunks.
        files: Identifier of the subvolume that all files are in.
        epoch: Seconds since 1970: nothing is younger.
    """

    device: UUID
    chunks: UUID
    files: UUID
    epoch: int


def settle(image: Path, identity: Identity) -> None:
    """Settle the file system that the file ``image`` is.

    Raises:
        BuildError: It is not what was expected of ``mkfs.btrfs``.
        StorageError: The file could not be read or written.
    """
    with storage_errors("writing", image), image.open("r+b", buffering=0) as stream:
        trees = BtrfsTrees(stream, 0)
        superblock = trees.superblock
        if superblock.features & ~_FEATURES or superblock.writing_features & ~_WRITING_FEATURES:
            raise BuildError(
                "mkfs.btrfs made a file system that older kernels do not read",
                details=f"features {superblock.features:#x}, {superblock.writing_features:#x}",
                resolution="Set build.file-system to ext4, or build on a machine with an older btrfs-progs.",
            )
        known = _drawn(trees, identity)
        live = [place for place in SUPERBLOCK_PLACES if place + SUPERBLOCK_BYTES <= superblock.size_bytes]
        written: list[tuple[int, bytes]] = [(place, _settled_head(superblock, place, known)) for place in live]
        ranges = [(place, SUPERBLOCK_BYTES) for place in live]
        for root in (superblock.chunk_root, superblock.root, *trees.roots.values()):
            for node in trees.walk(root):
                places = trees.places(node.address, len(node.data))
                data = _settled_node(node, superblock, identity, known)
                written += [(place, data) for place in places]
                ranges += [(place, len(data)) for place in places]
        ranges += _contents(trees)
        for place, data in written:
            stream.seek(place)
            stream.write(data)
        _clear(stream, sorted(ranges), superblock.size_bytes)


def _drawn(trees: BtrfsTrees, identity: Identity) -> dict[bytes, bytes]:
    """Return what stands for each identifier that was drawn by lot."""
    found = {trees.superblock.raw[_DEVICE_UUID]: identity.device.bytes}
    first = next(trees.walk(trees.superblock.chunk_root))
    found[first.data[_HEADER_CHUNK_UUID]] = identity.chunks.bytes
    for node in trees.walk(trees.superblock.root):
        for item in node.items():
            if item.kind == ROOT_ITEM and item.objectid == FS_TREE:
                found[item.data[_ROOT_UUID]] = identity.files.bytes
    # One that is not set is nobody's.
    found.pop(bytes(16), None)
    return found


def _contents(trees: BtrfsTrees) -> Iterator[tuple[int, int]]:
    """Give where the contents of files are on the disk, and how long each is."""
    for node in trees.walk(trees.roots[EXTENT_TREE]):
        for item in node.items():
            if item.kind == EXTENT_ITEM and struct.unpack_from("<Q", item.data, 16)[0] & _DATA_EXTENT:
                for place in trees.places(item.objectid, item.offset):
                    yield place, item.offset


def _clear(stream: BinaryIO, ranges: list[tuple[int, int]], end: int) -> None:
    at = 0
    for place, length in ranges:
        if place > at:
            zero_written(stream.fileno(), at, place)
        at = max(at, place + length)
    zero_written(stream.fileno(), at, end)


def _settled_head(superblock: Superblock, place: int, known: dict[bytes, bytes]) -> bytes:
    raw = superblock.raw
    for drawn, given in known.items():
        raw = raw.replace(drawn, given)
    data = bytearray(raw)
    struct.pack_into("<Q", data, 48, place)
    for number in range(_BACKUPS):
        start = _BACKUPS_AT + number * _BACKUP_BYTES
        # What an earlier state says is cleared; its way there, too.
        if struct.unpack_from("<Q", data, start + 8)[0] != superblock.generation:
            data[start : start + _BACKUP_BYTES] = bytes(_BACKUP_BYTES)
    return _checked(data)


def _settled_node(node: TreeNode, superblock: Superblock, identity: Identity, known: dict[bytes, bytes]) -> bytes:
    raw = node.data
    for drawn, given in known.items():
        raw = raw.replace(drawn, given)
    data = bytearray(raw)
    end = HEADER_BYTES + node.count * (_POINTER_BYTES if node.level else _ITEM_HEAD)
    start = len(data)
    for number, item in enumerate(node.items()):
        start = min(start, item.start)
        if item.kind == UUID_OF_SUBVOLUME:
            first, second = struct.unpack("<QQ", identity.files.bytes)
            _KEY.pack_into(data, HEADER_BYTES + number * _ITEM_HEAD, first, item.kind, second)
        else:
            _settle_item(data, item, superblock, identity.epoch)
    data[end:start] = bytes(start - end)
    return _checked(data)


def _settle_item(data: bytearray, item: Item, superblock: Superblock, epoch: int) -> None:
    if item.kind == INODE_ITEM:
        modified, _ = _TIME.unpack_from(data, item.start + _MODIFIED)
        for at in (_ACCESSED, _CHANGED, _MADE):
            _TIME.pack_into(data, item.start + at, epoch, 0)
        _TIME.pack_into(data, item.start + _MODIFIED, min(modified, epoch), 0)
    elif item.kind == ROOT_ITEM:
        for at in (_ROOT_CHANGED, _ROOT_MADE):
            if any(data[item.start + at : item.start + at + _TIME.size]):
                _TIME.pack_into(data, item.start + at, epoch, 0)
    elif item.kind in {DIR_ITEM, DIR_INDEX, XATTR_ITEM}:
        at = item.start
        while at + _ENTRY_BYTES <= item.start + len(item.data):
            struct.pack_into("<Q", data, at + _TRANSACTION_AT, superblock.generation)
            at += _ENTRY_BYTES + sum(_VALUE_LENGTHS.unpack_from(data, at + 25))


def _checked(data: bytearray) -> bytes:
    data[:CHECKSUM_BYTES] = bytes(CHECKSUM_BYTES)
    struct.pack_into("<I", data, 0, crc32c(bytes(data[CHECKSUM_BYTES:])))
    return bytes(data)
