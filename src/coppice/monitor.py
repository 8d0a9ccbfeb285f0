# SPDX-License-Identifier: Apache-2.0
"""Progress: work tells a `Monitor`; how it is shown is the command line's affair."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Unit(StrEnum):
    """What a task counts."""

    BYTES = "bytes"
    STEPS = "steps"
    SECONDS = "seconds"


class Task(Protocol):
    """One piece of work that takes a while."""

    def advance(self, amount: int) -> None:
        """Add ``amount`` to what is done."""
        ...

    def reach(self, amount: int, total: int | None = None) -> None:
        """Set what is done to ``amount`` (and the whole to ``total``, where it became known)."""
        ...

    def note(self, text: str) -> None:
        """Say in a few words what is going on now."""
        ...


class Monitor(Protocol):
    """Where progress is told."""

    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> AbstractContextManager[Task]:
        """Open a task; leaving the context ends it, an exception marks it failed."""
        ...

    def message(self, text: str) -> None:
        """Tell the reader something that stands alone."""
        ...


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass

    def reach(self, amount: int, total: int | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentMonitor:
    """Shows nothing (tests, and callers that do not care)."""

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit = Unit.STEPS) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield _SilentTask()

    def message(self, text: str) -> None:
        """Show nothing."""


SILENT = SilentMonitor()
SILENT_TASK: Task = _SilentTask()
