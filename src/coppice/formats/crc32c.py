# SPDX-License-Identifier: Apache-2.0
"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), which protects what VHDX and btrfs say of themselves.

Python's library lacks it. Here it is taken of all words of a run at once, not of one byte after the other.

Each word's share of the checksum is a linear map of it, and only its place says which. So the first half of a run is
mapped to where the second is, and added to it, until one word is left; tables map the bytes of all words in one go.
"""

from __future__ import annotations

import functools
from typing import Final

_POLYNOMIAL = 0x82F63B78
_WORD_BYTES = 4
_ORDER: Final = "little"


def crc32c(data: bytes) -> int:
    """Return the checksum of ``data``."""
    if len(data) < _WORD_BYTES:
        return _of_few(data)
    first = int.from_bytes(data[:_WORD_BYTES], _ORDER) ^ 0xFFFFFFFF
    steps = (-(-len(data) // _WORD_BYTES) - 1).bit_length()
    # Zeros before everything else have no share in it.
    padding = bytes((_WORD_BYTES << steps) - len(data))
    whole = padding + first.to_bytes(_WORD_BYTES, _ORDER) + data[_WORD_BYTES:]
    planes = [whole[number::_WORD_BYTES] for number in range(_WORD_BYTES)]
    for step in reversed(range(steps)):
        half = 1 << step
        tables = _tables(step)
        folded = []
        for number, plane in enumerate(planes):
            value = int.from_bytes(plane[half:], _ORDER)
            for other, table in zip(planes, tables, strict=True):
                value ^= int.from_bytes(other[:half].translate(table[number]), _ORDER)
            folded.append(value.to_bytes(half, _ORDER))
        planes = folded
    return _mapped(int.from_bytes(b"".join(planes), _ORDER), _images(0)) ^ 0xFFFFFFFF


def _of_few(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = _after_bit(value)
    return value ^ 0xFFFFFFFF


def _after_bit(value: int) -> int:
    return (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)


@functools.cache
def _images(step: int) -> tuple[int, ...]:
    """Return what becomes of each bit of a checksum when 2**step words of zeros follow."""
    if step:
        half = _images(step - 1)
        return tuple(_mapped(image, half) for image in half)
    images = []
    for bit in range(8 * _WORD_BYTES):
        value = 1 << bit
        for _ in range(8 * _WORD_BYTES):
            value = _after_bit(value)
        images.append(value)
    return tuple(images)


def _mapped(value: int, images: tuple[int, ...]) -> int:
    total = 0
    for bit, image in enumerate(images):
        if value >> bit & 1:
            total ^= image
    return total


@functools.cache
def _tables(step: int) -> tuple[tuple[bytes, ...], ...]:
    """Return, for each byte of a word and each byte of what becomes of it, the one as a table of the other."""
    images = _images(step)
    found = []
    for number in range(_WORD_BYTES):
        values = [0]
        for image in images[8 * number : 8 * number + 8]:
            values += [value ^ image for value in values]
        found.append(tuple(bytes(value >> 8 * part & 0xFF for value in values) for part in range(_WORD_BYTES)))
    return tuple(found)
