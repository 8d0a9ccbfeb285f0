# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cache.ranges import coalesced, total_bytes, united, without

pytestmark = pytest.mark.unit
RANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), max_size=30)


def positions(ranges):
    return {place for start, length in ranges for place in range(start, start + length)}


@given(RANGES)
def test_united_ranges_are_the_same_bytes_in_order_and_apart(ranges):
    result = united(ranges)
    assert positions(result) == positions(ranges)
    assert total_bytes(result) == len(positions(ranges))
    assert all(sum(left) < right[0] for left, right in pairwise(result))


@given(RANGES, RANGES)
def test_what_is_had_is_not_asked_for_again(ranges, had):
    assert positions(without(ranges, had)) == positions(ranges) - positions(had)


@given(RANGES, st.integers(0, 50), st.integers(1, 8))
def test_few_requests_bring_all_that_is_wanted(ranges, gap, maximum):
    result = coalesced(ranges, gap_bytes=gap, maximum=maximum)
    assert positions(result) >= positions(ranges)
    assert len(result) <= maximum
    wanted = united(ranges)
    if len(wanted) <= maximum:
        # Nothing but small gaps is fetched along.
        assert all(right[0] - sum(left) > gap for left, right in pairwise(result))
        fetched_along = positions(result) - positions(ranges)
        gaps = [range(sum(left), right[0]) for left, right in pairwise(wanted)]
        assert fetched_along == {place for each in gaps if len(each) <= gap for place in each}


def test_where_there_are_too_many_ranges_the_smallest_gaps_go_first():
    assert coalesced([(0, 1), (10, 1), (12, 1), (40, 1)], gap_bytes=0, maximum=3) == [(0, 1), (10, 3), (40, 1)]
    assert coalesced([], gap_bytes=0, maximum=3) == []
