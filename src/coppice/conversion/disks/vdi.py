# SPDX-License-Identifier: Apache-2.0
"""VDI: the disks of VirtualBox (``VDICore.h`` there, ``block/vdi.c`` of QEMU), dynamic and static."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, believe_size, read_exactly, within
from coppice.conversion.disks.tables import little_endian
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from array import array

    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

BLOCK_BYTES = 1024 * 1024
HEADER = struct.Struct("<64s4sIIII256sIIIIIIIQIIII16s16s16s16s")
SIGNATURE = b"\x7f\x10\xda\xbe"
VERSION = 0x00010001
VARIANTS = {1: "dynamic", 2: "static"}
_PARENTED = {3: "undo", 4: "differencing"}
_SIGNATURE_OFFSET = 64
_FIRST_UNALLOCATED = 0xFFFFFFFE
_ENTRY_BYTES = 4
_STEP_ENTRIES = 1 << 18
_MISLEADING = "the image is broken or was made to mislead"
_OFFSETS = {"version": 68, "kind": 76, "map": 340, "data": 344, "sector": 360, "size": 368, "block": 376}
_OFFSETS |= {"extra": 380, "blocks": 384, "allocated": 388, "link": 424, "parent": 440}


@dataclass(frozen=True, slots=True, kw_only=True)
class VdiHeader:
    """What counts of the header.

    Attributes:
        kind: Which kind of image, as a number.
        map_offset: Where the block map is.
        data_offset: Where the first block is.
        virtual_size_bytes: Length of the disk, in whole sectors.
        blocks: How many the disk has.
        allocated: How many the file has.
    """

    kind: int
    map_offset: int
    data_offset: int
    virtual_size_bytes: int
    blocks: int
    allocated: int


def matches(window: Window) -> bool:
    """Tell whether it bears the signature; the 64 bytes before are any text."""
    return window.read(_SIGNATURE_OFFSET, len(SIGNATURE)) == SIGNATURE


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the image is, after its header and its whole block map were looked at.

    Args:
        window: Its bytes.
        limits: What a disk may have.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It has a parent, is of a kind that is not taken, is too large, or contradicts itself.
    """
    header = _header(read_exactly(window, 0, SECTOR_BYTES, name=name, what="its header"), name)
    believe_size(header.virtual_size_bytes, limits, name=name, offset=_OFFSETS["size"])
    if header.blocks != -(-header.virtual_size_bytes // BLOCK_BYTES):
        raise refusal(
            CorruptImageError,
            name,
            f"its disk of {header.virtual_size_bytes} bytes is said to have {header.blocks} blocks of {BLOCK_BYTES}",
            offset=_OFFSETS["blocks"],
            why=_MISLEADING,
        )
    _layout(window, header, name)
    allocated = _block_map(window, header, name)
    return Detection(
        format=DiskFormat.VDI,
        variant=VARIANTS[header.kind],
        virtual_size_bytes=header.virtual_size_bytes,
        allocated_bytes=min(allocated * BLOCK_BYTES, header.virtual_size_bytes),
    )


def _header(content: bytes, name: str) -> VdiHeader:
    """Take the header apart; the size of a disk is rounded up to whole sectors, as QEMU does."""
    fields = HEADER.unpack_from(content)
    version, kind, map_offset, data_offset = fields[2], fields[4], fields[7], fields[8]
    sector, size, block, extra, blocks, allocated = fields[12], *fields[14:19]
    link, parent = fields[21], fields[22]
    if kind in _PARENTED or any(link) or any(parent):
        what = f"it is of the kind {_PARENTED[kind]}" if kind in _PARENTED else "it names a parent image"
        where = "kind" if kind in _PARENTED else "link" if any(link) else "parent"
        raise refusal(
            OutsideReferenceError,
            name,
            what,
            offset=_OFFSETS[where],
            why="a part of its content would come from another file",
        )
    for found, wanted, words, where in (
        (version, VERSION, "version", "version"),
        (sector, SECTOR_BYTES, "sector size", "sector"),
        (block, BLOCK_BYTES, "block size", "block"),
        (extra, 0, "extra bytes before each block", "extra"),
    ):
        if found != wanted:
            raise refusal(
                UnsupportedImageError,
                name,
                f"its {words} is {found:#x}",
                offset=_OFFSETS[where],
                why=f"only {wanted:#x} is taken",
            )
    if kind not in VARIANTS:
        raise refusal(
            UnsupportedImageError,
            name,
            f"it is a VDI of the kind {kind}",
            offset=_OFFSETS["kind"],
            why="only dynamic and static ones are taken",
        )
    return VdiHeader(
        kind=kind,
        map_offset=map_offset,
        data_offset=data_offset,
        virtual_size_bytes=-(-size // SECTOR_BYTES) * SECTOR_BYTES,
        blocks=blocks,
        allocated=allocated,
    )


def _layout(window: Window, header: VdiHeader, name: str) -> None:
    map_end = header.map_offset + header.blocks * _ENTRY_BYTES
    for start, what, where in ((header.map_offset, "block map", "map"), (header.data_offset, "data", "data")):
        if start % SECTOR_BYTES or start < SECTOR_BYTES:
            raise _corrupt(name, f"its {what} would begin at byte {start}", _OFFSETS[where])
    if map_end > header.data_offset:
        raise _corrupt(name, "its block map reaches into its data", _OFFSETS["map"])
    if header.allocated > header.blocks:
        raise _corrupt(
            name, f"{header.allocated} of {header.blocks} blocks are said to be there", _OFFSETS["allocated"]
        )
    within(window, header.map_offset, map_end - header.map_offset, name=name, what="its block map")
    within(window, header.data_offset, header.allocated * BLOCK_BYTES, name=name, what="its blocks")


def _block_map(window: Window, header: VdiHeader, name: str) -> int:
    """Look at each entry; return how many blocks the file has."""
    seen = bytearray(header.allocated)
    count = 0
    for first in range(0, header.blocks, _STEP_ENTRIES):
        start = header.map_offset + first * _ENTRY_BYTES
        length = min(_STEP_ENTRIES, header.blocks - first) * _ENTRY_BYTES
        entries: array[int] = little_endian("I", read_exactly(window, start, length, name=name, what="its block map"))
        for number, entry in enumerate(entries):
            if entry >= _FIRST_UNALLOCATED:
                continue
            if entry >= header.allocated or seen[entry]:
                problem = "is used twice" if entry < header.allocated else f"of {header.allocated} is not there"
                raise _corrupt(name, f"its block {entry} {problem}", start + number * _ENTRY_BYTES)
            seen[entry] = 1
            count += 1
    if count != header.allocated:
        raise _corrupt(
            name,
            f"{header.allocated} blocks are said to be there, its block map has {count}",
            _OFFSETS["allocated"],
        )
    return count


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
