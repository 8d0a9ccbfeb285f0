# SPDX-License-Identifier: Apache-2.0
"""What is compressed as one stream or several in a row, unpacked piece by piece: gzip, bzip2, xz, zstd, deflate.

Several streams in a row are one file (RFC 1952 section 2.2; the ``.xz`` format, section 2); whatever else follows is
refused, as is a stream that ends too early: the standard library is silent about both.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from coppice.conversion.model import Compression
from coppice.conversion.refusal import refusal
from coppice.conversion.unpack_input import PIECE_BYTES
from coppice.conversion.unpack_zstd import is_zstd, unpack_zstd
from coppice.errors import DecompressionBombError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.conversion.unpack_buffers import Buffers
    from coppice.conversion.unpack_input import PackedInput

_Piece = TypeVar("_Piece", bytes, bytes | bytearray)
_OUTPUT_BYTES = 1024 * 1024
_XZ_MEMORY_BYTES = 128 * 1024 * 1024
"""``xz -9`` needs 65 MiB to be read."""
_FIRST_FEED_BYTES = 4096
_XZ_MAGIC = b"\xfd7zXZ\x00"
_XZ_PADDING_UNIT = 4
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE = 8
_ZIP_MAGIC = b"PK\x03\x04"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
"""What the first block begins with, and what an empty stream has instead."""


def compression_of(head: bytes) -> Compression | None:
    """Return how the file that begins with ``head`` is compressed; None: not at all, or in no way that is known."""
    if head.startswith(_GZIP_MAGIC) and len(head) > len(_GZIP_MAGIC) and head[2] == _DEFLATE:
        return Compression.GZIP
    if _is_bzip2(head):
        return Compression.BZIP2
    if head.startswith(_XZ_MAGIC):
        return Compression.XZ
    if is_zstd(head):
        return Compression.ZSTD
    return Compression.ZIP if head.startswith(_ZIP_MAGIC) else None


def unpacked(
    compression: Compression, packed: PackedInput, most_bytes: int, buffers: Buffers | None = None
) -> Iterator[bytes | bytearray]:
    """Yield what is packed, in pieces of at most 1 MiB.

    Args:
        compression: How; not a zip, whose members `coppice.conversion.unpack_zip` finds.
        packed: The packed bytes.
        most_bytes: As many are unpacked, and no more.
        buffers: Lends the memory of the pieces to decoders that can use it; a piece is given back when the next one is
            asked for. None: each piece may be kept.

    Raises:
        DecompressionBombError: There are more, or reading them takes more memory than is given.
        ImageRefusedError: It is malformed, ends too early, or something else follows.
    """
    if compression is Compression.ZSTD:
        return _bounded(unpack_zstd(packed, most_bytes, buffers), packed, most_bytes)
    return _bounded(_streams(compression, packed), packed, most_bytes)


def inflated_member(packed: PackedInput, size_bytes: int, crc32: int) -> Iterator[bytes]:
    """Yield a deflated member of a zip, which has to end where ``packed`` does.

    Args:
        packed: A bare deflate stream (RFC 1951).
        size_bytes: Length of the member, as the zip has it.
        crc32: Of its bytes, as the zip has it.

    Raises:
        CorruptImageError: It is malformed, goes on, or is not what the zip says.
    """
    total, checksum = 0, 0
    for piece in _in_memory(_one(_Inflater(-zlib.MAX_WBITS), packed, "deflate"), packed):
        packed.check_time()
        total, checksum = total + len(piece), zlib.crc32(piece, checksum)
        if total > size_bytes:
            break
        yield piece
    if total != size_bytes or checksum != crc32:
        raise packed.refuse(
            f"its member is another one than the zip states ({size_bytes} bytes, checksum {crc32:08x})",
            "it was altered, or made to mislead",
        )
    if packed.peek(1):
        raise packed.refuse("something follows its deflate data", "each program would see another disk")


def check_stored(packed: PackedInput, crc32: int) -> None:
    """See to it that what lies in a zip as it is has the checksum that the zip states.

    Raises:
        CorruptImageError: It has not.
    """
    found = 0
    while piece := packed.take():
        found = zlib.crc32(piece, found)
    if found != crc32:
        raise packed.refuse(
            f"its member has the checksum {found:08x}, and the zip states {crc32:08x}", "it was altered, or is damaged"
        )


def _bounded(pieces: Iterator[_Piece], packed: PackedInput, most_bytes: int) -> Iterator[_Piece]:
    total = 0
    for piece in _in_memory(pieces, packed):
        packed.check_time()
        total += len(piece)
        if total > most_bytes:
            raise refusal(
                DecompressionBombError,
                packed.name,
                f"it unpacks to more than {most_bytes} bytes",
                offset=packed.offset,
                why="no more are taken from a file of this length",
                resolution="No tool opened it. Raise conversion.maximum_expansion, or "
                "conversion.maximum_virtual_size_bytes, if such images are wanted.",
            )
        yield piece


def _in_memory(pieces: Iterator[_Piece], packed: PackedInput) -> Iterator[_Piece]:
    try:
        yield from pieces
    except MemoryError as problem:
        raise packed.refuse(
            "unpacking it takes more memory than there is",
            "a few bytes can ask for all that a machine has",
            kind=DecompressionBombError,
        ) from problem


class _Stream(Protocol):
    """One stream's decoder, as `bz2` and `lzma` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflater:
    """`zlib`'s decoder in the manner of the others."""

    def __init__(self, window_bits: int) -> None:
        self._decoder = zlib.decompressobj(window_bits)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._is_full and not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        found = self._decoder.decompress(data or self._decoder.unconsumed_tail, max_length)
        self._is_full = len(found) == max_length  # there may be more of it, without any input
        return found


