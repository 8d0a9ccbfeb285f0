# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cache.stretches import Stretches

pytestmark = pytest.mark.unit
PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(PAIRS, st.integers(0, 70))
def test_stretches_are_the_set_of_positions_that_were_added(pairs, size):
    found = Stretches(pairs)
    positions = {each for start, end in pairs for each in range(start, end)}
    assert {each for start, end in found for each in range(start, end)} == positions
    assert found.total == len(positions)
    assert found.prefix == next(each for each in range(100) if each not in positions)
    missing = {each for start, end in found.gaps(size) for each in range(start, end)}
    assert missing == set(range(size)) - positions
    assert found.clipped(size).total == len({each for each in positions if each < size})
    assert found.covers(size) == (not missing)


@given(PAIRS)
def test_stretches_stand_in_order_and_do_not_touch(pairs):
    found = list(Stretches(pairs))
    assert all(start < end for start, end in found)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(found))
