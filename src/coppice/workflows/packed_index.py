# SPDX-License-Identifier: Apache-2.0
"""A file of a package repository's index as repositories pack it, unpacked piece by piece, within bounds."""

from __future__ import annotations

import lzma
import zlib
from typing import TYPE_CHECKING

from coppice.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".xz", ".gz", "")
"""Of packed ``Packages``, those that take the least bytes first."""
PACKED_LIMIT_BYTES = 128 * 1024 * 1024
UNPACKED_LIMIT_BYTES = 1024 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_MEMORY_BYTES = 128 * 1024 * 1024
_ZSTD_BYTES = 512
"""So many packed bytes at a time: four of them may unpack to 128 KiB, and none are held back."""


def unpacked(content: bytes, path: str, *, limit_bytes: int = UNPACKED_LIMIT_BYTES) -> Iterator[bytes]:
    """Yield what ``content`` unpacks to.

    Args:
        content: The packed bytes.
        path: Whose name says how they are packed.
        limit_bytes: More than this is refused.

    Raises:
        DocumentError: They are not packed so, are cut off, or unpack to too much.
    """
    total = 0
    for piece in _pieces(content, path):
        total += len(piece)
        if total > limit_bytes:
            raise DocumentError(f"{path} unpacks to more than {limit_bytes} bytes")
        yield piece


def _pieces(content: bytes, path: str) -> Iterator[bytes]:
    try:
        if path.endswith(".xz"):
            yield from _xz(content, path)
        elif path.endswith(".gz"):
            yield from _gzip(content, path)
        elif path.endswith(".zst"):
            yield from _zstd(content, path)
        else:
            yield from (content[at : at + _PIECE_BYTES] for at in range(0, len(content), _PIECE_BYTES))
    except (lzma.LZMAError, zlib.error, EOFError) as problem:
        raise DocumentError(f"{path} cannot be unpacked: {problem}") from problem


def _xz(content: bytes, path: str) -> Iterator[bytes]:
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES)
    piece = unpacker.decompress(content, max_length=_PIECE_BYTES)
    yield piece
    while not unpacker.eof:
        if unpacker.needs_input:
            raise DocumentError(f"{path} is cut off")
        yield unpacker.decompress(b"", max_length=_PIECE_BYTES)
    if unpacker.unused_data:
        raise DocumentError(f"{path} has something after its end")


def _gzip(content: bytes, path: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    rest = content
    while not unpacker.eof:
        piece = unpacker.decompress(rest, _PIECE_BYTES)
        rest = unpacker.unconsumed_tail
        if not piece and not rest and not unpacker.eof:
            raise DocumentError(f"{path} is cut off")
        yield piece
    if unpacker.unused_data:
        raise DocumentError(f"{path} has something after its end")


def _zstd(content: bytes, path: str) -> Iterator[bytes]:
    # Not every run reads what is packed so.
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY_BYTES).decompressobj()
    try:
        for at in range(0, len(content), _ZSTD_BYTES):
            if unpacker.eof:
                raise DocumentError(f"{path} has something after its end")
            yield unpacker.decompress(content[at : at + _ZSTD_BYTES])
    except zstandard.ZstdError as problem:
        raise DocumentError(f"{path} cannot be unpacked: {problem}") from problem
    if not unpacker.eof:
        raise DocumentError(f"{path} is cut off")
    if unpacker.unused_data:
        raise DocumentError(f"{path} has something after its end")
