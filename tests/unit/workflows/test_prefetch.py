# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import pytest

from coppice.errors import InterruptedRunError, UnreachableError
from coppice.testing.desired import desired_image
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


def test_whoever_asks_to_be_told_is_told_of_each_that_came_or_failed():
    told = threading.Event()
    prefetch = Prefetch(Gate(held="").fetch, 1)
    prefetch.on_ended = lambda image: prefetch.has_ended(image) and told.set()
    prefetch.begin(IMAGES[:1])
    assert told.wait(10)
