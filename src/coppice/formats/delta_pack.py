# SPDX-License-Identifier: Apache-2.0
"""Packs of a delta: compressed blocks, a few in each frame, so that a range of a file is enough to have some.

A magic number, the frames, a compressed table of their lengths, and a tail that says where the table begins. Readers
have that from the index, and fetch the table and the frames they need.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from coppice.formats.delta_blocks import (
    at_most,
    column,
    compress_table,
    decompress,
    malformed,
    numbers_of,
)
from coppice.formats.delta_limits import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"CoppPak1"
MAX_PACK_BLOCKS = 1 << 24
MAX_FRAME_BLOCKS = 256
MAX_TABLE_BYTES = 80 * 1024 * 1024
FRAME_BLOCKS = 16
"""How many blocks a frame of a new pack has; measured: docs/explanation/deltas.md."""
LEVEL = 9
_WHAT = "pack"
_TAIL = struct.Struct("<IHII8s")
TAIL_BYTES = _TAIL.size
HEAD_BYTES = len(MAGIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLayout:
    """How a pack is laid out.

    Attributes:
        blocks: How many blocks it has.
        frame_blocks: How many of them are in each frame; fewer in the last.
        table_bytes: Length of its compressed table, which ends where the tail begins.
    """

    blocks: int
    frame_blocks: int
    table_bytes: int

    @property
    def frames(self) -> int:
        """Return how many frames it has."""
        return -(-self.blocks // self.frame_blocks)

    def frame_of(self, block: int) -> int:
        """Return the number of the frame that holds ``block``."""
        return block // self.frame_blocks

    def blocks_in(self, frame: int) -> int:
        """Return how many blocks ``frame`` holds."""
        return min(self.frame_blocks, self.blocks - frame * self.frame_blocks)

    def table_range(self, pack_bytes: int) -> tuple[int, int]:
        """Return where the table of a pack of that length is: its offset, its length.

        Raises:
            DeltaError: It is longer than the pack.
        """
        offset = pack_bytes - TAIL_BYTES - self.table_bytes
        if offset <= HEAD_BYTES:
            malformed(_WHAT, "it is shorter than its table")
        return offset, self.table_bytes


def read_pack_layout(tail: bytes) -> PackLayout:
    """Return the layout that the last `TAIL_BYTES` of a pack tell.

    Raises:
        DeltaError: They are no such tail.
    """
    if len(tail) != TAIL_BYTES:
        malformed(_WHAT, "it is cut off")
    block_bytes, frame_blocks, blocks, table_bytes, magic = _TAIL.unpack(tail)
    if magic != MAGIC or block_bytes != BLOCK_BYTES:
        malformed(_WHAT, "it does not end as one")
    return PackLayout(
        blocks=at_most(_WHAT, "the number of its blocks", blocks, MAX_PACK_BLOCKS, 1),
        frame_blocks=at_most(_WHAT, "the number of a frame's blocks", frame_blocks, MAX_FRAME_BLOCKS, 1),
        table_bytes=at_most(_WHAT, "the length of its table", table_bytes, MAX_TABLE_BYTES, 1),
    )


def read_pack_table(table: bytes, layout: PackLayout, *, pack_bytes: int) -> Sequence[int]:
    """Return where each frame of a pack begins, and, as one more number, where the last one ends.

    Args:
        table: The bytes at `PackLayout.table_range`.
        layout: As the index tells it.
        pack_bytes: Length of the pack.

    Raises:
        DeltaError: It is malformed, or does not fit the pack.
    """
    end, _ = layout.table_range(pack_bytes)
    lengths = numbers_of("I", decompress(_WHAT, table, layout.frames * 4))
    most = _most_bytes(layout.frame_blocks)
    offsets: array[int] = array("Q", [HEAD_BYTES])
    offset = HEAD_BYTES
    for length in lengths:
        if not 0 < length <= most:
            malformed(_WHAT, f"a frame of {length} bytes")
        offset += length
        offsets.append(offset)
    if offset != end:
        malformed(_WHAT, f"its frames end at {offset}, not at {end}")
    return offsets


def unpack_frame(frame: bytes | memoryview, layout: PackLayout, number: int) -> bytes:
    """Return the blocks that frame ``number`` holds, one after the other.

    Raises:
        DeltaError: It is malformed, or does not hold as many.
    """
    at_most(_WHAT, "the number of a frame", number, layout.frames - 1)
    return decompress(_WHAT, frame, layout.blocks_in(number) * BLOCK_BYTES)


def _most_bytes(frame_blocks: int) -> int:
    # What zstd makes of bytes that cannot be compressed is this long at most (RFC 8878: blocks stored raw).
    raw = frame_blocks * BLOCK_BYTES
    return raw + raw // 128 + 512


class PackWriter:
    """Writes a pack.

    Args:
        stream: Where; written from where it stands, never sought.
        frame_blocks: How many blocks each frame has.
        level: How hard zstd tries.
    """

    def __init__(self, stream: BinaryIO, *, frame_blocks: int = FRAME_BLOCKS, level: int = LEVEL) -> None:
        self._stream, self._frame_blocks = stream, frame_blocks
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._pending: list[bytes] = []
        self._lengths: array[int] = array("I")
        self.blocks = 0
        stream.write(MAGIC)

    def add(self, block: bytes) -> int:
        """Take up a block of `BLOCK_BYTES`; return its number.

        Raises:
            DeltaError: The pack is full.
        """
        number = self.blocks
        at_most(_WHAT, "the number of its blocks", number + 1, MAX_PACK_BLOCKS)
        self._pending.append(block)
        self.blocks += 1
        if len(self._pending) == self._frame_blocks:
            self._flush()
        return number

    def finish(self) -> PackLayout:
        """Write the rest, the table and the tail; return the layout.

        Raises:
            DeltaError: There is no block in it.
        """
        self._flush()
        at_most(_WHAT, "the number of its blocks", self.blocks, MAX_PACK_BLOCKS, 1)
        table = compress_table(column("I", self._lengths))
        self._stream.write(table)
        self._stream.write(_TAIL.pack(BLOCK_BYTES, self._frame_blocks, self.blocks, len(table), MAGIC))
        return PackLayout(blocks=self.blocks, frame_blocks=self._frame_blocks, table_bytes=len(table))

    def _flush(self) -> None:
        if self._pending:
            frame = self._compressor.compress(b"".join(self._pending))
            self._lengths.append(len(frame))
            self._stream.write(frame)
            self._pending.clear()
