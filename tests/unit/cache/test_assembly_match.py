# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cache.assembly_match import Match, bytes_of, frames_of, length_on_disk, unpacked
from coppice.cache.seed_blocks import SeedBlocks
from coppice.formats.delta import BLOCK_BYTES, IndexWriter, PackLayout, read_index
from coppice.model.checksum import Checksum

pytestmark = pytest.mark.unit
BLOCKS = st.lists(st.integers(0, 6), min_size=1, max_size=30)
"""0: zeros; any other number: a block of that content."""


def hashed(number):
    return number.to_bytes(8, "little")


def match_of(wanted, *held, packs=2, frame_blocks=3):
    """A disk whose block of content N is block N of pack N modulo the packs."""
    layouts = [PackLayout(blocks=10, frame_blocks=frame_blocks, table_bytes=10) for _ in range(packs)]
    writer = IndexWriter(layouts)
    for number in wanted:
        if number:
            writer.block(hashed(number), pack=number % packs, number=number)
        else:
            writer.zeros()
    size = len(wanted) * BLOCK_BYTES
    match = Match(read_index(writer.finish(guest_size_bytes=size, guest_checksum=Checksum.of(b""))))
    for place, blocks in enumerate(held):
        kept = [(number, where) for where, number in enumerate(blocks) if number]
        hashes = array("Q", b"".join(hashed(number) for number, _ in kept))
        match.look_in(place, SeedBlocks(hashes=hashes, numbers=array("I", [where for _, where in kept])))
    return match


@given(BLOCKS, BLOCKS, BLOCKS)
def test_each_block_comes_from_where_it_is(wanted, one, other):
    match = match_of(wanted, one, other)
    made = []
    for stretch in match.stretches():
        assert stretch.block == len(made)
        for step in range(stretch.count):
            if stretch.is_zero:
                made.append(0)
            elif stretch.seed is not None:
                made.append((one, other)[stretch.seed][stretch.first + step])
            else:
                assert (stretch.first + step) % 2 == stretch.pack
                made.append(stretch.first + step)
    assert made == wanted


@given(BLOCKS, BLOCKS, st.integers(1, 4))
def test_what_is_missing_is_what_nothing_here_has_each_piece_in_one_frame(wanted, held, frame_blocks):
    match = match_of(wanted, held, frame_blocks=frame_blocks)
    missing = {}
    for pieces in match.missing():
        assert list(pieces) == sorted(pieces)
        for first, block, count in map(unpacked, pieces):
            assert first // frame_blocks == (first + count - 1) // frame_blocks
            missing |= {block + step: first + step for step in range(count)}
    assert missing == {place: number for place, number in enumerate(wanted) if number and number not in held}
    assert match.missing_blocks() == len(missing)


def test_frames_are_named_once_and_found_by_their_table():
    pieces = match_of([1, 3, 5, 2, 4, 6], frame_blocks=2).missing()[1]
    frames = frames_of(pieces, 2)
    assert frames == [0, 1, 2]
    assert bytes_of(frames, [8, 18, 28, 48]) == [(8, 10), (18, 10), (28, 20)]


def test_the_last_block_may_be_cut_short():
    assert length_on_disk(0, 2, 2 * BLOCK_BYTES) == 2 * BLOCK_BYTES
    assert length_on_disk(1, 1, BLOCK_BYTES + 5) == 5
