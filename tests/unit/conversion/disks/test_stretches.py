# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.conversion.disks import stretches
from coppice.conversion.disks.stretches import Stretches
from coppice.errors import CorruptImageError, UnsupportedImageError

pytestmark = pytest.mark.unit


def overlap(pairs) -> bool:
    found = Stretches("x", "blocks")
    for start, length in pairs:
        found.add(start, length)
    try:
        found.refuse_overlap()
    except CorruptImageError:
        return True
    return False


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12))
def test_stretches_overlap_when_a_sector_belongs_to_two(pairs):
    sectors = [sector for start, length in pairs for sector in range(start, start + length)]
    assert overlap(pairs) == (len(set(sectors)) < len(sectors))


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_an_overlap_is_found_between_runs_whatever_their_order(monkeypatch, is_shuffled):
    monkeypatch.setattr(stretches, "_RUN_ENTRIES", 7)
    pairs = [(number * 4, 4) for number in range(100)]
    if is_shuffled:
        random.Random(5).shuffle(pairs)  # noqa: S311 - an order, no secret
    assert not overlap(pairs)
    assert overlap([*pairs, (202, 1)])
    assert overlap([(202, 1), *pairs])


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from([3, 3, 3, 5])), max_size=40))
def test_runs_of_one_length_and_of_several_are_judged_alike(pairs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "_RUN_ENTRIES", 3)
        sectors = [sector for start, length in pairs for sector in range(start, start + length)]
        assert overlap(pairs) == (len(set(sectors)) < len(sectors))


def test_the_same_stretch_twice_is_an_overlap(monkeypatch):
    assert overlap([(4, 4), (4, 4)])
    monkeypatch.setattr(stretches, "_RUN_ENTRIES", 1)
    assert overlap([(4, 4), (4, 4)])


def test_a_hundred_thousand_stretches_take_a_few_bytes_each(monkeypatch):
    monkeypatch.setattr(stretches, "_RUN_ENTRIES", 4096)
    tracemalloc.start()
    try:
        found = Stretches("x", "blocks")
        for start in range(0, 100_000, 1000):
            found.add_all(range(start * 8, (start + 1000) * 8, 8), 8)
        found.refuse_overlap()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000 * 16 + 1024**2


def test_a_stretch_in_bytes_takes_each_sector_of_which_it_has_a_part():
    found = Stretches("x", "blocks")
    found.add_bytes(100, 1000)
    found.add_bytes(1536, 0)
    found.add(3, 1)
    found.refuse_overlap()
    found.add(2, 1)
    with pytest.raises(CorruptImageError) as caught:
        found.refuse_overlap()
    assert caught.value.context["offset"] == 1024


def test_a_stretch_of_many_gigabytes_is_one_all_the_same():
    found = Stretches("x", "tables")
    found.add_bytes(0, 2**40)
    found.add(2**31, 1)
    found.refuse_overlap()
    found.add(2**31 - 1, 1)
    with pytest.raises(CorruptImageError):
        found.refuse_overlap()


def test_what_lies_beyond_what_a_number_can_tell_is_refused():
    with pytest.raises(UnsupportedImageError, match="beyond 562949953421312 bytes"):
        Stretches("x", "tables").add_bytes(2**50, 512)


@pytest.mark.parametrize("run_entries", [1, 2, 1000])
def test_gaps_are_what_no_stretch_has(monkeypatch, run_entries):
    monkeypatch.setattr(stretches, "_RUN_ENTRIES", run_entries)
    found = Stretches("x", "blocks")
    for start, length in ((20, 5), (0, 4), (8, 2), (10, 1)):
        found.add(start, length)
    found.refuse_overlap()
    assert list(found.gaps(0, 30)) == [(4, 4), (11, 9), (25, 5)]
    assert list(found.gaps(9, 25)) == [(11, 9)]
    assert list(found.gaps(26, 30)) == [(26, 4)]
    assert list(found.gaps(26, 26)) == []


def test_none_is_none():
    Stretches("x", "tables").refuse_overlap()
