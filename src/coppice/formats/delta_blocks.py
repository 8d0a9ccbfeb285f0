# SPDX-License-Identifier: Apache-2.0
"""What the three files of a delta have in common: blocks, their hashes, columns of numbers, compressed tables."""

from __future__ import annotations

import hashlib
import sys
from array import array
from typing import TYPE_CHECKING, NoReturn

import zstandard

from coppice.errors import DeltaError
from coppice.formats.delta_limits import BLOCK_BYTES, HASH_BYTES, MAX_GUEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

ZERO_BLOCK = bytes(BLOCK_BYTES)
SHA512_BYTES = 64
TABLE_LEVEL = 19


def block_hash(block: bytes | memoryview) -> bytes:
    """Return the short hash that stands for a whole block of `BLOCK_BYTES`."""
    return hashlib.sha256(block).digest()[:HASH_BYTES]


def block_count(size_bytes: int) -> int:
    """Return how many blocks a disk of that size has."""
    return -(-size_bytes // BLOCK_BYTES)


def malformed(what: str, said: str) -> NoReturn:
    """Refuse a file of a delta.

    Raises:
        DeltaError: Always.
    """
    raise DeltaError(f"the {what} of a delta is malformed: {said}")


def at_most(what: str, name: str, value: int, most: int, least: int = 0) -> int:
    """Return ``value`` when it is in bounds.

    Raises:
        DeltaError: It is not.
    """
    if not least <= value <= most:
        malformed(what, f"{name} is {value}, not between {least} and {most}")
    return value


def guest_size(what: str, value: int) -> int:
    """Return the length of a disk when it can be one.

    Raises:
        DeltaError: It cannot.
    """
    return at_most(what, "the length of the disk", value, MAX_GUEST_BYTES, 1)


def compress_table(data: bytes) -> bytes:
    """Return a table as one zstd frame that says its length."""
    return zstandard.ZstdCompressor(level=TABLE_LEVEL).compress(data)


def decompress(what: str, frame: bytes | memoryview, expected_bytes: int) -> bytes:
    """Return what one zstd frame (RFC 8878) holds; room is made for ``expected_bytes`` only.

    Raises:
        DeltaError: It is no such frame, holds another length, or anything follows it.
    """
    check_frame(what, frame, expected_bytes)
    if not expected_bytes:
        return b""
    try:
        data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=expected_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as problem:
        malformed(what, f"compressed bytes that cannot be read ({problem})")
    if len(data) != expected_bytes:
        malformed(what, f"{len(data)} bytes were compressed where {expected_bytes} belong")
    return data


def check_frame(what: str, frame: bytes | memoryview, expected_bytes: int) -> zstandard.FrameParameters:
    """Return what the head of a zstd frame says, when it promises exactly ``expected_bytes`` and no dictionary.

    Raises:
        DeltaError: It is none, or promises something else.
    """
    try:
        head = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as problem:
        malformed(what, f"compressed bytes that cannot be read ({problem})")
    if head.content_size != expected_bytes:
        malformed(what, f"a compressed part says another length than the {expected_bytes} bytes that belong there")
    if head.dict_id:
        malformed(what, "a compressed part needs a dictionary")
    return head


def column(code: str, values: Sequence[int]) -> bytes:
    """Return numbers as bytes, each little-endian: ``H`` of two, ``I`` of four bytes."""
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def numbers_of(code: str, data: bytes | memoryview) -> array[int]:
    """Return the numbers that `column` wrote."""
    numbers: array[int] = array(code)
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Columns:
    """Takes columns off a table one after the other.

    Args:
        data: The table; its length was checked.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def take(self, code: str, count: int) -> array[int]:
        """Return the next ``count`` numbers."""
        length = count * array(code).itemsize
        taken, self._data = self._data[:length], self._data[length:]
        return numbers_of(code, taken)
