# SPDX-License-Identifier: Apache-2.0
"""Progress of work on another machine: the worker's monitor sends small notes, and a `Relay` tells a monitor here.

A note is a dictionary of texts and numbers. Notes may come late, twice or never: they are for people only.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from coppice.monitor import Monitor, Task

    Note = dict[str, Any]

INTERVAL_SECONDS = 1.0
"""Between two notes on the same task."""
LONGEST_TEXT = 500
_MOST_TASKS = 100


class SendingMonitor:
    """A monitor that sends what it is told.

    Args:
        send: Takes a note to the other side; it must not wait.
        monotonic: Tells time.
    """

    def __init__(self, send: Callable[[Note], object], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._monotonic = monotonic
        self._numbers = itertools.count()

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[_SendingTask]:
        """Open a task."""
        number = next(self._numbers)
        self._send({"op": "open", "task": number, "label": label[:LONGEST_TEXT], "total": total, "unit": unit.value})
        task = _SendingTask(self._send, number, self._monotonic)
        try:
            yield task
        except BaseException:
            self._send({"op": "close", "task": number, "failed": True})
            raise
        self._send({"op": "close", "task": number, "failed": False})

    def message(self, text: str) -> None:
        """Send a message."""
        self._send({"op": "message", "text": text[:LONGEST_TEXT]})


class _SendingTask:
    def __init__(self, send: Callable[[Note], object], number: int, monotonic: Callable[[], float]) -> None:
        self._send, self._number, self._monotonic = send, number, monotonic
        self._done, self._total, self._text = 0, None, ""
        self._said = monotonic() - INTERVAL_SECONDS

    _total: int | None

    def advance(self, amount: int) -> None:
        self._done += amount
        self._tell()

    def reach(self, amount: int, total: int | None = None) -> None:
        self._done, self._total = amount, self._total if total is None else total
        self._tell()

    def note(self, text: str) -> None:
        self._text = text[:LONGEST_TEXT]
        self._tell()

    def _tell(self) -> None:
        now = self._monotonic()
        if now - self._said < INTERVAL_SECONDS:
            return
        self._said = now
        self._send({"op": "reach", "task": self._number, "done": self._done, "total": self._total, "text": self._text})


class _Lost(Exception):  # noqa: N818 - no failure of this program: it tells a task that it failed elsewhere
    pass


class Relay:
    """Tells a monitor what notes say.

    Args:
        monitor: Where it is told.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._open: dict[int, tuple[AbstractContextManager[Task], Task]] = {}
        # Notes come in one thread, and the end of the work in another.
        self._lock = threading.Lock()
        self._is_over = False

    def take(self, note: Mapping[str, Any]) -> None:
        """Tell what ``note`` says; one that says nothing is passed over."""
        with self._lock:
            if self._is_over:
                return
            match note:
                case {"op": "message", "text": str(text)}:
                    self._monitor.message(text)
                case {"op": "open", "task": int(number), "label": str(label), "total": total, "unit": str(unit)}:
                    self._begin(number, label, total, unit)
                case {"op": "reach", "task": int(number), "done": int(done), "total": total, "text": str(text)}:
                    if number in self._open:
                        task = self._open[number][1]
                        task.reach(done, total if isinstance(total, int) else None)
                        if text:
                            task.note(text)
                case {"op": "close", "task": int(number), "failed": bool(failed)}:
                    self._end(number, failed=failed)
                case _:
                    pass

    def end(self, *, failed: bool) -> None:
        """End the tasks that are still open: what comes from now on is late."""
        with self._lock:
            self._is_over = True
            for number in tuple(self._open):
                self._end(number, failed=failed)

    def _begin(self, number: int, label: str, total: object, unit: str) -> None:
        if number in self._open or len(self._open) >= _MOST_TASKS:
            return
        known = Unit(unit) if unit in {each.value for each in Unit} else Unit.STEPS
        opened = self._monitor.task(label, total=total if isinstance(total, int) else None, unit=known)
        self._open[number] = (opened, opened.__enter__())

    def _end(self, number: int, *, failed: bool) -> None:
        if number not in self._open:
            return
        opened, _ = self._open.pop(number)
        if not failed:
            opened.__exit__(None, None, None)
            return
        lost = _Lost("it ended elsewhere")
        opened.__exit__(_Lost, lost, None)
