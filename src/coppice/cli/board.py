# SPDX-License-Identifier: Apache-2.0
"""All builds of a run at a glance, on standard error: a table that changes on a terminal, a line an event elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from coppice.execution.model import SilentBoard
from coppice.log import escape, redact
from coppice.monitor import Monitor, Unit
from coppice.settings.quantities import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from coppice.execution.model import Ended

_LONGEST_NOTE = 60
_WAITS, _AT_WORK, _DONE, _FAILED, _KEPT = "waits", "at work", "done", "failed", "not built"
_MARKS = {_WAITS: "·", _AT_WORK: "▸", _DONE: "✓", _FAILED: "✗", _KEPT: "-"}


class ShownBoard(Protocol):
    """A board that is there while a block runs."""

    def plan(self, needs: Mapping[str, str | None]) -> None:
        """Tell what is to be done."""
        ...

    def begin(self, name: str) -> Monitor:
        """Tell that a piece of work has begun."""
        ...

    def end(self, ended: Ended[Any]) -> None:
        """Tell what became of one."""
        ...


@contextmanager
def shown_board(stream: TextIO, monitor: Monitor, *, silent: bool, color: bool = True) -> Iterator[ShownBoard]:
    """Yield what suits ``stream``; one build alone is shown by ``monitor``, as any other work.

    Args:
        stream: Where people look.
        monitor: Where the progress of a single build, and of lines, is told.
        silent: Whether nothing is shown.
        color: Whether colour is wanted.
    """
    if silent:
        yield SilentBoard(monitor)
    elif stream.isatty():
        with LiveBoard(stream, monitor, color=color) as board:
            yield board
    else:
        yield LineBoard(monitor)


class LineBoard:
    """A line for what begins and what ends, between those of a monitor.

    Args:
        monitor: Where lines are told.
        monotonic: Tells time.
    """

    def __init__(self, monitor: Monitor, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monitor = monitor
        self._monotonic = monotonic
        self._begun: dict[str, float] = {}
        self._is_single = True

    def plan(self, needs: Mapping[str, str | None]) -> None:
        """Say what is to be done, where it is more than one."""
        self._is_single = len(needs) <= 1
        if not self._is_single:
            told = [name if parent is None else f"{name} (upon {parent})" for name, parent in needs.items()]
            self._monitor.message(f"{len(needs)} builds: {', '.join(told)}")

    def begin(self, name: str) -> Monitor:
        """Say that one has begun."""
        self._begun[name] = self._monotonic()
        if not self._is_single:
            self._monitor.message(f"{name}: begun")
        return self._monitor

    def end(self, ended: Ended[Any]) -> None:
        """Say what became of one."""
        if not self._is_single:
            taken = self._monotonic() - self._begun.get(ended.name, self._monotonic())
            self._monitor.message(f"{ended.name}: {_became(ended, taken)}")


@dataclass(slots=True)
class _Row:
    name: str
    parent: str | None
    state: str = _WAITS
    said: str = ""
    begun: float | None = None
    taken: float | None = None
    tasks: dict[int, _RowTask] = field(default_factory=dict)


class LiveBoard:
    """A table with a row a build, which changes as they go on.

    Args:
        stream: The terminal.
        monitor: Shows a single build.
        color: Whether colour is wanted.
        monotonic: Tells time.
    """

    def __init__(
        self,
        stream: TextIO,
        monitor: Monitor,
        *,
        color: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._monitor, self._color, self._monotonic = stream, monitor, color, monotonic
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None
        # Builds tell of themselves in threads of their own, and the screen is drawn in another.
        self._lock = threading.RLock()

    def __enter__(self) -> LiveBoard:  # noqa: PYI034 - nothing is derived from it
        """Show nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state of the table on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def plan(self, needs: Mapping[str, str | None]) -> None:
        """Show a row for each."""
        if len(needs) <= 1:
            return
        from rich.console import Console
        from rich.live import Live

        self._rows = {name: _Row(name, parent) for name, parent in needs.items()}
        console = Console(file=self._stream, highlight=False, no_color=True if not self._color else None)
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=4, transient=False)
        self._live.start()

    def begin(self, name: str) -> Monitor:
        """Show that one has begun."""
        if self._live is None:
            return self._monitor
        with self._lock:
            row = self._rows[name]
            row.state, row.begun = _AT_WORK, self._monotonic()
        return _RowMonitor(self, row)

    def end(self, ended: Ended[Any]) -> None:
        """Show what became of one."""
        if self._live is None:
            return
        with self._lock:
            row = self._rows[ended.name]
            row.taken = None if row.begun is None else self._monotonic() - row.begun
            row.state = _KEPT if ended.kept_by is not None else _FAILED if ended.error is not None else _DONE
            row.said = "" if ended.is_done else _became(ended, 0.0)
            row.tasks.clear()

    def table(self) -> Table:
        """Return the table as it is now."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 1), show_header=False)
        for style in ("", "bold", "", "", ""):
            table.add_column(style=style, no_wrap=True, overflow="ellipsis")
        with self._lock:
            for row in self._rows.values():
                table.add_row(_MARKS[row.state], _plain(row.name), row.state, self._time(row), _plain(_doing(row)))
            table.caption = self._sum()
            table.caption_justify = "left"
        return table

    def say(self, text: str) -> None:
        """Print a line above the table."""
        live = self._live
        if live is not None:
            live.console.print(_plain(text))

    def _time(self, row: _Row) -> str:
        if row.begun is None:
            return ""
        return format_duration(round(self._monotonic() - row.begun if row.taken is None else row.taken))

    def _sum(self) -> str:
        states = [row.state for row in self._rows.values()]
        counts = [(states.count(state), state) for state in _MARKS]
        return f"{len(states)} builds: " + ", ".join(f"{count} {state}" for count, state in counts if count)


class _RowMonitor:
    """Shows the progress of one build in its row."""

    def __init__(self, board: LiveBoard, row: _Row) -> None:
        self._board, self._row = board, row

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[_RowTask]:
        """Open a task."""
        task = _RowTask(label, total)
        self._row.tasks[id(task)] = task
        try:
            yield task
        finally:
            self._row.tasks.pop(id(task), None)

    def message(self, text: str) -> None:
        """Print a line above the table."""
        self._board.say(text)


class _RowTask:
    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._done, self._total, self._note = label, 0, total, ""

    def advance(self, amount: int) -> None:
        self._done += amount

    def reach(self, amount: int, total: int | None = None) -> None:
        self._done, self._total = amount, self._total if total is None else total

    def note(self, text: str) -> None:
        self._note = text if len(text) <= _LONGEST_NOTE else f"{text[: _LONGEST_NOTE - 1]}…"

    def __str__(self) -> str:
        share = f" {100 * self._done // self._total} %" if self._total and self._done else ""
        return f"{self._label}{share}{f': {self._note}' if self._note else ''}"


def _doing(row: _Row) -> str:
    if row.state == _WAITS:
        return "" if row.parent is None else f"for {row.parent}"
    return row.said or "; ".join(str(each) for each in tuple(row.tasks.values())[:2])


def _became(ended: Ended[Any], seconds: float) -> str:
    if ended.kept_by is not None:
        return f"not built, since {ended.kept_by} failed"
    if ended.error is not None:
        return f"failed: {ended.error.message}"
    return f"done after {format_duration(round(seconds))}"


def _plain(text: str) -> Text:
    from rich.text import Text

    # In a str, rich reads [word] as markup, and fails at [/]: text of strangers must not style the screen.
    return Text(escape(redact(text)))
