# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.http.message import Validators
from coppice.http.ranges import Part, merged

pytestmark = pytest.mark.unit


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), max_size=20))
def test_ranges_that_touch_become_one_and_nothing_is_lost(steps):
    ranges, position = [], 0
    for gap, length in steps:
        ranges.append((position + gap, length))
        position += gap + length
    found = merged(ranges)
    assert {each for start, length in found for each in range(start, start + length)} == {
        each for start, length in ranges for each in range(start, start + length)
    }
    assert all(one[0] + one[1] < two[0] for one, two in itertools.pairwise(found))


def test_the_whole_file_is_asked_for_without_a_range():
    assert Part(start=0, end=100, size_bytes=100, known=Validators(etag='"a"')).headers == {}
    assert Part().headers == {}


@pytest.mark.threat("T50")
def test_a_condition_is_set_with_a_strong_validator_only():
    strong, weak = Validators(etag='"a"'), Validators(etag='W/"a"', last_modified="Sun, 06 Nov 1994 08:49:37 GMT")
    assert Part(start=5, known=strong).headers == {"Range": "bytes=5-", "If-Range": '"a"'}
    assert Part(start=5, end=10, known=weak).headers == {"Range": "bytes=5-9"}


@pytest.mark.parametrize(
    ("one", "two", "differ"),
    [
        (Validators(), Validators(etag='"a"'), False),
        (Validators(etag='"a"'), Validators(etag='"a"'), False),
        (Validators(etag='"a"'), Validators(etag='"b"'), True),
        (Validators(etag='W/"a"'), Validators(etag='"a"'), True),
        (
            Validators(last_modified="Sun, 06 Nov 1994 08:49:37 GMT"),
            Validators(last_modified="Sun, 06 Nov 1994 08:49:38 GMT"),
            True,
        ),
    ],
)
def test_states_that_differ_are_noticed(one, two, differ):
    assert one.contradicts(two) is differ
