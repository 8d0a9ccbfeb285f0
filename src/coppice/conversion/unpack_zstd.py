# SPDX-License-Identifier: Apache-2.0
"""Zstandard: own reading of the frames' structure, beside the library that decodes them (RFC 8878, section 3).

The library's stream reader says neither that input ended in the middle of a frame, nor what comes after one. Own code
therefore goes from block to block: it costs a few steps for each 128 KiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from coppice.conversion.refusal import refusal
from coppice.conversion.unpack_buffers import FreshBuffers
from coppice.conversion.unpack_input import PIECE_BYTES
from coppice.errors import DecompressionBombError, OversizedImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from coppice.conversion.unpack_buffers import Buffers
    from coppice.conversion.unpack_input import PackedInput

WINDOW_LIMIT_BYTES = 128 * 1024 * 1024
"""What ``zstd`` itself takes without being told otherwise (``--long=27``)."""
MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_END = b"\x2a\x4d\x18"
_SKIPPABLE_FIRST = range(0x50, 0x60)
_LARGEST_BLOCK = 128 * 1024
_LARGEST_FRAME_HEADER = 18
_BLOCK_HEADER = 3
_CHECKSUM = 4
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_RAW_BLOCK, _RLE_BLOCK, _COMPRESSED_BLOCK = range(3)


def is_zstd(head: bytes) -> bool:
    """Tell whether the bytes begin a frame, or a frame to be skipped."""
    return head.startswith(MAGIC) or is_skippable(head)


def is_skippable(head: bytes) -> bool:
    """Tell whether the bytes begin a frame that carries no content (section 3.1.2)."""
    return len(head) >= len(MAGIC) and head[0] in _SKIPPABLE_FIRST and head[1:4] == _SKIPPABLE_END


def unpack_zstd(packed: PackedInput, most_bytes: int, buffers: Buffers | None = None) -> Iterator[bytes | bytearray]:
    """Yield what all frames hold, in pieces of at most 1 MiB.

    Args:
        packed: The frames.
        most_bytes: What they may hold together; a frame that says more is refused before it is decoded.
        buffers: Lends the memory of the pieces; a piece is given back when the next one is asked for. None: each piece
            may be kept.

    Raises:
        ImageRefusedError: It is malformed, ends too early, or wants more memory than is given.
    """
    import zstandard

    lender = FreshBuffers() if buffers is None else buffers
    frames = _Frames(packed, most_bytes)
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES)
    reader = decoder.stream_reader(cast("IO[bytes]", frames), read_size=PIECE_BYTES, read_across_frames=True)
    while True:
        buffer = lender.take()
        try:
            count = reader.readinto(buffer)
        except zstandard.ZstdError as problem:
            raise packed.refuse(
                f"its zstd data cannot be decoded ({problem})", "what is decoded of it would be something else"
            ) from problem
        if not count:
            break
        yield buffer if count == len(buffer) else bytes(memoryview(buffer)[:count])
        lender.give_back(buffer)
    if frames.read(1):
        raise packed.refuse("its zstd data goes on where the decoder stops", "each program would see another disk")


class _Frames:
    """A file, as the library reads it: hands on what it has checked the structure of."""

    def __init__(self, packed: PackedInput, most_bytes: int) -> None:
        self._packed = packed
        self._most_bytes = most_bytes
        self._body = 0
        """How many bytes of the block that was begun are still to come."""
        self._is_in_frame = False
        """Whether a block's header, or the checksum, comes after that."""
        self._is_last_block = False
        self._has_checksum = False

    def read(self, _: int) -> memoryview:
        """Return some of the next bytes, as they lie in memory; none at the end.

        How many the library asks for does not matter: it takes any number.

        Raises:
            ImageRefusedError: The structure is malformed.
        """
        packed = self._packed
        packed.peek(_LARGEST_FRAME_HEADER)
        begin = packed.offset
        while held := packed.held_bytes:
            if self._body:
                length = min(self._body, held)
                packed.go_past(length)
                self._body -= length
            elif held < self._next_bytes() and packed.offset > begin:
                break  # more has to be read for what comes next, and that puts other bytes in the place of these
            else:
                self._structure()
        length = packed.offset - begin
        if not length and (self._body or self._is_in_frame):
            self._cut()
        return packed.gone_past(length)

    def _next_bytes(self) -> int:
        """Return how long the next header, or checksum, is at the most."""
        if not self._is_in_frame:
            return _LARGEST_FRAME_HEADER
        return _CHECKSUM if self._is_last_block else _BLOCK_HEADER

    def _structure(self) -> None:
        """Go past the next header, or checksum."""
        if not self._is_in_frame:
            self._frame_header(self._packed.peek(_LARGEST_FRAME_HEADER))
        elif not self._is_last_block:
            self._block_header()
        else:
            self._exactly(_CHECKSUM)
            self._is_in_frame = False

    def _frame_header(self, head: bytes) -> None:
        """Section 3.1."""
        if is_skippable(head):
            self._body = int.from_bytes(self._exactly(8)[4:], "little")
        elif head.startswith(MAGIC):
            self._content_header(head)
        else:
            raise self._packed.refuse(
                "something follows its zstd data that is none", "each program would see another disk"
            )

    def _content_header(self, head: bytes) -> None:
        """Section 3.1.1.1."""
        descriptor = head[4] if len(head) > 4 else self._cut()  # noqa: PLR2004 - after the magic number
        is_single_segment = bool(descriptor & 0x20)
        if descriptor & 0x08:
            raise self._packed.refuse("its zstd header has a reserved bit", "nobody knows what that means")
        dictionary = _DICTIONARY_BYTES[descriptor & 3]
        content = _CONTENT_SIZE_BYTES[descriptor >> 6] or (1 if is_single_segment else 0)
        at = 5 + (0 if is_single_segment else 1)
        header = self._exactly(at + dictionary + content)
        if int.from_bytes(header[at : at + dictionary], "little"):
            raise self._packed.refuse(
                "its zstd data needs a dictionary", "it is not in the file", kind=UnsupportedImageError
            )
        stated = int.from_bytes(header[at + dictionary :], "little") + (256 if content == 2 else 0)  # noqa: PLR2004 - RFC 8878
        if stated > self._most_bytes:
            raise refusal(
                OversizedImageError,
                self._packed.name,
                f"its zstd header states {stated} bytes of content",
                offset=self._packed.offset - len(header),
                why=f"at most {self._most_bytes} are taken from a file of this length",
            )
        window = stated if is_single_segment else _window_bytes(header[5])
        if window > WINDOW_LIMIT_BYTES:
            raise self._packed.refuse(
                f"its zstd data wants a window of {window} bytes",
                f"at most {WINDOW_LIMIT_BYTES} of memory are given",
                kind=DecompressionBombError,
            )
        self._is_in_frame, self._is_last_block = True, False
        self._has_checksum = bool(descriptor & 0x04)

    def _block_header(self) -> None:
        """Section 3.1.1.2."""
        header = self._exactly(_BLOCK_HEADER)
        value = int.from_bytes(header, "little")
        self._is_last_block, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
        if kind > _COMPRESSED_BLOCK or size > _LARGEST_BLOCK:
            raise self._packed.refuse(
                f"a block of its zstd data is of the kind {kind} and has {size} bytes", "there are none such"
            )
        self._body = 1 if kind == _RLE_BLOCK else size
        self._is_in_frame = self._has_checksum or not self._is_last_block

    def _exactly(self, length: int) -> bytes:
        found = self._packed.peek(length)
        if len(found) < length:
            self._cut()
        self._packed.go_past(length)
        return found

    def _cut(self) -> NoReturn:
        raise self._packed.refuse("it ends in the middle of its zstd data", "the rest of the disk is missing")


def _window_bytes(descriptor: int) -> int:
    """Section 3.1.1.1.2."""
    base = 1 << (10 + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)