def _streams(compression: Compression, packed: PackedInput) -> Iterator[bytes]:
    kind = str(compression)
    make = _MAKERS[compression]
    while True:
        yield from _one(make(), packed, kind)
        before = packed.offset
        zeros = packed.skip_zeros() if compression in {Compression.GZIP, Compression.XZ} else 0
        if compression is Compression.XZ and zeros % _XZ_PADDING_UNIT:
            raise packed.refuse(
                f"{zeros} zeros follow its xz data, which are no multiple of four", "it is cut", offset=before
            )
        head = packed.peek(16)
        if not head:
            return
        if compression_of(head) is not compression or (zeros and compression is Compression.GZIP):
            raise packed.refuse(
                f"something follows its {kind} data that is none", "each program would see another disk"
            )


def _one(stream: _Stream, packed: PackedInput, kind: str) -> Iterator[bytes]:
    """Yield what one stream holds; leave what follows it where it is."""
    feed = _FIRST_FEED_BYTES  # small at first: what follows a tiny stream is copied
    begin = packed.offset
    while not stream.eof:
        fed = packed.take(feed) if stream.needs_input else b""
        feed = min(PIECE_BYTES, feed * 2)
        is_at_end = stream.needs_input and not fed
        try:
            piece = stream.decompress(fed, _OUTPUT_BYTES)
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as problem:
            raise _undecodable(problem, packed, kind, begin) from problem
        if piece:
            yield piece
        elif is_at_end and not stream.eof:
            raise packed.refuse(f"it ends in the middle of its {kind} data", "the rest of the disk is missing")
    packed.give_back(len(stream.unused_data))


def _undecodable(problem: Exception, packed: PackedInput, kind: str, begin: int) -> Exception:
    if isinstance(problem, lzma.LZMAError) and "limit" in str(problem).lower():
        return packed.refuse(
            f"reading its {kind} data takes more than {_XZ_MEMORY_BYTES} bytes of memory",
            "a few bytes can ask for all that a machine has",
            kind=DecompressionBombError,
            offset=begin,
        )
    return packed.refuse(
        f"its {kind} data that begins at byte {begin} cannot be decoded ({problem})",
        "what is decoded of it would be something else",
    )


def _is_bzip2(head: bytes) -> bool:
    return head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS


def _gzip() -> _Stream:
    return _Inflater(zlib.MAX_WBITS | 16)


def _xz() -> _Stream:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


_MAKERS: dict[Compression, Callable[[], _Stream]] = {
    Compression.GZIP: _gzip,
    Compression.BZIP2: bz2.BZ2Decompressor,
    Compression.XZ: _xz,
}
