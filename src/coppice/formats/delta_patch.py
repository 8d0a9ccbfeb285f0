# SPDX-License-Identifier: Apache-2.0
"""A patch of a delta: what makes the guest's bytes of one version (target) out of those of an earlier one (origin).

A head, a compressed table (instructions in the order of the target, segments, extents), and the segments: blocks of the
target that are nowhere in the origin, each segment one zstd frame with stated extents of the origin as its reference,
in the form of ``zstd --patch-from``. Segments and references are bounded, and so is the memory that they take.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from coppice.formats.delta_blocks import (
    SHA512_BYTES,
    Columns,
    at_most,
    block_count,
    check_frame,
    decompress,
    guest_size,
    malformed,
)
from coppice.formats.delta_limits import BLOCK_BYTES, MAX_BLOCKS
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    ReadAt = Callable[[int, int], bytes]

MAGIC = b"CoppPat1"
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
"""Most bytes of a segment, and most of its reference."""
MAX_WINDOW_BYTES = 128 * 1024 * 1024
MAX_INSTRUCTIONS = 1 << 20
MAX_SEGMENTS = 1 << 12
MAX_EXTENTS = 1 << 20
WHAT = "patch"
HEAD = struct.Struct(f"<8sIQ{SHA512_BYTES}sQ{SHA512_BYTES}sIIII")
INSTRUCTION_BYTES = 1 + 4 + 4
SEGMENT_BYTES = 4 + 4 + 4
EXTENT_BYTES = 4 + 4
_MAX_SEGMENT_BLOCKS = MAX_SEGMENT_BYTES // BLOCK_BYTES
_PIECE_BYTES = 1024 * 1024
_HEAD_OF_FRAME_BYTES = 18


class InstructionKind(IntEnum):
    """What comes next in the target."""

    ZEROS = 0
    COPY = 1
    """Blocks of the origin."""
    LITERAL = 2
    """The next blocks of the segments."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """How some blocks of the target are made.

    Attributes:
        kind: Of what.
        block: Number of the first in the target.
        count: How many.
        origin: Number of the first in the origin; 0 unless they are copied.
    """

    kind: InstructionKind
    block: int
    count: int
    origin: int


@dataclass(frozen=True, slots=True)
class Extent:
    """Blocks of the origin that follow each other.

    Attributes:
        block: Number of the first.
        count: How many.
    """

    block: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A frame of literal blocks.

    Attributes:
        offset: Where in the patch it begins.
        length: How long it is there.
        blocks: How many blocks it gives.
        reference: The extents of the origin that it was compressed against, in this order.
    """

    offset: int
    length: int
    blocks: int
    reference: tuple[Extent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What the head and the table of a patch say.

    Attributes:
        target_size_bytes: Length of what it makes.
        target_checksum: Of what it makes.
        origin_size_bytes: Length of what it starts from.
        origin_checksum: Of what it starts from.
        segments: In the order of the literal blocks.
    """

    target_size_bytes: int
    target_checksum: Checksum
    origin_size_bytes: int
    origin_checksum: Checksum
    segments: tuple[Segment, ...]
    _kinds: array[int]
    _counts: array[int]
    _origins: array[int]

    def instructions(self) -> Iterator[Instruction]:
        """Yield how the target is made, from its beginning to its end, without gaps."""
        block = 0
        for kind, count, origin in zip(self._kinds, self._counts, self._origins, strict=True):
            yield Instruction(InstructionKind(kind), block, count, origin)
            block += count


def read_patch(stream: BinaryIO, *, size_bytes: int) -> Patch:
    """Return what the patch in ``stream`` says, without its segments.

    Args:
        stream: Read from where it stands, which is where the patch begins.
        size_bytes: Length of the patch.

    Raises:
        DeltaError: It is malformed, or beyond a limit.
    """
    head = stream.read(HEAD.size)
    if len(head) != HEAD.size:
        malformed(WHAT, "it is cut off")
    magic, block_bytes, size, digest, origin_size, origin_digest, *counts, table_bytes = HEAD.unpack(head)
    if magic != MAGIC or block_bytes != BLOCK_BYTES:
        malformed(WHAT, "it does not begin as one")
    instructions, segments, extents = counts
    guest_size(WHAT, size)
    guest_size(WHAT, origin_size)
    at_most(WHAT, "the number of instructions", instructions, MAX_INSTRUCTIONS, 1)
    at_most(WHAT, "the number of segments", segments, MAX_SEGMENTS)
    at_most(WHAT, "the number of extents", extents, MAX_EXTENTS)
    raw_bytes = instructions * INSTRUCTION_BYTES + segments * SEGMENT_BYTES + extents * EXTENT_BYTES
    at_most(WHAT, "the length of its table", table_bytes, min(size_bytes - HEAD.size, raw_bytes + raw_bytes // 64 + 64))
    table = stream.read(table_bytes)
    if len(table) != table_bytes:
        malformed(WHAT, "it is cut off")
    columns = Columns(decompress(WHAT, table, raw_bytes))
    kinds, lengths, origins = (columns.take(code, instructions) for code in "BII")
    literal = _check_instructions(kinds, lengths, origins, block_count(size), block_count(origin_size))
    read = _segments(columns, segments, extents, HEAD.size + table_bytes, block_count(origin_size))
    if sum(each.blocks for each in read) != literal:
        malformed(WHAT, "its segments do not hold as many blocks as its instructions ask for")
    if (read[-1].offset + read[-1].length if read else HEAD.size + table_bytes) != size_bytes:
        malformed(WHAT, f"it is {size_bytes} bytes long, and its parts are not")
    return Patch(
        target_size_bytes=size,
        target_checksum=Checksum("sha512", digest.hex()),
        origin_size_bytes=origin_size,
        origin_checksum=Checksum("sha512", origin_digest.hex()),
        segments=read,
        _kinds=kinds,
        _counts=lengths,
        _origins=origins,
    )


def _check_instructions(
    kinds: array[int], counts: array[int], origins: array[int], blocks: int, origin_blocks: int
) -> int:
    """Return how many blocks are literal."""
    total = literal = 0
    for kind, count, origin in zip(kinds, counts, origins, strict=True):
        if not count or kind > InstructionKind.LITERAL:
            malformed(WHAT, "an instruction that makes nothing")
        total += count
        if kind == InstructionKind.COPY:
            if origin + count > origin_blocks:
                malformed(WHAT, "a copy of what is not in the origin")
        elif origin:
            malformed(WHAT, "an instruction that says where it copies from, and does not copy")
        if kind == InstructionKind.LITERAL:
            literal += count
    if total != blocks:
        malformed(WHAT, f"its instructions make {total} blocks, not {blocks}")
    return at_most(WHAT, "the number of literal blocks", literal, MAX_BLOCKS)


def _segments(columns: Columns, count: int, extents: int, offset: int, origin_blocks: int) -> tuple[Segment, ...]:
    lengths, blocks, parts = (columns.take("I", count) for _ in range(3))
    starts, counts = columns.take("I", extents), columns.take("I", extents)
    if sum(parts) != extents:
        malformed(WHAT, "its segments do not have as many extents as it says")
    read: list[Segment] = []
    taken = 0
    for length, held, each in zip(lengths, blocks, parts, strict=True):
        at_most(WHAT, "the number of a segment's blocks", held, _MAX_SEGMENT_BLOCKS, 1)
        at_most(WHAT, "the length of a segment", length, held * BLOCK_BYTES * 2 + 1024, 1)
        reference = tuple(map(Extent, starts[taken : taken + each], counts[taken : taken + each]))
        taken += each
        if any(not part.count or part.block + part.count > origin_blocks for part in reference):
            malformed(WHAT, "an extent of what is not in the origin")
        at_most(WHAT, "the length of a reference", sum(part.count for part in reference), _MAX_SEGMENT_BLOCKS)
        read.append(Segment(offset=offset, length=length, blocks=held, reference=reference))
        offset += length
    return tuple(read)


def literals(patch: Patch, stream: BinaryIO, read_origin: ReadAt) -> Iterator[bytes]:
    """Yield the literal blocks in pieces of any whole number of bytes, in the order of the target.

    Args:
        patch: What `read_patch` read.
        stream: The patch; it is sought.
        read_origin: Returns bytes of the origin: offset, length; what is beyond its end counts as zeros.

    Raises:
        DeltaError: A segment cannot be read.
    """
    for segment in patch.segments:
        # What one segment takes is gone before the next one begins.
        yield from _segment(segment, stream, read_origin)


def _segment(segment: Segment, stream: BinaryIO, read_origin: ReadAt) -> Iterator[bytes]:
    # The reference first: it is held once, in the decoder's form, when the frame is read.
    prefix = _prefix(segment, read_origin)
    stream.seek(segment.offset)
    frame = stream.read(segment.length)
    if len(frame) != segment.length:
        malformed(WHAT, "it is cut off")
    yield from _unfold(frame, segment.blocks * BLOCK_BYTES, prefix)


def _prefix(segment: Segment, read_origin: ReadAt) -> zstandard.ZstdCompressionDict | None:
    """Return what a segment was compressed against."""
    reference = bytearray(sum(part.count for part in segment.reference) * BLOCK_BYTES)
    position = 0
    for part in segment.reference:
        end = position + part.count * BLOCK_BYTES
        while position < end and (
            piece := read_origin(
                part.block * BLOCK_BYTES + part.count * BLOCK_BYTES - (end - position),
                min(_PIECE_BYTES, end - position),
            )
        ):
            reference[position : position + len(piece)] = piece
            position += len(piece)
        position = end
    return zstandard.ZstdCompressionDict(reference, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if reference else None


def _unfold(frame: bytes, expected_bytes: int, prefix: zstandard.ZstdCompressionDict | None) -> Iterator[bytes]:
    head = check_frame(WHAT, frame[: _HEAD_OF_FRAME_BYTES + 1], expected_bytes)
    at_most(WHAT, "the window of a segment", head.window_size, MAX_WINDOW_BYTES)
    try:
        decompressor = zstandard.ZstdDecompressor(dict_data=prefix, max_window_size=MAX_WINDOW_BYTES)
        done = 0
        with decompressor.stream_reader(frame, read_across_frames=True) as reader:
            while piece := reader.read(_PIECE_BYTES):
                done += len(piece)
                if done > expected_bytes:
                    break
                yield piece
    except (zstandard.ZstdError, MemoryError) as problem:
        malformed(WHAT, f"a segment that cannot be read ({problem})")
    if done != expected_bytes:
        malformed(WHAT, f"a segment holds another length than the {expected_bytes} bytes that belong there")


def apply_patch(patch: Patch, stream: BinaryIO, read_origin: ReadAt) -> Iterator[bytes | int]:
    """Yield the target from its beginning to its end: bytes, or how many bytes of zeros come next.

    Args:
        patch: What `read_patch` read.
        stream: The patch; it is sought.
        read_origin: Returns bytes of the origin: offset, length; what is beyond its end counts as zeros.

    Raises:
        DeltaError: A segment cannot be read.
    """
    source = literals(patch, stream, read_origin)
    pending = b""
    left = patch.target_size_bytes
    for instruction in patch.instructions():
        length = min(instruction.count * BLOCK_BYTES, left)
        whole = instruction.count * BLOCK_BYTES
        left -= length
        if instruction.kind is InstructionKind.ZEROS:
            yield length
        elif instruction.kind is InstructionKind.COPY:
            at = instruction.origin * BLOCK_BYTES
            for start in range(0, length, _PIECE_BYTES):
                size = min(_PIECE_BYTES, length - start)
                yield read_origin(at + start, size).ljust(size, b"\0")
        else:
            while whole:
                pending = pending or next(source, b"")
                if not pending:
                    malformed(WHAT, "its segments end too early")
                piece, pending = pending[:whole], pending[whole:]
                whole -= len(piece)
                shown = piece[:length]
                length -= len(shown)
                if shown:
                    yield shown
    # The end of the last segment is read as well: what is wrong there is wrong.
    if pending or next(source, b""):
        malformed(WHAT, "its segments hold more than its instructions ask for")
