# SPDX-License-Identifier: Apache-2.0
"""The blocks of a dynamic VHD: its header, its block allocation table, and the bitmap before each block."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, read_exactly, within
from coppice.conversion.disks.stretches import Stretches
from coppice.conversion.disks.tables import big_endian, is_zero
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError

if TYPE_CHECKING:
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

COOKIE = b"cxsparse"
HEADER = struct.Struct(">8sQQIIII16sI4s512s")
HEADER_BYTES = 1024
CHECKSUM_OFFSET = 36
UNALLOCATED = 0xFFFFFFFF
_VERSION = 0x00010000
_SMALLEST_BLOCK_BYTES = 512 * 1024
_LARGEST_BLOCK_BYTES = 256 * 1024 * 1024
_ENTRY_BYTES = 4
_MOST_DISK_BYTES = 0xFF000000 * SECTOR_BYTES
_STEP_ENTRIES = 1 << 18
_STEP_BYTES = 1024 * 1024
_LOCATORS = slice(576, 768)
_LOCATOR_BYTES = 24
_OFFSETS = {"table": 16, "version": 24, "entries": 28, "block": 32, "parent": 40, "locators": 576}
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdBlocks:
    """Where the blocks of a disk are.

    Attributes:
        block_bytes: Length of one.
        bitmap_bytes: Length of the bitmap before each.
        starts: In which sector each begins with its bitmap, in the order of the disk; `UNALLOCATED`: in none.
        allocated: How many the file has.
    """

    block_bytes: int
    bitmap_bytes: int
    starts: array[int]
    allocated: int

    @property
    def allocated_bytes(self) -> int:
        """How many bytes of the disk the file has."""
        return self.allocated * self.block_bytes

    def read(self, window: Window, start: int, length: int) -> bytes:
        """Return bytes of the disk that lie in one block, as QEMU reads them."""
        number = start // self.block_bytes
        if number >= len(self.starts) or self.starts[number] == UNALLOCATED:
            return bytes(length)
        begin = self.starts[number] * SECTOR_BYTES + self.bitmap_bytes
        return window.read(begin + start % self.block_bytes, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    offset: int
    table_offset: int
    entries: int
    block_bytes: int


def read_blocks(window: Window, offset: int, virtual_size_bytes: int, name: str) -> VhdBlocks:
    """Return where the blocks are, after each was looked at.

    Args:
        window: The image's bytes.
        offset: Where its header is, as the footer says.
        virtual_size_bytes: Length of the disk; it is within the limits.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It names a parent, has blocks of a size that is not taken, or contradicts itself.
    """
    header = _header(window, offset, name)
    needed = -(-virtual_size_bytes // header.block_bytes)
    if header.entries < needed:
        raise _corrupt(
            name, f"its table has {header.entries} entries, its disk needs {needed}", offset + _OFFSETS["entries"]
        )
    if header.entries > -(-_MOST_DISK_BYTES // header.block_bytes):
        raise _corrupt(name, f"its table has {header.entries} entries, more than any VHD", offset + _OFFSETS["entries"])
    blocks = _blocks(window, header, name)
    _refuse_hidden_content(window, blocks, name)
    return blocks


def _header(window: Window, offset: int, name: str) -> _Header:
    content = read_exactly(window, offset, HEADER_BYTES, name=name, what="its header")
    cookie, _, table, version, entries, block, stated, parent, _, _, parent_name = HEADER.unpack_from(content)
    if offset % SECTOR_BYTES or offset < SECTOR_BYTES or cookie != COOKIE:
        raise _corrupt(name, "it has no header where its footer says", offset)
    own = content[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4]
    if ~(sum(content) - sum(own)) & 0xFFFFFFFF != stated:
        raise _corrupt(name, "the checksum of its header is wrong", offset + CHECKSUM_OFFSET)
    if any(parent) or any(parent_name) or _names_parent(content):
        raise refusal(
            OutsideReferenceError,
            name,
            "it is not a differencing VHD and names a parent",
            offset=offset + _OFFSETS["parent"],
            why="a part of its content could come from another file",
        )
    is_power = block & (block - 1) == 0
    for is_right, words, where in (
        (version == _VERSION, f"its header has the version {version:#x}", "version"),
        (
            is_power and _SMALLEST_BLOCK_BYTES <= block <= _LARGEST_BLOCK_BYTES,
            f"its blocks would have {block} bytes",
            "block",
        ),
    ):
        if not is_right:
            raise refusal(
                UnsupportedImageError,
                name,
                words,
                offset=offset + _OFFSETS[where],
                why=f"version 1 with blocks of {_SMALLEST_BLOCK_BYTES} to {_LARGEST_BLOCK_BYTES} bytes is taken",
            )
    if table % SECTOR_BYTES or table < SECTOR_BYTES:
        raise _corrupt(name, f"its table would begin at byte {table}", offset + _OFFSETS["table"])
    return _Header(offset=offset, table_offset=table, entries=entries, block_bytes=block)


def _names_parent(content: bytes) -> bool:
    # An entry without a platform code is free; some programs leave zeros, some the space that they set aside.
    return any(any(content[at : at + 4]) for at in range(_LOCATORS.start, _LOCATORS.stop, _LOCATOR_BYTES))


def _blocks(window: Window, header: _Header, name: str) -> VhdBlocks:
    bitmap = -(-header.block_bytes // (8 * SECTOR_BYTES * SECTOR_BYTES)) * SECTOR_BYTES
    length = (bitmap + header.block_bytes) // SECTOR_BYTES
    end = (window.size_bytes - SECTOR_BYTES) // SECTOR_BYTES
    within(window, header.table_offset, header.entries * _ENTRY_BYTES, name=name, what="its table")
    stretches = Stretches(name, "blocks or tables")
    stretches.add_bytes(0, SECTOR_BYTES)
    stretches.add_bytes(header.offset, HEADER_BYTES)
    stretches.add_bytes(header.table_offset, header.entries * _ENTRY_BYTES)
    starts: array[int] = array("I")
    allocated = 0
    for first in range(0, header.entries, _STEP_ENTRIES):
        at = header.table_offset + first * _ENTRY_BYTES
        step = min(_STEP_ENTRIES, header.entries - first) * _ENTRY_BYTES
        entries = big_endian("I", read_exactly(window, at, step, name=name, what="its table"))
        held = [entry for entry in entries if entry != UNALLOCATED]
        if held and max(held) + length > end:
            number = entries.index(max(held))
            raise _corrupt(name, f"its block {first + number} would lie beyond the end", at + number * _ENTRY_BYTES)
        stretches.add_all(held, length)
        starts.extend(entries)
        allocated += len(held)
    stretches.refuse_overlap()
    return VhdBlocks(block_bytes=header.block_bytes, bitmap_bytes=bitmap, starts=starts, allocated=allocated)


def _refuse_hidden_content(window: Window, blocks: VhdBlocks, name: str) -> None:
    """See to it that sectors which a bitmap calls unused are zeros: some programs read them, others do not."""
    sectors = blocks.block_bytes // SECTOR_BYTES
    full = b"\xff" * (sectors // 8)
    for start in blocks.starts:
        if start == UNALLOCATED:
            continue
        begin = start * SECTOR_BYTES
        bitmap = read_exactly(window, begin, sectors // 8, name=name, what="a block's bitmap")
        if bitmap != full:
            _refuse_hidden_in_block(window, begin + blocks.bitmap_bytes, bitmap, name)


def _refuse_hidden_in_block(window: Window, begin: int, bitmap: bytes, name: str) -> None:
    per_step = _STEP_BYTES // SECTOR_BYTES // 8
    for first in range(0, len(bitmap), per_step):
        bits = bitmap[first : first + per_step]
        start = begin + first * 8 * SECTOR_BYTES
        content = read_exactly(window, start, len(bits) * 8 * SECTOR_BYTES, name=name, what="a block")
        if is_zero(content):
            continue
        for number in range(len(bits) * 8):
            if bits[number // 8] >> (7 - number % 8) & 1:
                continue
            at = number * SECTOR_BYTES
            if not is_zero(content[at : at + SECTOR_BYTES]):
                raise _corrupt(name, "a sector that a bitmap calls unused has content", start + at)


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
