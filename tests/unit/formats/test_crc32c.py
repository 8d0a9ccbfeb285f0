# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.formats.crc32c import crc32c

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("content", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
    ids=["nothing", "digits", "zeros", "ones", "up", "down"],
)
def test_the_examples_of_the_specification_have_their_checksums(content, checksum):
    assert crc32c(content) == checksum


@pytest.mark.parametrize("count", [1, 2, 7, 8, 4095, 65000])
def test_zeros_at_the_end_count_as_they_do_before_another_byte(count):
    # The checksum of zeros goes a shorter way; ahead of a byte that is none they go the long one.
    short = crc32c(b"abc" + bytes(count)) ^ 0xFFFFFFFF
    last = crc32c(b"abc" + bytes(count) + b"\x01") ^ 0xFFFFFFFF
    assert last == short >> 8 ^ crc32c_step((short ^ 1) & 0xFF)


def crc32c_step(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value
