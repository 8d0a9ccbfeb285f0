# SPDX-License-Identifier: Apache-2.0
"""Tables of numbers as files have them, in the byte order of this machine; and whether bytes are zeros."""

from __future__ import annotations

import sys
from array import array

_ZEROS = bytes(1024 * 1024)


def little_endian(code: str, content: bytes) -> array[int]:
    """Return numbers that are stored with their lowest byte first.

    Args:
        code: Of `array`: ``I`` for 32 bits, ``Q`` for 64.
        content: A whole number of them.
    """
    return _numbers(code, content, "little")


def big_endian(code: str, content: bytes) -> array[int]:
    """Return numbers that are stored with their highest byte first; see `little_endian`."""
    return _numbers(code, content, "big")


def is_zero(content: bytes) -> bool:
    """Tell whether all bytes are zeros; at the speed of a comparison, which matters for megabytes."""
    return content == (_ZEROS if len(content) == len(_ZEROS) else bytes(len(content)))


def _numbers(code: str, content: bytes, order: str) -> array[int]:
    numbers: array[int] = array(code)
    numbers.frombytes(content)
    if sys.byteorder != order:
        numbers.byteswap()
    return numbers
