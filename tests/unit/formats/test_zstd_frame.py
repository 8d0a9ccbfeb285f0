# SPDX-License-Identifier: Apache-2.0
"""The length of Zstandard frames of every form that the library writes, whole and cut."""

from __future__ import annotations

import random

import pytest
import zstandard

from coppice.formats.zstd_frame import frame_bytes

CHANCE = random.Random(3)  # noqa: S311 - bytes that do not compress
CONTENTS = {
    "nothing": b"",
    "short": b"short",
    "zeros": bytes(300_000),
    "chance": CHANCE.randbytes(300_000),
    "text": b"line of text\n" * 40_000,
}
OPTIONS = ({}, {"write_checksum": True}, {"write_content_size": False}, {"level": 19})
BEHIND = b"\x28\xb5\x2f\xfd and what comes next"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_frame_is_as_long_as_it_says_and_one_that_is_cut_is_none(content, options):
    frame = zstandard.ZstdCompressor(**options).compress(content)
    assert frame_bytes(frame) == len(frame)
    assert frame_bytes(frame + BEHIND) == len(frame)
    for length in {0, 1, 4, 5, len(frame) // 2, len(frame) - 1}:
        assert frame_bytes(frame[:length]) == 0


def test_what_is_no_frame_has_no_length():
    assert frame_bytes(b"something else altogether") == 0
