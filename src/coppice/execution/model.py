# SPDX-License-Identifier: Apache-2.0
"""`Work` and `Ended`: pieces of work that need each other, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.errors import CoppiceError
    from coppice.monitor import Monitor

Result = TypeVar("Result")
ENDED_WORKERS = "ended_workers"
"""In the context of an error of a cluster: how many workers ended over one piece of work, which is then to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Result]):
    """A piece of work.

    Attributes:
        name: What others need it by.
        do: Does it; called once, in any thread, after all that it needs has ended well. It is handed what tells whether
            the run is to stop: programs are ended without it, other waiting has to ask.
        needs: Names of what must have ended well before.
    """

    name: str
    do: Callable[[Callable[[], bool]], Result]
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Generic[Result]):
    """What became of a piece of work.

    Attributes:
        name: Of the work.
        result: What it gave; None where it did not end well.
        error: Why it failed; None: it did not fail.
        kept_by: Name of the work that failed and that it needed, so that it was not begun; None: it was begun.
    """

    name: str
    result: Result | None = None
    error: CoppiceError | None = None
    kept_by: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return self.error is None and self.kept_by is None


class Board(Protocol):
    """Where a person sees what becomes of all pieces of work."""

    def plan(self, needs: Mapping[str, str | None]) -> None:
        """Tell what is to be done, in this order, and what each waits for; called once, before anything begins."""
        ...

    def begin(self, name: str) -> Monitor:
        """Tell that a piece of work has begun; return where its progress is told. Called in any thread."""
        ...

    def end(self, ended: Ended[Any]) -> None:
        """Tell what became of one."""
        ...


class SilentBoard:
    """Shows nothing but the progress of what is under way.

    Args:
        monitor: Where progress is told.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def plan(self, needs: Mapping[str, str | None]) -> None:
        """Show nothing."""

    def begin(self, name: str) -> Monitor:
        """Return the monitor of all."""
        return self._monitor

    def end(self, ended: Ended[Any]) -> None:
        """Show nothing."""
