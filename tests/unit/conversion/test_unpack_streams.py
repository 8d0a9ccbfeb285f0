# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from coppice.conversion import unpack_input, unpack_streams
from coppice.conversion.model import Compression
from coppice.conversion.unpack_input import PackedInput
from coppice.conversion.unpack_streams import compression_of, inflated_member, unpacked
from coppice.conversion.unpack_zip import read_zip
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, DecompressionBombError, ImageRefusedError
from coppice.testing.packings import (
    DISK,
    Zipped,
    bzip2_stream,
    gzip_member,
    xz_stream,
    zip_file,
    zstd_block,
    zstd_frame,
    zstd_raw,
    zstd_skippable,
    zstd_zeros,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit
MIB = 1024 * 1024
SHORT = DISK[65536:65792] * 2 + bytes(512)
PACKERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip_member,
    Compression.BZIP2: bzip2_stream,
    Compression.XZ: xz_stream,
    Compression.ZSTD: zstd_raw,
    Compression.ZIP: lambda content: zip_file(Zipped(content=content)),
}
STREAMS = sorted({*PACKERS} - {Compression.ZIP})


def content_of(kind: Compression, packed: bytes, most: int = 4 * MIB) -> bytes:
    window = BytesWindow(packed)
    if kind is not Compression.ZIP:
        return b"".join(unpacked(kind, PackedInput(window, "image"), most))
    found = read_zip(window, "image")
    source = PackedInput(window, "image", start=found.offset, end=found.offset + found.packed_bytes)
    if found.is_stored:
        return source.take(most)
    return b"".join(inflated_member(source, min(most, found.size_bytes), found.crc32))


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_a_compression_is_known_by_its_first_bytes(kind: Compression) -> None:
    assert compression_of(PACKERS[kind](SHORT)[:512]) is kind


@pytest.mark.parametrize(
    "head", [b"", b"\x1f\x8b", b"\x1f\x8b\x07", b"BZh", b"BZh9not a block", b"BZh01AY&SY", b"PK\x05\x06"]
)
def test_what_merely_begins_alike_is_not_compressed(head: bytes) -> None:
    assert compression_of(head) is None


@pytest.mark.threat("T66")
@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_every_beginning_of_a_packed_file_is_refused(kind: Compression) -> None:
    whole = PACKERS[kind](SHORT)
    assert content_of(kind, whole) == SHORT
    for length in range(1, len(whole)):
        with pytest.raises(ImageRefusedError):
            content_of(kind, whole[:length])


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_a_byte_changed_anywhere_gives_what_it_says_or_a_refusal(kind: Compression) -> None:
    whole = PACKERS[kind](SHORT)
    for at in range(0, len(whole), 1 if kind is not Compression.BZIP2 else 5):
        for change in (0x01, 0x80, 0xFF):
            altered = bytearray(whole)
            altered[at] ^= change
            with contextlib.suppress(ImageRefusedError):
                content_of(kind, bytes(altered))


