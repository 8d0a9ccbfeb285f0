# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import pytest

from coppice.clock import FixedClock
from coppice.cloud.apply import apply
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired, Policy
from coppice.cloud.plan import plan
from coppice.errors import InterruptedRunError, UnreachableError
from coppice.monitor import SILENT
from coppice.testing.desired import LATER, NOW, content_of, converted_image, desired_image, desired_list
from coppice.workflows.prefetch import Prefetch

pytestmark = pytest.mark.unit
IMAGES = [desired_image(name) for name in ("slow", "b", "c", "d")]


class Gate:
    """Fetches at once, but for one image, which waits until it is let go."""

    def __init__(self, held="slow image") -> None:
        self.held, self.open, self.asked = held, threading.Event(), []

    def fetch(self, desired):
        self.asked.append(desired.listed.title)
        if desired.listed.title == self.held and not self.open.wait(10):
            raise UnreachableError("nobody let it go")
        return desired.listed.title


def test_what_is_here_first_is_told_first_and_each_image_is_fetched_once():
    gate = Gate()
    prefetch = Prefetch(gate.fetch, 2)
    assert prefetch.soonest(IMAGES) != 0
    assert prefetch.result(IMAGES[3]) == "d image"
    gate.open.set()
    assert prefetch.result(IMAGES[0]) == "slow image"
    assert sorted(gate.asked) == sorted(each.listed.title for each in IMAGES)


def test_what_failed_is_raised_where_its_result_is_asked_for_and_stops_no_other():
    def fetch(desired):
        if desired is IMAGES[1]:
            raise UnreachableError("not there")
        return desired.listed.title

    prefetch = Prefetch(fetch, 2)
    prefetch.begin(IMAGES)
    assert prefetch.result(IMAGES[2]) == "c image"
    for _ in range(2):
        with pytest.raises(UnreachableError):
            prefetch.result(IMAGES[1])


def test_nothing_is_begun_after_the_end():
    gate = Gate()
    prefetch = Prefetch(gate.fetch, 1)
    prefetch.begin(IMAGES)
    while not gate.asked:
        time.sleep(0.001)
    prefetch.stop()
    gate.open.set()
    assert prefetch.result(IMAGES[0]) == "slow image"
    with pytest.raises(InterruptedRunError):
        prefetch.result(IMAGES[1])
    assert gate.asked == ["slow image"]


def test_a_slow_image_delays_no_other_and_steps_on_one_image_keep_their_order(tmp_path):
    cloud, clock, policy = MemoryCloud("test", "test-site"), FixedClock(NOW), Policy(grace=LATER - NOW)
    gate = Gate()
    results = []

    def run(*images, soonest=None):
        made = plan(Desired(lists=(desired_list(*images),)), cloud.describe(), policy, NOW, "test")
        return apply(
            made,
            cloud,
            obtain=lambda desired, *_: converted_image(
                desired, tmp_path, content_of(desired.listed.title.split()[0], desired.listed.version)
            ),
            clock=clock,
            policy=policy,
            monitor=SILENT,
            on_result=lambda result: (
                results.append((result.action.desired.listed.title, str(result.action.kind)))
                if result.action.desired
                else results.append(("", str(result.action.kind)))
            ),
            soonest=soonest,
        )

    run(*IMAGES)
    results.clear()
    newer = [desired_image(name, "2", list_version="2") for name in ("slow", "b", "c")]
    prefetch = Prefetch(gate.fetch, 2)

    def soonest(images):
        if len({each.listed.title for each in images}) == 1:
            # All others are done by now.
            gate.open.set()
        return prefetch.soonest(images)

    applied = run(*newer, IMAGES[3], soonest=soonest)
    assert all(result.error is None for result in applied.results)
    assert [result.action for result in applied.results] == list(applied.plan.actions)
    registered = [title for title, kind in results if kind == "register"]
    assert sorted(registered[:2]) == ["b image", "c image"]
    assert registered[2] == "slow image"
    assert results[-1][1] == "change-state"
