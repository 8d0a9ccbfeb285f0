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
    """Return the checksum of some bytes; a few KiB of them, for this is slow."""
    value = _ALL_ONES
    table = _TABLE
    for byte in content:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ _ALL_ONES