@pytest.mark.threat("T66")
@pytest.mark.parametrize("kind", [Compression.BZIP2, Compression.GZIP, Compression.XZ])
def test_a_changed_content_is_seen_by_its_checksum(kind: Compression) -> None:
    whole = PACKERS[kind](SHORT)
    for at in range(len(whole) // 3, len(whole) // 2, 7):
        altered = bytearray(whole)
        altered[at] ^= 0x10
        with pytest.raises(CorruptImageError):
            content_of(kind, bytes(altered))


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_noise_behind_a_signature_is_refused(kind: Compression) -> None:
    noise = random.Random(7)  # noqa: S311 - content for a test
    head = PACKERS[kind](SHORT)[: 10 if kind is not Compression.ZSTD else 4]
    for _ in range(50):
        with pytest.raises(ImageRefusedError):
            content_of(kind, head + noise.randbytes(noise.randrange(1, 3000)))


@pytest.mark.parametrize("kind", STREAMS)
def test_pieces_are_small_however_much_they_stand_for(kind: Compression) -> None:
    packed = zstd_zeros(4 * MIB) if kind is Compression.ZSTD else PACKERS[kind](bytes(4 * MIB))
    sizes = [len(piece) for piece in unpacked(kind, PackedInput(BytesWindow(packed), "image"), 4 * MIB)]
    assert sum(sizes) == 4 * MIB
    assert max(sizes) <= MIB


@pytest.mark.threat("T65")
@pytest.mark.parametrize("kind", STREAMS)
def test_no_more_is_unpacked_than_is_allowed(kind: Compression) -> None:
    packed = zstd_zeros(4 * MIB) if kind is Compression.ZSTD else PACKERS[kind](bytes(4 * MIB))
    done = 0
    with pytest.raises(DecompressionBombError):  # noqa: PT012 - it is raised in the middle
        for piece in unpacked(kind, PackedInput(BytesWindow(packed), "image"), 3 * MIB):
            done += len(piece)
    assert done <= 3 * MIB


@pytest.mark.parametrize("kind", STREAMS)
def test_many_tiny_streams_are_read_without_copying_what_follows_each(kind: Compression) -> None:
    class Watched(BytesWindow):
        taken = 0

        def read(self, start: int, length: int) -> bytes:
            self.taken += length
            return super().read(start, length)

    one = PACKERS[kind](b"x")
    window = Watched(one * 3000)
    assert b"".join(unpacked(kind, PackedInput(window, "image"), MIB)) == b"x" * 3000
    assert window.taken <= 2 * window.size_bytes


@pytest.mark.threat("T65")
def test_a_window_of_128_mib_is_given_and_no_more() -> None:
    blocks = [zstd_block(SHORT)]
    assert content_of(Compression.ZSTD, zstd_frame(*blocks, window=17 << 3)) == SHORT
    with pytest.raises(DecompressionBombError, match="window"):
        content_of(Compression.ZSTD, zstd_frame(*blocks, window=17 << 3 | 1))


def test_a_frame_may_state_its_content_in_each_of_the_lengths() -> None:
    for descriptor, fields in (
        (0x20, bytes([100])),
        (0x40, (1024 - 256).to_bytes(2, "little")),
        (0x80, (1024).to_bytes(4, "little")),
        (0xC0, (1024).to_bytes(8, "little")),
        (0xC1, b"\0" + (1024).to_bytes(8, "little")),
    ):
        content = SHORT[:100] if descriptor == 0x20 else SHORT
        frame = zstd_frame(zstd_block(content), descriptor=descriptor, fields=fields)
        assert content_of(Compression.ZSTD, frame) == content


def test_where_something_is_found_is_told_in_bytes_of_the_file() -> None:
    whole = gzip_member(SHORT)
    with pytest.raises(CorruptImageError) as found:
        content_of(Compression.GZIP, whole + b"garbage")
    assert found.value.context["offset"] == len(whole)


@pytest.mark.parametrize("count", [1, 1000, 300_000])
def test_frames_to_be_skipped_are_skipped_wherever_they_are(count: int) -> None:
    skipped = zstd_skippable(bytes(count))
    assert content_of(Compression.ZSTD, skipped + zstd_raw(SHORT) + skipped + zstd_raw(SHORT) + skipped) == SHORT * 2


@pytest.mark.parametrize("length", [1, 2, 3, 5, 17, 18, 19, 100, 1000])
def test_it_does_not_matter_where_what_is_read_at_once_ends(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_input, "PIECE_BYTES", length)
    skipped = zstd_skippable(b"s" * 30)
    bare = zstd_frame(zstd_block(SHORT[:100]), zstd_block(b""))
    whole = skipped + zstd_raw(SHORT) + bare + zstd_skippable(b"") + zstd_raw(SHORT) + bare
    assert content_of(Compression.ZSTD, whole) == (SHORT + SHORT[:100]) * 2
    ends = {len(skipped), len(skipped + zstd_raw(SHORT)), len(skipped + zstd_raw(SHORT) + bare)}
    for cut in range(len(skipped), len(skipped + zstd_raw(SHORT) + bare) + 1):
        if cut in ends:
            assert content_of(Compression.ZSTD, whole[:cut]) in (b"", SHORT, SHORT + SHORT[:100])
            continue
        with pytest.raises(CorruptImageError, match=r"in the middle|follows") as found:
            content_of(Compression.ZSTD, whole[:cut])
        assert cut - 18 < found.value.context["offset"] <= cut
    with pytest.raises(CorruptImageError, match="follows") as found:
        content_of(Compression.ZSTD, whole + b"garbage")
    assert found.value.context["offset"] == len(whole)


def test_what_was_let_go_of_is_not_handed_on() -> None:
    packed = PackedInput(BytesWindow(SHORT), "image")
    assert packed.held_bytes == 0
    assert packed.peek(10) == SHORT[:10]
    assert packed.held_bytes == len(SHORT)
    packed.go_past(30)
    assert (packed.offset, bytes(packed.gone_past(20))) == (30, SHORT[10:30])
    with pytest.raises(ValueError, match="in memory"):
        packed.gone_past(31)


def test_lent_memory_is_given_back_when_the_next_piece_is_asked_for() -> None:
    class Lender:
        lent: bytearray | None = None
        count = 0

        def take(self) -> bytearray:
            assert self.lent is None
            self.lent = bytearray(b"?" * MIB)
            self.count += 1
            return self.lent

        def give_back(self, buffer: bytearray) -> None:
            assert buffer is self.lent
            self.lent = None

    lender = Lender()
    content = []
    for piece in unpacked(Compression.ZSTD, PackedInput(BytesWindow(zstd_raw(DISK * 40)), "image"), 8 * MIB, lender):
        assert lender.lent is not None
        content.append(bytes(piece))
    assert b"".join(content) == DISK * 40
    assert lender.count > 2


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    class Shrinking(BytesWindow):
        def read(self, start: int, length: int) -> bytes:
            return super().read(start, length) if start == 0 else b""

    window = Shrinking(zstd_raw(DISK * 4))
    with pytest.raises(CorruptImageError, match="shorter"):
        list(unpacked(Compression.ZSTD, PackedInput(window, "image"), MIB))


def test_memory_that_cannot_be_had_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        eof, needs_input, unused_data = False, True, b""

        def decompress(self, data: bytes, max_length: int) -> bytes:
            raise MemoryError

    monkeypatch.setitem(unpack_streams._MAKERS, Compression.XZ, Greedy)
    with pytest.raises(DecompressionBombError, match="memory"):
        content_of(Compression.XZ, xz_stream(SHORT))
