# SPDX-License-Identifier: Apache-2.0
"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), by which VHDX protects its headers."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78
_ALL_ONES = 0xFFFFFFFF


def _entry(byte: int) -> int:
    value = byte
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(byte) for byte in range(256))


def crc32c(content: bytes) -> int:
    """Return the checksum of some bytes: a few KiB of them, for this is slow, and any number of zeros behind those."""
    body = content.rstrip(b"\0")
    value = _ALL_ONES
    for byte in body:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return _after_zeros(value, len(content) - len(body)) ^ _ALL_ONES


def _after_zeros(value: int, count: int) -> int:
    """Return the value after so many zeros: a step is linear, so that twice as many are the step applied to itself."""
    step = [bit >> 8 ^ _TABLE[bit & 0xFF] for bit in (1 << number for number in range(32))]
    while count:
        if count & 1:
            value = _applied(step, value)
        count >>= 1
        step = [_applied(step, column) for column in step]
    return value


def _applied(step: list[int], value: int) -> int:
    result = 0
    for number, column in enumerate(step):
        if value >> number & 1:
            result ^= column
    return result
