# SPDX-License-Identifier: Apache-2.0
"""Writing the patch of a delta: its segments one after the other, then its head and table before them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from coppice.formats.delta_blocks import at_most, column, compress_table
from coppice.formats.delta_limits import BLOCK_BYTES
from coppice.formats.delta_patch import (
    HEAD,
    MAGIC,
    MAX_EXTENTS,
    MAX_INSTRUCTIONS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    WHAT,
    Extent,
    InstructionKind,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.model.checksum import Checksum

_PLAIN_LEVEL = 9
_WINDOW_LOG = 27
_MOST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """A segment that was written.

    Attributes:
        length: Of its frame.
        blocks: How many blocks it gives.
        reference: What of the origin it was compressed against.
    """

    length: int
    blocks: int
    reference: tuple[Extent, ...]


class PatchWriter:
    """Makes a patch: instructions and segments in the order of the target, in any order among each other.

    Args:
        segments: Where the segments go, one after the other; `finish` tells what belongs before them.
    """

    def __init__(self, segments: BinaryIO) -> None:
        self._stream = segments
        self._kinds: array[int] = array("B")
        self._counts: array[int] = array("I")
        self._origins: array[int] = array("I")
        self._segments: list[SegmentPlan] = []

    def zeros(self, count: int = 1) -> None:
        """Say that blocks of zeros come next."""
        self._add(InstructionKind.ZEROS, count, 0)

    def copy(self, origin: int, count: int = 1) -> None:
        """Say that blocks of the origin come next, from block ``origin`` on."""
        self._add(InstructionKind.COPY, count, origin)

    def literal(self, count: int = 1) -> None:
        """Say that the next blocks of the segments come next."""
        self._add(InstructionKind.LITERAL, count, 0)

    def _add(self, kind: InstructionKind, count: int, origin: int) -> None:
        if self._counts and self._kinds[-1] == kind and self._counts[-1] + count <= _MOST:
            follows = kind is not InstructionKind.COPY or self._origins[-1] + self._counts[-1] == origin
            if follows:
                self._counts[-1] += count
                return
        self._kinds.append(kind)
        self._counts.append(count)
        self._origins.append(origin)

    def segment(self, data: bytes, reference: bytes, extents: Sequence[Extent]) -> None:
        """Compress the next literal blocks, against what ``extents`` of the origin hold.

        Args:
            data: The blocks; `MAX_SEGMENT_BYTES` at most.
            reference: What the extents hold, one after the other; `MAX_SEGMENT_BYTES` at most.
            extents: Where in the origin that is.

        Raises:
            DeltaError: It is beyond a limit.
        """
        at_most(WHAT, "the length of a segment", len(data), MAX_SEGMENT_BYTES, 1)
        at_most(WHAT, "the length of a reference", len(reference), MAX_SEGMENT_BYTES)
        frame = compress_against(data, reference)
        self._stream.write(frame)
        self._segments.append(SegmentPlan(length=len(frame), blocks=len(data) // BLOCK_BYTES, reference=tuple(extents)))

    def finish(
        self,
        *,
        target_size_bytes: int,
        target_checksum: Checksum,
        origin_size_bytes: int,
        origin_checksum: Checksum,
    ) -> bytes:
        """Return the head and the table, which stand before the segments.

        Raises:
            DeltaError: There are more instructions, segments or extents than a patch may have.
        """
        extents = [extent for each in self._segments for extent in each.reference]
        at_most(WHAT, "the number of instructions", len(self._counts), MAX_INSTRUCTIONS, 1)
        at_most(WHAT, "the number of segments", len(self._segments), MAX_SEGMENTS)
        at_most(WHAT, "the number of extents", len(extents), MAX_EXTENTS)
        table = compress_table(
            column("B", self._kinds)
            + column("I", self._counts)
            + column("I", self._origins)
            + column("I", [each.length for each in self._segments])
            + column("I", [each.blocks for each in self._segments])
            + column("I", [len(each.reference) for each in self._segments])
            + column("I", [extent.block for extent in extents])
            + column("I", [extent.count for extent in extents])
        )
        head = HEAD.pack(
            MAGIC,
            BLOCK_BYTES,
            target_size_bytes,
            bytes.fromhex(target_checksum.hexdigest),
            origin_size_bytes,
            bytes.fromhex(origin_checksum.hexdigest),
            len(self._counts),
            len(self._segments),
            len(extents),
            len(table),
        )
        return head + table


def compress_against(data: bytes, reference: bytes) -> bytes:
    """Return one zstd frame of ``data`` with ``reference`` before it, as ``zstd --patch-from`` makes it.

    The match finder's tables have room for every position of the reference: with those of zstd's levels, which are
    made for what is near, most of a reference is forgotten. Measured: docs/explanation/deltas.md.
    """
    if not reference:
        return zstandard.ZstdCompressor(level=_PLAIN_LEVEL).compress(data)
    parameters = zstandard.ZstdCompressionParameters(
        window_log=_WINDOW_LOG,
        hash_log=23,
        chain_log=24,
        search_log=3,
        min_match=5,
        target_length=32,
        strategy=zstandard.STRATEGY_LAZY2,
        write_content_size=True,
    )
    prefix = zstandard.ZstdCompressionDict(reference, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=prefix, compression_params=parameters).compress(data)
