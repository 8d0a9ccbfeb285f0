# SPDX-License-Identifier: Apache-2.0
"""`Job`: what the service does again and again; `JobRecord`: how it went."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Outcome(StrEnum):
    """What became of a run of a job."""

    SUCCESS = "success"
    PARTIAL = "partial"
    """It ended; some of its items failed, and are tried again the next time."""
    FAILED = "failed"
    """It failed as a whole, crashed, or was ended for the time that it took."""
    BUSY = "busy"
    """Another run held the lock; it is tried again soon."""
    STOPPED = "stopped"
    """The service stopped, or was killed, before it had ended; it goes on when the service starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that is done again and again, as a process of its own.

    Attributes:
        name: How it is called in logs, metrics and the settings.
        words: The command: ``coppice`` with these arguments.
        interval_seconds: From the beginning of one run to that of the next; None: only when something asks for it.
        apart_from: Names of jobs that it does not run beside: they would do the same work twice.
    """

    name: str
    words: tuple[str, ...]
    interval_seconds: float | None
    apart_from: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of one run.

    Attributes:
        outcome: In one word.
        exit_code: Of the process; 128 and the number of the signal where one ended it; None: it was not started.
        error: Why, where it did not end well.
        error_code: Code of that error; None: it has none.
        is_left: Whether another run held a part of its work, one of several clouds: that is tried again soon.
    """

    outcome: Outcome
    exit_code: int | None
    error: str | None = None
    error_code: str | None = None
    is_left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job's runs, as far as they were noted.

    Attributes:
        name: The job.
        started_at: When its last run began; None: none did yet.
        ended_at: When that run ended; None: it is under way, or did not come to its end.
        succeeded_at: When a run last ended with everything done.
        outcome: Of the run that ended last: success, partial or failed.
        exit_code: Of that run.
        error: Why that run did not end well.
        seconds: How long that run took.
        runs: How many came to their end.
        failures: How many of them failed.
    """

    name: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    succeeded_at: datetime | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    error: str | None = None
    seconds: float | None = None
    runs: int = 0
    failures: int = 0

    @property
    def is_failing(self) -> bool:
        """Tell whether the run that ended last failed."""
        return self.outcome is Outcome.FAILED
