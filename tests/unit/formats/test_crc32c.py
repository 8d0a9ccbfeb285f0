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


@pytest.mark.parametrize("length", [*range(10), 13, 100, 4064, 4096, 16352, 65536])
def test_of_every_length_it_is_what_one_bit_after_the_other_gives(length):
    content = bytes(number * number >> 3 & 0xFF for number in range(length))
    assert crc32c(content) == bit_by_bit(content)
    # Headers of VHDX are zeros for the most part.
    assert crc32c(content + bytes(length)) == bit_by_bit(content + bytes(length))


def bit_by_bit(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
