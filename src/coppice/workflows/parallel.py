# SPDX-License-Identifier: Apache-2.0
"""Several pieces of work at a time, in threads that hold up nobody who wants to leave."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_LOOK_SECONDS = 0.5


class Outcome(Generic[_Result]):
    """Carries what became of a job from its thread to the caller's, where an exception is raised again."""

    def __init__(self) -> None:
        self.result: _Result | None = None
        self._problem: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._problem = problem
        return True

    def value(self) -> _Result:
        """Return the result, or raise what was raised instead."""
        if self._problem is not None:
            raise self._problem
        return self.result  # type: ignore[return-value]


def in_parallel(
    jobs: Sequence[_Job],
    work: Callable[[_Job], _Result],
    *,
    threads: int,
    on_done: Callable[[_Job], object] = lambda _job: None,
    aside: bool = False,
) -> tuple[_Result, ...]:
    """Return what ``work`` gives for each of ``jobs``, in their order, whatever the order in which they end.

    The first exception of any of them is raised here; jobs that were not begun are not begun any more. A job that waits
    for the network is not waited for then, nor after Ctrl-C: its thread ends with the process.

    Args:
        jobs: In their order.
        work: Called in a thread.
        threads: How many at a time.
        on_done: Called in the caller's thread with each job that ended.
        aside: Whether even a single job has a thread of its own, whose locks are kept until it, or the process, ends.
    """
    if not aside and (threads <= 1 or len(jobs) <= 1):
        return tuple(_one_after_the_other(jobs, work, on_done))
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(jobs)):
        waiting.put(number)
    ended: queue.SimpleQueue[tuple[int, Outcome[_Result]]] = queue.SimpleQueue()
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = Outcome[_Result]()
            with outcome:
                outcome.result = work(jobs[number])
            ended.put((number, outcome))

    for count in range(min(threads, len(jobs))):
        threading.Thread(target=serve, name=f"coppice-parallel-{count}", daemon=True).start()
    results: dict[int, _Result] = {}
    try:
        for _ in jobs:
            number, outcome = _next_of(ended)
            results[number] = outcome.value()
            on_done(jobs[number])
    finally:
        stopping.set()
    return tuple(results[number] for number in range(len(jobs)))


def _next_of(ended: queue.SimpleQueue[_Item]) -> _Item:
    # A signal that comes just before a wait without an end is seen only behind it: Ctrl-C would do nothing.
    while True:
        with contextlib.suppress(queue.Empty):
            return ended.get(timeout=_LOOK_SECONDS)


def _one_after_the_other(
    jobs: Sequence[_Job], work: Callable[[_Job], _Result], on_done: Callable[[_Job], object]
) -> list[_Result]:
    results = []
    for job in jobs:
        results.append(work(job))
        on_done(job)
    return results
