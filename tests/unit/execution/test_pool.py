# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import BuildError
from coppice.execution.model import Work
from coppice.execution.pool import run_all

pytestmark = pytest.mark.unit


def work(name, *needs, do=None):
    return Work(name=name, do=do or (lambda _: name.upper()), needs=frozenset(needs))


def failing(_):
    raise BuildError("no")


def test_what_is_done_comes_back_in_the_order_in_which_it_was_asked_for():
    ended = run_all([work("child", "base"), work("base")], at_once=4)
    assert [(each.name, each.result) for each in ended] == [("child", "CHILD"), ("base", "BASE")]


def test_nothing_begins_before_what_it_needs_has_ended():
    begun = []
    works = [
        work("web", "hardened", do=lambda _: begun.append("web")),
        work("hardened", "base", do=lambda _: begun.append("hardened")),
        work("base", do=lambda _: begun.append("base")),
    ]
    run_all(works, at_once=3)
    assert begun == ["base", "hardened", "web"]


def test_a_failure_keeps_back_what_needs_it_at_any_depth_and_nothing_else():
    told = []
    works = [
        work("grandchild", "child"),
        work("child", "base"),
        work("base", do=failing),
        work("other"),
        work("of-other", "other"),
    ]
    ended = {each.name: each for each in run_all(works, at_once=2, on_ended=lambda each: told.append(each.name))}
    assert ended["base"].error.message == "no"
    assert (ended["child"].kept_by, ended["grandchild"].kept_by) == ("base", "base")
    assert not ended["child"].is_done
    assert (ended["other"].result, ended["of-other"].result) == ("OTHER", "OF-OTHER")
    assert sorted(told) == sorted(ended)


def test_no_more_run_at_a_time_than_are_allowed_and_as_many_do():
    lock, gate = threading.Lock(), threading.Barrier(2, timeout=10)
    now, most = 0, 0

    def do(_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        gate.wait()
        with lock:
            now -= 1

    run_all([work(str(number), do=do) for number in range(4)], at_once=2)
    assert most == 2


def test_a_defect_is_raised_and_what_has_not_begun_does_not_begin():
    begun = []

    def defect(_):
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        run_all([work("a", do=defect), work("b", do=lambda _: begun.append("b"))], at_once=1)
    assert begun == []


def test_whoever_is_at_work_when_the_run_is_stopped_is_waited_for():
    cleaned, begun = [], threading.Event()

    def slow(stopped):
        begun.set()
        while not stopped():
            threading.Event().wait(0.01)
        cleaned.append("slow")

    def defect(_):
        begun.wait(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([work("slow", do=slow), work("defect", do=defect)], at_once=2)
    assert cleaned == ["slow"]


@pytest.mark.parametrize(
    "wrong",
    [[work("a"), work("a")], [work("a", "b")], [work("a", "b"), work("b", "a")], [work("a", "a")]],
    ids=["twice", "missing", "circle", "itself"],
)
def test_work_that_can_never_be_done_is_refused(wrong):
    with pytest.raises(ValueError, match="work"):
        run_all(wrong, at_once=1)


@given(st.data(), st.integers(1, 3))
def test_whatever_fails_each_ends_once_and_only_descendants_are_kept(data, at_once):
    count = data.draw(st.integers(0, 7))
    needs = {n: data.draw(st.sets(st.integers(0, n - 1))) if n else set() for n in range(count)}
    broken = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    works = [
        work(str(n), *map(str, needs[n]), do=failing if n in broken else None)
        for n in data.draw(st.permutations(range(count)))
    ]
    lost = set()
    for n in range(count):
        if n in broken or needs[n] & lost:
            lost.add(n)
    ended = run_all(works, at_once=at_once)
    assert [each.name for each in ended] == [each.name for each in works]
    assert {int(each.name) for each in ended if not each.is_done} == lost
    assert {int(each.name) for each in ended if each.kept_by} == {n for n in lost if needs[n] & lost}
