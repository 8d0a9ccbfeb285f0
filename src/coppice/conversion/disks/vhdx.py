# SPDX-License-Identifier: Apache-2.0
"""VHDX: the disks of Hyper-V (MS-VHDX), dynamic and fixed.

Everything that matters is there twice, with checksums; both copies have to be right and to agree. A log that has
something to be played into the tables is refused: without it the tables are not those of the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, believe_size, read_exactly
from coppice.conversion.disks.stretches import Stretches
from coppice.conversion.disks.tables import little_endian
from coppice.conversion.disks.vhdx_metadata import VhdxMetadata, read_metadata
from coppice.conversion.disks.vhdx_regions import MIB, Region, read_regions
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from array import array

    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

IDENTIFIER = b"vhdxfile"
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
_EMPTY_STATES = frozenset({NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED})
_STATE_MASK = 0b111
_RESERVED_MASK = (1 << 20) - 1 & ~_STATE_MASK
_OFFSET_MASK = ~((1 << 20) - 1)
_SECTORS_OF_CHUNK = 1 << 23
_ENTRY_BYTES = 8
_STEP_ENTRIES = 1 << 17
_MISLEADING = "the image is broken or was made to mislead"


def matches(window: Window) -> bool:
    """Tell whether it begins with the identifier."""
    return window.read(0, len(IDENTIFIER)) == IDENTIFIER


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the image is, after its headers, regions, metadata and whole allocation table were looked at.

    Args:
        window: Its bytes.
        limits: What a disk may have.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It has a parent, was not closed, has a feature that is not taken, is too large, or
            contradicts itself.
    """
    regions = read_regions(window, name)
    metadata = read_metadata(window, regions.metadata, name)
    believe_size(metadata.virtual_size_bytes, limits, name=name, offset=metadata.size_offset)
    allocated = _table(window, regions.table, regions.taken, metadata, name)
    return Detection(
        format=DiskFormat.VHDX,
        variant="fixed" if metadata.is_fixed else "dynamic",
        virtual_size_bytes=metadata.virtual_size_bytes,
        allocated_bytes=min(allocated * metadata.block_bytes, metadata.virtual_size_bytes),
    )


def _table(window: Window, region: Region, taken: tuple[Region, ...], metadata: VhdxMetadata, name: str) -> int:
    """Look at each entry (MS-VHDX 2.5.1); return how many blocks the file has.

    After each chunk of payload entries comes one for a bitmap, which only an image with a parent has.
    """
    blocks = -(-metadata.virtual_size_bytes // metadata.block_bytes)
    chunk = _SECTORS_OF_CHUNK * SECTOR_BYTES // metadata.block_bytes
    entries = blocks + (blocks - 1) // chunk
    if entries * _ENTRY_BYTES > region.length:
        raise _corrupt(
            name,
            f"its allocation table has {region.length} bytes, its disk needs {entries * _ENTRY_BYTES}",
            region.offset,
        )
    stretches = Stretches(name, "blocks or regions")
    stretches.add_bytes(0, MIB)
    for each in taken:
        stretches.add_bytes(each.offset, each.length)
    allocated = 0
    for first in range(0, entries, _STEP_ENTRIES):
        at = region.offset + first * _ENTRY_BYTES
        step = min(_STEP_ENTRIES, entries - first) * _ENTRY_BYTES
        numbers = little_endian("Q", read_exactly(window, at, step, name=name, what="its allocation table"))
        held = _held(numbers, first, chunk + 1, at, name)
        beyond = max(held, default=0) + metadata.block_bytes
        if held and beyond > window.size_bytes:
            raise _corrupt(name, f"a block would lie up to byte {beyond}, the file has {window.size_bytes}", at)
        stretches.add_all((offset // SECTOR_BYTES for offset in held), metadata.block_bytes // SECTOR_BYTES)
        allocated += len(held)
    stretches.refuse_overlap()
    return allocated


def _held(numbers: array[int], first: int, period: int, at: int, name: str) -> list[int]:
    """Return where the blocks are that are there; ``period`` is after how many entries one is a bitmap's."""
    held = []
    for number, entry in enumerate(numbers):
        state = entry & _STATE_MASK
        offset = at + number * _ENTRY_BYTES
        if entry & _RESERVED_MASK:
            raise _corrupt(name, f"an entry of its allocation table has unknown bits ({entry:#x})", offset)
        if (first + number) % period == period - 1:
            if state != NOT_PRESENT:
                raise _parented(name, "a bitmap of what comes from a parent", offset)
        elif state == FULLY_PRESENT:
            held.append(entry & _OFFSET_MASK)
        elif state == PARTIALLY_PRESENT:
            raise _parented(name, "a block that is there in part", offset)
        elif state not in _EMPTY_STATES:
            raise refusal(
                UnsupportedImageError,
                name,
                f"a block has the unknown state {state}",
                offset=offset,
                why="what it would contain is not known",
            )
    return held


def _parented(name: str, what: str, offset: int) -> ImageRefusedError:
    return refusal(
        OutsideReferenceError,
        name,
        f"it has {what}",
        offset=offset,
        why="a part of its content would come from another file",
    )


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
