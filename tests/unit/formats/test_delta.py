# SPDX-License-Identifier: Apache-2.0
"""The files of a delta: what is written is read; what is not in order is refused, quickly and in little memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coppice.errors import DeltaError
from coppice.formats import delta_index, delta_patch
from coppice.formats.delta import (
    BLOCK_BYTES,
    HASH_BYTES,
    MAX_GUEST_BYTES,
    MAX_RUNS,
    Extent,
    IndexWriter,
    PackLayout,
    PackWriter,
    PatchWriter,
    apply_patch,
    block_hash,
    literals,
    read_index,
    read_pack_layout,
    read_pack_table,
    read_patch,
    unpack_frame,
)
from coppice.formats.delta_pack import TAIL_BYTES
from coppice.model.checksum import Checksum

pytestmark = [pytest.mark.unit, pytest.mark.threat("T57")]
DIGEST = Checksum.of(b"")
LAYOUT = PackLayout(blocks=10, frame_blocks=4, table_bytes=20)


def block(number: int) -> bytes:
    return number.to_bytes(4, "little") * (BLOCK_BYTES // 4)


def an_index(*, size: int = 6 * BLOCK_BYTES) -> bytes:
    writer = IndexWriter([LAYOUT])
    writer.zeros(2)
    for number in (3, 4, 9):
        writer.block(block_hash(block(number)), pack=0, number=number)
    writer.zeros()
    return writer.finish(guest_size_bytes=size, guest_checksum=DIGEST)


def a_pack(count: int = 10, frame_blocks: int = 4) -> tuple[bytes, PackLayout]:
    stream = io.BytesIO()
    writer = PackWriter(stream, frame_blocks=frame_blocks)
    for number in range(count):
        assert writer.add(block(number)) == number
    layout = writer.finish()
    return stream.getvalue(), layout


ORIGIN = b"".join(map(block, range(1, 9)))


def a_patch() -> tuple[bytes, bytes]:
    """Return a patch from ORIGIN and what it makes."""
    segments = io.BytesIO()
    writer = PatchWriter(segments)
    writer.zeros(2)
    writer.copy(2, 3)
    writer.literal(2)
    writer.copy(0)
    writer.literal()
    new = [block(7)[:-9] + bytes(9), block(40), block(41)]
    writer.segment(b"".join(new[:2]), ORIGIN[6 * BLOCK_BYTES : 8 * BLOCK_BYTES], [Extent(6, 2)])
    writer.segment(new[2], b"", [])
    target = bytes(2 * BLOCK_BYTES) + ORIGIN[2 * BLOCK_BYTES : 5 * BLOCK_BYTES] + new[0] + new[1] + block(1) + new[2]
    target = target[:-100]
    head = writer.finish(
        target_size_bytes=len(target),
        target_checksum=Checksum.of(target),
        origin_size_bytes=len(ORIGIN),
        origin_checksum=Checksum.of(ORIGIN),
    )
    return head + segments.getvalue(), target


def made_of(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    patch = read_patch(stream, size_bytes=len(data))
    pieces = apply_patch(patch, stream, lambda offset, length: ORIGIN[offset : offset + length])
    return b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)


def test_an_index_is_read_as_it_was_written() -> None:
    index = read_index(an_index())
    assert [(run.block, run.count, run.pack, run.first, run.hashes) for run in index.runs()] == [
        (0, 2, None, 0, 0),
        (2, 2, 0, 3, 0),
        (4, 1, 0, 9, 2),
        (5, 1, None, 0, 3),
    ]
    assert index.packs == (LAYOUT,)
    assert index.hash_at(2) == block_hash(block(9))


def test_a_pack_is_read_as_it_was_written() -> None:
    data, layout = a_pack()
    assert read_pack_layout(data[-TAIL_BYTES:]) == layout
    start, length = layout.table_range(len(data))
    offsets = read_pack_table(data[start : start + length], layout, pack_bytes=len(data))
    unpacked = b"".join(
        unpack_frame(data[offsets[frame] : offsets[frame + 1]], layout, frame) for frame in range(layout.frames)
    )
    assert unpacked == b"".join(map(block, range(10)))


def test_a_patch_makes_what_it_was_made_for() -> None:
    data, target = a_patch()
    assert made_of(data) == target


@given(st.lists(st.tuples(st.sampled_from("zcl"), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_any_patch_makes_what_it_was_made_for(steps: list[tuple[str, int, int]]) -> None:
    segments = io.BytesIO()
    writer, target, new = PatchWriter(segments), b"", b""
    for kind, count, start in steps:
        if kind == "z":
            writer.zeros(count)
            target += bytes(count * BLOCK_BYTES)
        elif kind == "c":
            writer.copy(start, count)
            target += ORIGIN[start * BLOCK_BYTES : (start + count) * BLOCK_BYTES]
        else:
            writer.literal(count)
            fresh = b"".join(block(100 + start + each) for each in range(count))
            new, target = new + fresh, target + fresh
    for at in range(0, len(new), 3 * BLOCK_BYTES):
        writer.segment(new[at : at + 3 * BLOCK_BYTES], ORIGIN[:BLOCK_BYTES], [Extent(0, 1)])
    head = writer.finish(
        target_size_bytes=len(target), target_checksum=DIGEST, origin_size_bytes=len(ORIGIN), origin_checksum=DIGEST
    )
    assert made_of(head + segments.getvalue()) == target


@given(st.data())
def test_no_change_of_a_byte_does_anything_but_what_is_declared(data: st.DataObject) -> None:
    index, (pack, layout), (patch, _) = an_index(), a_pack(), a_patch()
    chosen = data.draw(st.sampled_from([index, pack, patch]))
    at = data.draw(st.integers(0, len(chosen) - 1))
    changed = chosen[:at] + bytes([data.draw(st.integers(0, 255))]) + chosen[at + 1 :]
    changed = changed[: data.draw(st.just(len(changed)) | st.integers(0, len(changed)))]
    with suppress(DeltaError):
        if chosen is index:
            list(read_index(changed).runs())
        elif chosen is patch:
            made_of(changed)
        else:
            start, length = layout.table_range(len(changed))
            offsets = read_pack_table(changed[start : start + length], layout, pack_bytes=len(changed))
            for frame in range(layout.frames):
                unpack_frame(changed[offsets[frame] : offsets[frame + 1]], layout, frame)


@settings(max_examples=200)
@given(st.binary(max_size=400))
@example(b"CoppIdx1")
@example(b"CoppPat1")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(DeltaError):
        read_index(data)
    with suppress(DeltaError):
        made_of(data)
    with suppress(DeltaError):
        read_pack_table(data, LAYOUT, pack_bytes=len(data) + 30)
    with suppress(DeltaError):
        unpack_frame(data, LAYOUT, 1)


def forged_index(runs: list[tuple[int, int, int]], *, size: int, hashes: int, packs: int = 1) -> bytes:
    table = struct.pack("<IHI", 10, 4, 20) * 0
    table += struct.pack(f"<{packs}I", *[10] * packs) + struct.pack(f"<{packs}H", *[4] * packs)
    table += struct.pack(f"<{packs}I", *[20] * packs)
    for code, column in zip("IHI", zip(*runs, strict=True), strict=True):
        table += struct.pack(f"<{len(runs)}{code}", *column)
    packed = zstandard.ZstdCompressor().compress(table)
    head = delta_index._HEAD.pack(b"CoppIdx1", BLOCK_BYTES, size, bytes(64), packs, len(runs), hashes, len(packed))
    return head + packed + bytes(hashes * HASH_BYTES)


@pytest.mark.parametrize(
    ("runs", "size", "hashes", "said"),
    [
        ([(1, 0, 9), (1, 0, 10)], 2, 2, "in no pack"),
        ([(2, 0, 9)], 2, 2, "in no pack"),
        ([(2, 1, 0)], 2, 2, "in no pack"),
        ([(2, 0, 0)], 3, 2, "not 3"),
        ([(2, 0, 0)], 2, 1, "not 2 with 1"),
        ([(0, 0, 0), (2, 0, 0)], 2, 2, "no blocks"),
        ([(2, 0xFFFF, 1)], 2, 0, "zeros that says"),
        ([(0xFFFFFFFF, 0xFFFF, 0)] * 3, 2, 0, "not 2"),
    ],
)
def test_an_index_whose_runs_do_not_fit_is_refused(
    runs: list[tuple[int, int, int]], size: int, hashes: int, said: str
) -> None:
    with pytest.raises(DeltaError, match=said):
        read_index(forged_index(runs, size=size * BLOCK_BYTES, hashes=hashes))


@pytest.mark.parametrize(
    ("size", "packs", "runs", "hashes", "table"),
    [
        (0, 1, 1, 0, 1),
        (MAX_GUEST_BYTES + 1, 1, 1, 0, 1),
        (BLOCK_BYTES, 33, 1, 0, 1),
        (BLOCK_BYTES, 1, MAX_RUNS + 1, 0, 1),
        (BLOCK_BYTES, 1, 1, 0xFFFFFFFF, 1),
        (BLOCK_BYTES, 1, 1, 0, 0xFFFFFFFF),
        (MAX_GUEST_BYTES, 32, MAX_RUNS, 1 << 24, 1),
    ],
)
def test_numbers_beyond_the_limits_are_refused_before_room_is_made(
    size: int, packs: int, runs: int, hashes: int, table: int
) -> None:
    head = delta_index._HEAD.pack(b"CoppIdx1", BLOCK_BYTES, size, bytes(64), packs, runs, hashes, table)
    tracemalloc.start()
    try:
        with pytest.raises(DeltaError):
            read_index(head + b"x")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_compressed_bytes_that_promise_or_hold_too_much_are_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * 1024 * 1024))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4 * BLOCK_BYTES))
    right = zstandard.ZstdCompressor().compress(bytes(4 * BLOCK_BYTES))
    assert unpack_frame(right, LAYOUT, 0) == bytes(4 * BLOCK_BYTES)
    for frame in (bomb, silent, right + b"x", right + right, right[:-1], b"", right[4:]):
        with pytest.raises(DeltaError):
            unpack_frame(frame, LAYOUT, 0)
    with pytest.raises(DeltaError):
        unpack_frame(right, LAYOUT, 3)


def test_a_table_that_leads_out_of_its_pack_is_refused() -> None:
    data, layout = a_pack()
    start, length = layout.table_range(len(data))
    table = data[start : start + length]
    for other in (len(data) + 1, len(data) - 1, length, 0):
        with pytest.raises(DeltaError):
            read_pack_table(table, layout, pack_bytes=other)
    for lengths in ([0, 1, 1], [0xFFFFFFFF] * 3):
        forged = zstandard.ZstdCompressor().compress(struct.pack("<3I", *lengths))
        with pytest.raises(DeltaError):
            read_pack_table(forged, layout, pack_bytes=len(data))


def forged_patch(
    instructions: list[tuple[int, int, int]], segments: list[tuple[int, int, list[tuple[int, int]]]]
) -> bytes:
    extents = [each for _, _, parts in segments for each in parts]
    table = b"".join(
        struct.pack(f"<{len(instructions)}{code}", *column)
        for code, column in zip("BII", zip(*instructions, strict=True), strict=True)
    )
    for code in range(2):
        table += struct.pack(f"<{len(segments)}I", *[each[code] for each in segments])
    table += struct.pack(f"<{len(segments)}I", *[len(each[2]) for each in segments])
    for part in range(2):
        table += struct.pack(f"<{len(extents)}I", *[each[part] for each in extents])
    packed = zstandard.ZstdCompressor().compress(table)
    head = delta_patch.HEAD.pack(
        b"CoppPat1", BLOCK_BYTES, 4 * BLOCK_BYTES, bytes(64), 8 * BLOCK_BYTES, bytes(64),
        len(instructions), len(segments), len(extents), len(packed),
    )  # fmt: skip
    return head + packed + b"".join(bytes(length) for length, _, _ in segments)


@pytest.mark.parametrize(
    ("instructions", "segments", "said"),
    [
        ([(1, 4, 5)], [], "not in the origin"),
        ([(1, 4, 0xFFFFFFFF)], [], "not in the origin"),
        ([(0, 3, 0)], [], "not 4"),
        ([(0, 4, 1)], [], "does not copy"),
        ([(3, 4, 0)], [], "makes nothing"),
        ([(0, 4, 0), (0, 0, 0)], [], "makes nothing"),
        ([(2, 4, 0)], [], "do not hold as many"),
        ([(2, 4, 0)], [(10, 3, [])], "do not hold as many"),
        ([(2, 4, 0)], [(10, 4, [(8, 1)])], "an extent of what is not"),
        ([(2, 4, 0)], [(10, 4, [(0, 0)])], "an extent of what is not"),
        ([(2, 4, 0)], [(10, 4, [(0, 8)] * 2049)], "length of a reference"),
        ([(2, 4, 0)], [(0, 4, [])], "length of a segment"),
        ([(2, 4, 0)], [(10, 20000, [])], "segment's blocks"),
        ([(2, 4, 0)], [(10, 4, [])], "cannot be read"),
    ],
)
def test_a_patch_whose_parts_do_not_fit_is_refused(
    instructions: list[tuple[int, int, int]], segments: list[tuple[int, int, list[tuple[int, int]]]], said: str
) -> None:
    with pytest.raises(DeltaError, match=said):
        made_of(forged_patch(instructions, segments))


def test_a_segment_whose_window_is_too_large_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=4 * BLOCK_BYTES)
    frame = bytearray(compressor.compress(bytes(4 * BLOCK_BYTES)) + compressor.flush())
    forged = forged_patch([(2, 4, 0)], [(len(frame), 4, [])])
    head = forged[: -len(frame)]
    # Not a single segment, with a window of 256 MiB: RFC 8878, 3.1.1.1.
    frame[4] &= ~0x20
    frame[5:5] = bytes([(28 - 10) << 3])
    with pytest.raises(DeltaError):
        made_of(forged_patch([(2, 4, 0)], [(len(frame), 4, [])])[: len(head)] + bytes(frame))


def test_the_literal_blocks_alone_can_be_had() -> None:
    data, _ = a_patch()
    stream = io.BytesIO(data)
    patch = read_patch(stream, size_bytes=len(data))
    new = b"".join(literals(patch, stream, lambda offset, length: ORIGIN[offset : offset + length]))
    assert new == block(7)[:-9] + bytes(9) + block(40) + block(41)
