# SPDX-License-Identifier: Apache-2.0
"""The pool: work in threads of this process. One that fails keeps back what needs it, and nothing else.

Threads do: what takes time here are programs. When the run is told to stop, the programs of all threads are ended, and
the threads are waited for, so that each cleans up after itself.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Generic

from coppice.errors import CoppiceError
from coppice.execution.model import Ended, Result
from coppice.process import ended_when

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from coppice.execution.model import Work

_LOOK_SECONDS = 0.5
STOP_SECONDS = 30.0
"""How long threads that are told to stop have for it."""


def run_all(
    works: Sequence[Work[Result]],
    *,
    at_once: int,
    on_ended: Callable[[Ended[Result]], object] = lambda _ended: None,
) -> tuple[Ended[Result], ...]:
    """Do ``works``; return what became of each, in their order.

    Args:
        works: In the order in which they begin where nothing else decides.
        at_once: Most at a time.
        on_ended: Called in the caller's thread with each that ended, or was kept back.

    Raises:
        ValueError: Two have one name, or they need each other in a circle, or something that is not there.
    """
    _check(works)
    return _Run(works, on_ended).go(max(1, at_once))


class _Run(Generic[Result]):
    def __init__(self, works: Sequence[Work[Result]], on_ended: Callable[[Ended[Result]], object]) -> None:
        self._works = works
        self._on_ended = on_ended
        self._waiting = {work.name: work for work in works}
        self._ended: dict[str, Ended[Result]] = {}
        self._answers: queue.SimpleQueue[tuple[str, Ended[Result] | BaseException]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def go(self, at_once: int) -> tuple[Ended[Result], ...]:
        try:
            while len(self._ended) < len(self._works):
                self._begin(at_once)
                if self._threads:
                    self._take()
        except BaseException:
            # A defect, or Ctrl-C: nothing new is begun, and what is under way ends its programs and cleans up.
            self._stopping.set()
            for thread in self._threads.values():
                thread.join(STOP_SECONDS)
            raise
        return tuple(self._ended[work.name] for work in self._works)

    def _begin(self, at_once: int) -> None:
        for work in tuple(self._waiting.values()):
            failed = next((name for name in sorted(work.needs) if self._is_lost(name)), None)
            if failed is not None:
                del self._waiting[work.name]
                self._note(Ended(name=work.name, kept_by=self._ended[failed].kept_by or failed))
                # Others may need this one in turn, wherever they stand.
                self._begin(at_once)
                return
            if len(self._threads) < at_once and all(name in self._ended for name in work.needs):
                del self._waiting[work.name]
                thread = threading.Thread(target=self._serve, args=(work,), name=f"coppice-{work.name}", daemon=True)
                self._threads[work.name] = thread
                thread.start()

    def _is_lost(self, name: str) -> bool:
        return name in self._ended and not self._ended[name].is_done

    def _take(self) -> None:
        # A signal that comes just before a wait without an end is seen only behind it: Ctrl-C would do nothing.
        while True:
            with contextlib.suppress(queue.Empty):
                name, answer = self._answers.get(timeout=_LOOK_SECONDS)
                break
        self._threads.pop(name).join()
        if isinstance(answer, BaseException):
            raise answer
        self._note(answer)

    def _note(self, ended: Ended[Result]) -> None:
        self._ended[ended.name] = ended
        self._on_ended(ended)

    def _serve(self, work: Work[Result]) -> None:
        carried = _Carried()
        answer: Ended[Result] | None = None
        with carried, ended_when(self._stopping.is_set):
            answer = Ended(name=work.name, result=work.do(self._stopping.is_set))
        problem = carried.problem
        if isinstance(problem, CoppiceError):
            answer = Ended(name=work.name, error=problem)
        self._answers.put((work.name, answer or problem or RuntimeError(work.name)))


class _Carried:
    """Takes what is raised from a thread to the caller's, where it is raised again."""

    problem: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.problem = problem
        return True


def _check(works: Sequence[Work[Result]]) -> None:
    needs = {work.name: set(work.needs) for work in works}
    if len(needs) != len(works):
        message = "two pieces of work have the same name"
        raise ValueError(message)
    missing = sorted(set().union(*needs.values()) - needs.keys()) if needs else []
    if missing:
        message = f"work is needed that is not there: {', '.join(missing)}"
        raise ValueError(message)
    while needs:
        ready = [name for name, wanted in needs.items() if not wanted & needs.keys()]
        if not ready:
            message = f"work that needs itself: {', '.join(sorted(needs))}"
            raise ValueError(message)
        for name in ready:
            del needs[name]
