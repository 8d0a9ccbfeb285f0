# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import pytest

from coppice.workflows.parallel import in_parallel

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_results_come_in_the_order_of_the_jobs_and_each_is_told_once(threads: int):
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert in_parallel(range(20), work, threads=threads, on_done=done.append) == tuple(n * n for n in range(20))
    assert sorted(done) == list(range(20))
    assert in_parallel((), work, threads=threads) == ()


def test_no_more_are_at_work_than_may_be():
    at_once, most, lock = 0, 0, threading.Lock()

    def work(_number: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1

    in_parallel(range(12), work, threads=3)
    assert 1 < most <= 3


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_is_raised_in_the_callers_thread_and_nothing_is_begun_any_more(
    threads: int, kind: type[BaseException]
):
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise kind("no")
        time.sleep(0.01)

    with pytest.raises(kind, match="no"):
        in_parallel(range(1000), work, threads=threads)
    time.sleep(0.05)
    assert len(begun) < 100


def test_what_waits_for_ever_is_not_waited_for_after_an_interruption():
    hold = threading.Event()

    def work(number: int) -> None:
        if number:
            hold.wait(60)

    def interrupt(_number: int) -> None:
        raise KeyboardInterrupt

    before = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_parallel(range(4), work, threads=4, on_done=interrupt)
        assert time.monotonic() - before < 5
    finally:
        hold.set()
