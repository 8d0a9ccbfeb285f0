# SPDX-License-Identifier: Apache-2.0
"""The metadata of a VHDX: how long its disk and its blocks are, and whether it has a parent (MS-VHDX 2.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, read_exactly
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError

if TYPE_CHECKING:
    from coppice.conversion.disks.vhdx_regions import Region
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

SIGNATURE = b"metadata"
TABLE = struct.Struct("<8sHH20s")
ENTRY = struct.Struct("<16sIIII")
TABLE_BYTES = 64 * 1024
FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
VIRTUAL_DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
VIRTUAL_DISK_ID = bytes.fromhex("ab12cabee6b2234593efc309e000c746")
LOGICAL_SECTOR_SIZE = bytes.fromhex("1dbf41816fa90947ba47f233a8faab5f")
PHYSICAL_SECTOR_SIZE = bytes.fromhex("c748a3cd5d4471449cc9e9885251c556")
PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
ITEMS = {
    FILE_PARAMETERS: ("file parameters", 8),
    VIRTUAL_DISK_SIZE: ("disk size", 8),
    VIRTUAL_DISK_ID: ("disk identifier", 16),
    LOGICAL_SECTOR_SIZE: ("logical sector size", 4),
    PHYSICAL_SECTOR_SIZE: ("physical sector size", 4),
}
_REQUIRED = 0b100
_LEAVE_ALLOCATED, _HAS_PARENT = 0b01, 0b10
_MOST_ENTRIES = 2047
_SMALLEST_BLOCK_BYTES = 1024 * 1024
_LARGEST_BLOCK_BYTES = 256 * 1024 * 1024
_PHYSICAL = frozenset({512, 4096})
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdxMetadata:
    """What counts of the metadata.

    Attributes:
        virtual_size_bytes: Length of the disk.
        size_offset: Where that is written.
        block_bytes: Length of a block.
        is_fixed: Whether all blocks are to be there.
    """

    virtual_size_bytes: int
    size_offset: int
    block_bytes: int
    is_fixed: bool


def read_metadata(window: Window, region: Region, name: str) -> VhdxMetadata:
    """Return the metadata.

    Args:
        window: The image's bytes.
        region: Where they are; inside of the file.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: The image has a parent, something that has to be known and is not, or contradicts itself.
    """
    places = _places(window, region, name)
    values = {
        item: int.from_bytes(
            read_exactly(window, places[item], ITEMS[item][1], name=name, what=f"its {ITEMS[item][0]}"), "little"
        )
        for item in ITEMS
    }
    block, flags = values[FILE_PARAMETERS] & 0xFFFFFFFF, values[FILE_PARAMETERS] >> 32
    if flags & _HAS_PARENT:
        raise _parented(name, places[FILE_PARAMETERS] + 4)
    _refuse_unsupported(values, block, flags, places, name)
    size = values[VIRTUAL_DISK_SIZE]
    if size % SECTOR_BYTES:
        raise _corrupt(name, f"its disk would have {size} bytes, which are no whole sectors", places[VIRTUAL_DISK_SIZE])
    return VhdxMetadata(
        virtual_size_bytes=size,
        size_offset=places[VIRTUAL_DISK_SIZE],
        block_bytes=block,
        is_fixed=bool(flags & _LEAVE_ALLOCATED),
    )


def _refuse_unsupported(values: dict[bytes, int], block: int, flags: int, places: dict[bytes, int], name: str) -> None:
    logical, physical = values[LOGICAL_SECTOR_SIZE], values[PHYSICAL_SECTOR_SIZE]
    is_power = block & (block - 1) == 0
    wrong = (
        (flags & ~_LEAVE_ALLOCATED, f"it has unknown parameters ({flags:#x})", places[FILE_PARAMETERS] + 4),
        (
            not is_power or not _SMALLEST_BLOCK_BYTES <= block <= _LARGEST_BLOCK_BYTES,
            f"its blocks would have {block} bytes",
            places[FILE_PARAMETERS],
        ),
        (
            logical != SECTOR_BYTES,
            f"its logical sectors have {logical} bytes",
            places[LOGICAL_SECTOR_SIZE],
        ),
        (physical not in _PHYSICAL, f"its physical sectors have {physical} bytes", places[PHYSICAL_SECTOR_SIZE]),
    )
    for is_wrong, words, offset in wrong:
        if is_wrong:
            raise refusal(
                UnsupportedImageError,
                name,
                words,
                offset=offset,
                why="only disks with sectors of 512 bytes in blocks of 1 to 256 MiB are taken",
            )


def _places(window: Window, region: Region, name: str) -> dict[bytes, int]:
    """Return where in the file each item is that has to be there."""
    content = read_exactly(window, region.offset, TABLE_BYTES, name=name, what="its metadata table")
    signature, _, count, _ = TABLE.unpack_from(content)
    if signature != SIGNATURE or count > _MOST_ENTRIES:
        raise _corrupt(name, "it has no metadata table", region.offset)
    places: dict[bytes, int] = {}
    for number in range(count):
        at = TABLE.size + number * ENTRY.size
        item, offset, length, flags, _ = ENTRY.unpack_from(content, at)
        where = region.offset + at
        if item == PARENT_LOCATOR:
            raise _parented(name, where)
        if item in places:
            raise _corrupt(name, "it has two metadata items of one kind", where)
        if item in ITEMS:
            if length != ITEMS[item][1] or offset < TABLE_BYTES or offset + length > region.length:
                raise _corrupt(name, f"its {ITEMS[item][0]} would have {length} bytes at {offset}", where)
        elif flags & _REQUIRED:
            raise refusal(
                UnsupportedImageError,
                name,
                f"it has an unknown metadata item ({item.hex()})",
                offset=where,
                why="the image says that it cannot be read without that",
            )
        places[item] = region.offset + offset
    for item, (what, _) in ITEMS.items():
        if item not in places:
            raise _corrupt(name, f"it does not say its {what}", region.offset)
    return places


def _parented(name: str, offset: int) -> ImageRefusedError:
    return refusal(
        OutsideReferenceError,
        name,
        "it is a differencing VHDX",
        offset=offset,
        why="a part of its content would come from another file",
    )


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
