# SPDX-License-Identifier: Apache-2.0
"""The runs that are under way: started, watched for their time, told to stop, and ended where they do not.

Nothing here waits: whoever owns the runs asks again and again, and does other things meanwhile.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError
from coppice.schedule.model import Ended, Outcome
from coppice.schedule.work import judge, timed_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.clock import Clock
    from coppice.process.child import Child
    from coppice.schedule.model import Job
    from coppice.schedule.work import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that ended.

    Attributes:
        job: Of which job.
        ended: What became of it.
        seconds: How long it took.
    """

    job: Job
    ended: Ended
    seconds: float


class Runs:
    """Runs of jobs, each a process; at most one of each job.

    Args:
        command: How a job is run.
        environ: What jobs find in their environment.
        clock: Measures durations.
    """

    def __init__(self, command: Command, environ: Mapping[str, str], clock: Clock) -> None:
        self._command = command
        self._environ = environ
        self._clock = clock
        self._runs: dict[str, _Run] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._runs)

    @property
    def names(self) -> frozenset[str]:
        """The jobs of which a run is under way."""
        return frozenset(self._runs)

    def pids(self) -> tuple[int, ...]:
        """Return the processes of the runs."""
        return tuple(run.child.pid for run in self._runs.values())

    def start(self, job: Job, timeout_seconds: float) -> Finished | None:
        """Start a run; return what became of it where it could not even be started, else None.

        Args:
            job: Of which none is under way.
            timeout_seconds: After which it is told to stop.
        """
        try:
            child = self._command.start(job, self._environ)
        except ToolFailedError as problem:
            failed = Ended(outcome=Outcome.FAILED, exit_code=None, error=problem.message, error_code=problem.code)
            return Finished(job=job, ended=failed, seconds=0.0)
        now = self._clock.monotonic()
        self._runs[job.name] = _Run(job, child, started=now, time_is_up=now + timeout_seconds)
        return None

    def finished(self) -> tuple[Finished, ...]:
        """Return the runs that have ended since it was asked last."""
        found = []
        for run in list(self._runs.values()):
            status = run.child.poll()
            if status is None:
                continue
            del self._runs[run.job.name]
            seconds = self._clock.monotonic() - run.started
            found.append(Finished(job=run.job, ended=run.judge(status), seconds=seconds))
            run.child.close()
        return tuple(found)

    def check_time(self, stop_seconds: float) -> None:
        """Tell runs whose time is up to stop, and end those that were told so ``stop_seconds`` ago."""
        now = self._clock.monotonic()
        for run in self._runs.values():
            if run.told is None and now >= run.time_is_up:
                run.is_late = True
                run.stop(now)
            elif run.told is not None and now >= run.told + stop_seconds:
                run.child.end()

    def stop(self) -> None:
        """Tell every run to stop; `check_time` ends those that do not."""
        now = self._clock.monotonic()
        for run in self._runs.values():
            if run.told is None:
                run.stop(now)

    def end(self) -> None:
        """End every run now."""
        for run in self._runs.values():
            run.told = run.told or self._clock.monotonic()
            run.child.end()

    def next_check(self, stop_seconds: float) -> float | None:
        """Return in how many seconds `check_time` has something to do; None: nothing is under way."""
        if not self._runs:
            return None
        now = self._clock.monotonic()
        times = [run.time_is_up if run.told is None else run.told + stop_seconds for run in self._runs.values()]
        return max(0.0, min(times) - now)


class _Run:
    """One run."""

    def __init__(self, job: Job, child: Child, *, started: float, time_is_up: float) -> None:
        self.job, self.child, self.started, self.time_is_up = job, child, started, time_is_up
        self.told: float | None = None
        self.is_late = False

    def stop(self, now: float) -> None:
        """Tell it to stop."""
        self.told = now
        self.child.tell(signal.SIGTERM)

    def judge(self, status: int) -> Ended:
        """Return what became of it."""
        if self.is_late:
            return timed_out(self.time_is_up - self.started, status)
        ended = judge(status, self.child.answer())
        if self.told is None or ended.outcome in {Outcome.SUCCESS, Outcome.PARTIAL}:
            return ended
        return Ended(outcome=Outcome.STOPPED, exit_code=ended.exit_code, error="the service stopped")
