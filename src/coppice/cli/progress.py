# SPDX-License-Identifier: Apache-2.0
"""Progress for people, on standard error: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from coppice.log import escape, redact
from coppice.monitor import SILENT, Monitor, Unit
from coppice.settings.quantities import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

QUIET_SECONDS = 2.0
"""A task shorter than this is not worth a line."""
RATE_SECONDS = 0.5
"""A rate needs a while."""
INTERVAL_SECONDS = 10.0
"""Between two lines on the same task."""


def make_monitor(stream: TextIO, *, silent: bool = False, color: bool = True) -> Monitor:
    """Return what suits ``stream``: bars on a terminal, lines elsewhere, nothing when ``silent``."""
    if silent:
        return SILENT
    return RichMonitor(stream, color=color) if stream.isatty() else PlainMonitor(stream)


_LONGEST_NOTE = 90


def _shortened(text: str) -> str:
    """Return ``text`` cut to what still reads beside a bar: programs say long things."""
    return text if len(text) <= _LONGEST_NOTE else f"{text[: _LONGEST_NOTE - 1]}…"


class PlainMonitor:
    """One line an event, for tasks that take longer than two seconds and at most every ten seconds each."""

    def __init__(self, stream: TextIO, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[_PlainTask]:
        """Open a task."""
        task = _PlainTask(self, label, total, unit, self._monotonic)
        try:
            yield task
        except BaseException:
            task.end("failed")
            raise
        task.end("done")

    def message(self, text: str) -> None:
        """Print one line."""
        self._stream.write(f"{escape(redact(text))}\n")
        self._stream.flush()


class _PlainTask:
    def __init__(
        self, monitor: PlainMonitor, label: str, total: int | None, unit: Unit, monotonic: Callable[[], float]
    ) -> None:
        self._monitor, self._label, self._total, self._unit, self._monotonic = monitor, label, total, unit, monotonic
        self._done, self._note, self._started = 0, "", monotonic()
        self._said = self._started + QUIET_SECONDS - INTERVAL_SECONDS

    def advance(self, amount: int) -> None:
        self._done += amount
        self._tell()

    def reach(self, amount: int, total: int | None = None) -> None:
        self._done, self._total = amount, self._total if total is None else total
        self._tell()

    def note(self, text: str) -> None:
        self._note = _shortened(text)
        self._tell()

    def end(self, how: str) -> None:
        seconds = self._monotonic() - self._started
        if seconds >= QUIET_SECONDS or how == "failed":
            self._monitor.message(f"{self._label}: {how} after {format_duration(seconds)}{self._rate(seconds)}")

    def _tell(self) -> None:
        now = self._monotonic()
        if now - self._said < INTERVAL_SECONDS:
            return
        self._said = now
        parts = [self._progress(), self._note]
        said = ", ".join(part for part in parts if part) or "under way"
        self._monitor.message(f"{self._label}: {said}{self._rate(now - self._started)}")

    def _progress(self) -> str:
        if not self._done:
            return ""
        amounts = [self._amount(self._done)] + ([self._amount(self._total)] if self._total else [])
        share = f" ({100 * self._done // self._total} %)" if self._total else ""
        return " of ".join(amounts) + share

    def _amount(self, amount: int) -> str:
        if self._unit is Unit.BYTES:
            return format_size(amount)
        return format_duration(amount) if self._unit is Unit.SECONDS else str(amount)

    def _rate(self, seconds: float) -> str:
        if self._unit is not Unit.BYTES or not self._done or seconds <= 0:
            return ""
        return f" ({format_size(round(self._done / seconds))}/s)"


class RichMonitor:
    """Bars with amounts and rates; the display is there while at least one task is open."""

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self._stream, self._color = stream, color
        self._progress: Progress | None = None
        self._open = 0
        # Images are fetched side by side.
        self._lock = threading.Lock()

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[_RichTask]:
        """Open a task with a bar."""
        with self._lock:
            progress = self._display()
            self._open += 1
            if self._open == 1:
                progress.start()
        shown = _plain(label)
        identifier = progress.add_task(shown, total=total, unit=unit, note="")
        task = _RichTask(progress, identifier, unit, total)
        try:
            yield task
        except BaseException:
            task.end("failed")
            raise
        else:
            task.end("done")
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    progress.stop()
                    self._progress = None

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        if self._progress is not None:
            # rich would read [word] as markup, and fail at [/]: text of strangers must not style the screen.
            self._progress.console.print(_plain(text), markup=False, emoji=False)
        else:
            self._stream.write(f"{_plain(text)}\n")
            self._stream.flush()

    def _display(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            console = Console(file=self._stream, highlight=False, no_color=True if not self._color else None)
            self._progress = Progress(
                SpinnerColumn(finished_text="•"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                console=console,
            )
        return self._progress


class _RichTask:
    def __init__(self, progress: Progress, identifier: TaskID, unit: Unit, total: int | None) -> None:
        self._progress, self._identifier, self._unit = progress, identifier, unit
        self._done, self._total, self._note, self._started = 0, total, "", time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        self._show()

    def reach(self, amount: int, total: int | None = None) -> None:
        self._done, self._total = amount, self._total if total is None else total
        self._show()

    def note(self, text: str) -> None:
        self._note = _shortened(text)
        self._show()

    def end(self, how: str) -> None:
        self._note = how if how == "failed" else ""
        if how == "done" and self._total is None:
            self._total = self._done or 1
            self._done = self._total
        self._show()
        self._progress.stop_task(self._identifier)

    def _show(self) -> None:
        parts = [self._amounts(), self._note]
        self._progress.update(
            self._identifier,
            completed=self._done,
            total=self._total,
            note=_plain("  ".join(part for part in parts if part)),
        )

    def _amounts(self) -> str:
        if self._unit is not Unit.BYTES:
            return ""
        seconds = time.monotonic() - self._started
        rate = f"  {format_size(round(self._done / seconds))}/s" if seconds > RATE_SECONDS and self._done else ""
        whole = f" of {format_size(self._total)} ({100 * self._done // self._total} %)" if self._total else ""
        return f"{format_size(self._done)}{whole}{rate}"


def _plain(text: str) -> str:
    return escape(redact(text))
