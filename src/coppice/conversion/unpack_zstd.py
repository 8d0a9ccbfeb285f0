# SPDX-License-Identifier: Apache-2.0
"""Zstandard: own reading of the frames' structure, beside the library that decodes them (RFC 8878, section 3).

The library's stream reader says neither that input ended in the middle of a frame, nor what comes after one. Own code
therefore goes from block to block: it costs a few steps for each 128 KiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from coppice.conversion.refusal import refusal
from coppice.conversion.unpack_input import PIECE_BYTES
from coppice.errors import DecompressionBombError, OversizedImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from coppice.conversion.unpack_input import PackedInput

WINDOW_LIMIT_BYTES = 128 * 1024 * 1024
"""What ``zstd`` itself takes without being told otherwise (``--long=27``)."""
MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_END = b"\x2a\x4d\x18"
_SKIPPABLE_FIRST = range(0x50, 0x60)
_LARGEST_BLOCK = 128 * 1024
_OUTPUT_BYTES = 1024 * 1024
_LARGEST_FRAME_HEADER = 18
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_RAW_BLOCK, _RLE_BLOCK, _COMPRESSED_BLOCK = range(3)


def is_zstd(head: bytes) -> bool:
    """Tell whether the bytes begin a frame, or a frame to be skipped."""
    return head.startswith(MAGIC) or is_skippable(head)


def is_skippable(head: bytes) -> bool:
    """Tell whether the bytes begin a frame that carries no content (section 3.1.2)."""
    return len(head) >= len(MAGIC) and head[0] in _SKIPPABLE_FIRST and head[1:4] == _SKIPPABLE_END


def unpack_zstd(packed: PackedInput, most_bytes: int) -> Iterator[bytes]:
    """Yield what all frames hold, in pieces of at most 1 MiB.

    Args:
        packed: The frames.
        most_bytes: What they may hold together; a frame that says more is refused before it is decoded.

    Raises:
        ImageRefusedError: It is malformed, ends too early, or wants more memory than is given.
    """
    import zstandard

    frames = _Frames(packed, most_bytes)
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES)
    reader = decoder.stream_reader(cast("IO[bytes]", frames), read_size=PIECE_BYTES, read_across_frames=True)
    while True:
        try:
            piece = reader.read(_OUTPUT_BYTES)
        except zstandard.ZstdError as problem:
            raise packed.refuse(
                f"its zstd data cannot be decoded ({problem})", "what is decoded of it would be something else"
            ) from problem
        if not piece:
            break
        yield piece
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
        self._is_last_block = False
        self._has_checksum = False

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end.

        Raises:
            ImageRefusedError: The structure is malformed.
        """
        parts: list[bytes] = []
        length = 0
        while length < size:
            if self._body:
                part = self._packed.take(min(self._body, size - length))
                if not part:
                    self._cut()
                self._body -= len(part)
            else:
                part = self._structure()
                if not part:
                    break
            # What is handed on may be a few bytes more than was asked for: the library takes any length.
            parts.append(part)
            length += len(part)
        return b"".join(parts)

    def _structure(self) -> bytes:
        """Return the next header, or checksum; empty at the end."""
        if self._is_in_frame:
            return self._checksum() if self._is_last_block else self._block_header()
        head = self._packed.peek(_LARGEST_FRAME_HEADER)
        if not head:
            return b""
        if is_skippable(head):
            self._body = int.from_bytes(self._packed.peek(8)[4:8], "little")
            return self._exactly(8)
        if not head.startswith(MAGIC):
            raise self._packed.refuse(
                "something follows its zstd data that is none", "each program would see another disk"
            )
        return self._frame_header(head)

    def _frame_header(self, head: bytes) -> bytes:
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
        return header

    def _block_header(self) -> bytes:
        """Section 3.1.1.2."""
        header = self._exactly(3)
        value = int.from_bytes(header, "little")
        self._is_last_block, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
        if kind > _COMPRESSED_BLOCK or size > _LARGEST_BLOCK:
            raise self._packed.refuse(
                f"a block of its zstd data is of the kind {kind} and has {size} bytes", "there are none such"
            )
        self._body = 1 if kind == _RLE_BLOCK else size
        return header

    def _checksum(self) -> bytes:
        self._is_in_frame = False
        return self._exactly(4) if self._has_checksum else self._structure()

    def _exactly(self, length: int) -> bytes:
        found = self._packed.peek(length)
        if len(found) < length:
            self._cut()
        return self._packed.take(length)

    def _cut(self) -> NoReturn:
        raise self._packed.refuse("it ends in the middle of its zstd data", "the rest of the disk is missing")


def _window_bytes(descriptor: int) -> int:
    """Section 3.1.1.1.2."""
    base = 1 << (10 + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)
