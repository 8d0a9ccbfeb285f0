# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections import Counter

import pytest

from coppice.errors import ConversionError, InterruptedRunError, UnreachableError
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.testing.desired import desired_image
from coppice.workflows.prefetch import Prefetch
from coppice.workflows.supply import Supply

pytestmark = pytest.mark.unit
IMAGES = [desired_image(name) for name in ("slow", "b", "c", "d")]
SLOW, B, C, D = IMAGES
QCOW2, RAW = (DiskFormat.QCOW2,), (DiskFormat.RAW,)
SECONDS = 20
NEVER = threading.Event()


class Works:
    """Fetches and converts at once, but for the slow image, which waits until it is let go."""

    def __init__(self, threads=3) -> None:
        self.let_go = threading.Event()
        self.fetched, self.converted = Counter(), Counter()
        self.broken = set()
        self.prefetch = Prefetch(self.fetch, threads)
        self.supply = Supply(self.prefetch, self.convert, SILENT)

    def fetch(self, desired):
        self.fetched[desired.listed.title] += 1
        if desired is SLOW and not self.let_go.wait(SECONDS):
            raise UnreachableError("nobody let it go")
        if "fetch" in self.broken:
            raise UnreachableError("no route")
        return desired.listed.title

    def convert(self, desired, formats, _monitor):
        fetched = self.prefetch.result(desired)
        self.converted[fetched, formats] += 1
        if "convert" in self.broken:
            raise ConversionError("no disk")
        return f"{fetched} as {formats[0]}"


def test_an_image_is_fetched_once_and_converted_once_for_all_clouds_that_take_the_same():
    works = Works()
    clouds = [QCOW2, QCOW2, QCOW2, RAW]
    together = threading.Barrier(len(clouds))
    got = []

    def cloud(formats):
        together.wait(SECONDS)
        works.supply.want(IMAGES[1:], formats)
        got.extend(works.supply.obtain(image, formats, SILENT) for image in IMAGES[1:])

    threads = [threading.Thread(target=cloud, args=(formats,)) for formats in clouds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(got) == len(clouds) * 3
    assert set(works.fetched.values()) == {1}
    assert works.converted == {(f"{name} image", formats): 1 for name in "bcd" for formats in (QCOW2, RAW)}


def test_an_image_that_came_before_serves_another_cloud_while_a_slow_one_is_awaited():
    works = Works(threads=2)
    works.supply.want([SLOW, B], QCOW2)
    works.supply.await_any([B], QCOW2, NEVER)
    assert not works.supply.is_here(SLOW, QCOW2)
    assert works.supply.obtain(B, RAW, SILENT) == "b image as raw"
    assert works.fetched["b image"] == 1
    works.let_go.set()
    assert works.supply.obtain(SLOW, QCOW2, SILENT) == "slow image as qcow2"


@pytest.mark.parametrize(("broken", "error"), [("fetch", UnreachableError), ("convert", ConversionError)])
def test_what_could_not_be_had_is_here_as_a_failure_and_is_the_same_one_for_every_cloud(broken, error):
    works = Works()
    works.broken = {broken}
    raised = []
    for _ in range(2):
        with pytest.raises(error) as failure:
            works.supply.obtain(B, QCOW2, SILENT)
        raised.append(failure.value)
    assert works.supply.is_here(B, QCOW2)
    assert raised[0] is raised[1]
    assert works.fetched["b image"] == 1


def test_whoever_waits_is_let_go_when_the_run_is_stopped():
    works = Works()
    works.supply.want([SLOW], QCOW2)
    stop = threading.Event()
    waiting = threading.Thread(target=works.supply.await_any, args=([SLOW], QCOW2, stop))
    waiting.start()
    stop.set()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    works.let_go.set()


def test_nothing_is_begun_after_the_end_and_nobody_waits_for_ever():
    works = Works(threads=1)
    works.supply.want([SLOW, B], QCOW2)
    works.supply.stop()
    for image in (SLOW, B):
        with pytest.raises(InterruptedRunError):
            works.supply.obtain(image, QCOW2, SILENT)
    works.let_go.set()
    assert works.converted == {}
