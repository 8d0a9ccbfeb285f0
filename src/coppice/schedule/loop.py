# SPDX-License-Identifier: Apache-2.0
"""The loop of the service: start what is due, look after what runs, obey signals, until it is told to stop.

It does no job itself and asks nobody over the network, so nothing that a job meets can hold it up.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from coppice.errors import CoppiceError, DatabaseError
from coppice.log import get_logger
from coppice.schedule.due import REBUILD, TELL, busy_seconds, delay_seconds, jobs_of
from coppice.schedule.model import JobRecord, Outcome
from coppice.workflows.facts import has_builds, hook_backlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.schedule.announce import Announcer
    from coppice.schedule.model import Ended, Job
    from coppice.schedule.records import JobRecords
    from coppice.schedule.runs import Finished, Runs
    from coppice.schedule.signals import Signals
    from coppice.schedule.standing import Board
    from coppice.settings.model import Settings

LONGEST_PAUSE_SECONDS: Final = 30.0
"""How often the loop goes round where nothing happens."""
SHORTEST_INTERVAL_SECONDS: Final = 1.0
"""From the end of a run to the beginning of the next, where the run took longer than its interval."""
_log = get_logger("schedule")
_T = TypeVar("_T")


class Loop:
    """Runs jobs when they are due.

    Args:
        settings: The settings.
        read_settings: Reads them anew.
        database: Where it is noted how jobs go.
        records: Likewise.
        runs: Starts jobs.
        board: Where others read how the service stands.
        announcer: Who wants to be told of it.
        clock: Tells the time.
        on_reload: Called with new settings before they count; what it raises refuses them.
        draw: Draws a number from 0 to 1.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read_settings: Callable[[], Settings],
        database: Database,
        records: JobRecords,
        runs: Runs,
        board: Board,
        announcer: Announcer,
        clock: Clock,
        on_reload: Callable[[Settings], None] = lambda _: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings
        self._database = database
        self._records = records
        self._runs = runs
        self._board = board
        self._announcer = announcer
        self._clock = clock
        self._on_reload = on_reload
        self._draw = draw
        self._jobs: dict[str, Job] = {}
        self._known = dict(records.all())
        self._due: dict[str, float] = {}
        self._look_at_hooks = 0.0
        self._alive_at = 0.0

    def run(self, signals: Signals) -> None:
        """Go round until the process is asked to stop and every run has ended."""
        self._plan_jobs()
        self._board.write(started_at=self._clock.now(), records=dict(self._known))
        self._announcer.ready(self._summary())
        _log.info("the service is ready", extra={"fields": {"jobs": list(self._jobs)}})
        heeded = 0
        while True:
            for finished in self._runs.finished():
                self._note_end(finished)
            if signals.stops > heeded:
                self._stop(heeded := signals.stops)
            if heeded and not self._runs:
                break
            if signals.take_reload() and not heeded:
                self._reload()
            if not heeded:
                self._start_due()
            self._runs.check_time(self._settings.service.stop_seconds)
            self._show()
            signals.wait(self._pause(stopping=bool(heeded)))
        _log.info("the service has stopped")

    def _plan_jobs(self) -> None:
        """Take the jobs of the settings; each is due by when it ran last."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        self._jobs = {job.name: job for job in jobs_of(self._settings, builds=has_builds(self._settings))}
        self._due = {}
        for name, job in self._jobs.items():
            jitter = self._settings.service.jitter
            delay = delay_seconds(job, self._known.get(name), now, jitter=jitter, draw=self._draw())
            if delay is not None:
                self._due[name] = monotonic + delay

    def _start_due(self) -> None:
        if self._settings.service.rebuild and REBUILD not in self._jobs and has_builds(self._settings):
            # The first appliance that was built here came into the catalogue.
            self._plan_jobs()
        now = self._clock.monotonic()
        self._find_hooks_due(now)
        for name, job in self._jobs.items():
            running = self._runs.names
            if name in running or job.apart_from & running or self._due.get(name, now + 1) > now:
                continue
            del self._due[name]
            self._begin(job)

    def _begin(self, job: Job) -> None:
        at = self._clock.now()
        record = self._write(lambda: self._records.begin(job.name, at))
        self._known[job.name] = record or self._known.get(job.name) or JobRecord(name=job.name, started_at=at)
        _log.info("job begins", extra={"fields": {"job": job.name}})
        failed = self._runs.start(job, self._settings.service.job_timeout_seconds)
        if failed is not None:
            self._note_end(failed)

    def _note_end(self, finished: Finished) -> None:
        job, ended = finished.job, finished.ended
        at = self._clock.now()
        record = self._write(lambda: self._records.end(job.name, ended, at=at, seconds=finished.seconds))
        if record is not None:
            self._known[job.name] = record
        self._due_again(job, ended, finished.seconds)
        if job.name != TELL:
            # It may have told of something; and that it failed, or does so no more, is to be told itself.
            self._look_at_hooks = 0.0
        _say_ended(finished)

    def _due_again(self, job: Job, ended: Ended, seconds: float) -> None:
        self._due.pop(job.name, None)
        wanted = self._jobs.get(job.name)
        if wanted is None or wanted.interval_seconds is None:
            return
        now = self._clock.monotonic()
        if ended.outcome is Outcome.BUSY or ended.is_left:
            self._due[job.name] = now + busy_seconds(wanted)
        else:
            put_off = wanted.interval_seconds * (1 + self._settings.service.jitter * self._draw())
            self._due[job.name] = now + max(SHORTEST_INTERVAL_SECONDS, put_off - seconds)

    def _find_hooks_due(self, now: float) -> None:
        """Look, now and then, whether a hook is to be told of something; what failed is tried again by and by."""
        if TELL not in self._jobs or TELL in self._due or TELL in self._runs.names or now < self._look_at_hooks:
            return
        self._look_at_hooks = now + LONGEST_PAUSE_SECONDS
        backlog = self._write(lambda: hook_backlog(self._settings, self._database))
        if backlog:
            self._look_at_hooks = now + max(LONGEST_PAUSE_SECONDS, self._settings.events.retry_seconds)
            self._due[TELL] = now

    def _reload(self) -> None:
        self._announcer.reloading()
        try:
            found = self._read_settings()
            self._on_reload(found)
        except CoppiceError as problem:
            _log.error(
                "the settings could not be read anew; those from before count",
                extra={"fields": {"code": problem.code, "error": problem.message}},
            )
            self._board.write(settings_error=problem.code)
        else:
            self._settings = found
            self._plan_jobs()
            self._board.write(settings_error=None, reloads=self._board.read().reloads + 1)
            _log.info("the settings were read anew", extra={"fields": {"jobs": list(self._jobs)}})
        self._announcer.ready(self._summary())

    def _stop(self, times: int) -> None:
        self._board.write(stopping=True)
        self._announcer.stopping()
        if times == 1:
            _log.info("the service stops", extra={"fields": {"running": sorted(self._runs.names)}})
            self._runs.stop()
        else:
            _log.warning("asked to stop once more: what still runs is ended now")
            self._runs.end()

    def _show(self) -> None:
        monotonic, now = self._clock.monotonic(), self._clock.now()
        running = self._runs.names
        self._board.write(
            beat=monotonic,
            running={name: self._known[name].started_at or now for name in running},
            next_at={name: now + timedelta(seconds=max(0.0, at - monotonic)) for name, at in self._due.items()},
            records=dict(self._known),
        )
        if self._announcer.watchdog_seconds is not None and monotonic >= self._alive_at:
            self._announcer.alive()
            self._alive_at = monotonic + self._announcer.watchdog_seconds

    def _pause(self, *, stopping: bool) -> float:
        now = self._clock.monotonic()
        waits = [LONGEST_PAUSE_SECONDS, self._runs.next_check(self._settings.service.stop_seconds)]
        waits.append(self._announcer.watchdog_seconds)
        if not stopping:
            running = self._runs.names
            waits += [at - now for name, at in self._due.items() if not self._waits_for(name, running)]
        return max(0.0, min(each for each in waits if each is not None))

    def _waits_for(self, name: str, running: frozenset[str]) -> bool:
        """Tell whether a job cannot begin before another has ended; a signal comes when it does."""
        return name in running or bool(self._jobs[name].apart_from & running)

    def _write(self, what: Callable[[], _T]) -> _T | None:
        """Do something with the database; where that fails, go on without."""
        try:
            done = what()
        except DatabaseError as problem:
            _log.error("the database failed", extra={"fields": {"code": problem.code, "error": problem.message}})
            self._board.write(database_error=problem.code)
            return None
        self._board.write(database_error=None)
        return done

    def _summary(self) -> str:
        return f"jobs: {', '.join(self._jobs)}"


def _say_ended(finished: Finished) -> None:
    ended = finished.ended
    fields = {
        "job": finished.job.name,
        "outcome": str(ended.outcome),
        "exit_code": ended.exit_code,
        "seconds": round(finished.seconds, 1),
    }
    if ended.error is not None:
        fields |= {"code": ended.error_code, "error": ended.error}
    say = _log.error if ended.outcome is Outcome.FAILED else _log.info
    say("job ended", extra={"fields": fields})
