# SPDX-License-Identifier: Apache-2.0
"""The service: one a state directory; its loop, who listens, and what both are made of. And the same once, by hand."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coppice.errors import InterruptedRunError, MachineError, SettingsError
from coppice.schedule.announce import Announcer
from coppice.schedule.due import delay_seconds, jobs_of
from coppice.schedule.listener import Listener
from coppice.schedule.lock import run_lock
from coppice.schedule.loop import Loop
from coppice.schedule.pages import Pages
from coppice.schedule.records import JobRecords
from coppice.schedule.runs import Runs
from coppice.schedule.signals import Signals
from coppice.schedule.standing import Board
from coppice.schedule.tally import Tally
from coppice.workflows.facts import has_builds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.schedule.model import Job, JobRecord
    from coppice.schedule.runs import Finished
    from coppice.schedule.work import Command
    from coppice.settings.model import Settings

LOCK: Final = "locks/service.lock"
"""In the state directory: two services would do everything twice."""
_POLL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRun:
    """When a job would begin.

    Attributes:
        job: Which.
        record: How it went so far; None: it never ran.
        delay_seconds: In how many seconds it begins at the earliest; None: when something asks for it.
    """

    job: Job
    record: JobRecord | None
    delay_seconds: float | None


def next_runs(settings: Settings, database: Database | None, clock: Clock) -> tuple[NextRun, ...]:
    """Return when each job would begin if the service were started now; nothing is changed.

    Raises:
        DatabaseError: The database failed.
    """
    records = {} if database is None else JobRecords(database).all()
    now = clock.now()
    return tuple(
        NextRun(job=job, record=records.get(job.name), delay_seconds=delay_seconds(job, records.get(job.name), now))
        for job in jobs_of(settings, builds=has_builds(settings))
    )


def serve(
    *,
    settings: Settings,
    read_settings: Callable[[], Settings],
    database: Database,
    clock: Clock,
    command: Command,
    environ: Mapping[str, str],
    on_listen: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the service until the process is asked to stop.

    Args:
        settings: All settings.
        read_settings: Reads them anew.
        database: Where it is noted how jobs go.
        clock: Tells the time.
        command: How a job is run.
        environ: What jobs find in their environment.
        on_listen: Told the port each time that the service begins to listen.

    Raises:
        LockedError: Another service is at work on this state directory.
        MachineError: The address of the settings cannot be listened on.
        SettingsError: It is no address.
        DatabaseError: The database failed.
    """
    with ExitStack() as stack:
        stack.enter_context(run_lock(settings.state_directory / LOCK))
        board, records = Board(), JobRecords(database)
        pages = Pages(settings=settings, database=database, board=board, tally=Tally(database), clock=clock)
        door = Door(pages, on_listen)
        stack.callback(door.close)
        door.open(settings.service.listen)
        runs = Runs(command, environ, clock)
        # Nothing is left running, whatever ends the loop.
        stack.callback(runs.end)

        def on_reload(found: Settings) -> None:
            _check_same_place(settings, found)
            door.open(found.service.listen)
            pages.settings = found

        loop = Loop(
            settings,
            read_settings=read_settings,
            database=database,
            records=records,
            runs=runs,
            board=board,
            announcer=Announcer(environ),
            clock=clock,
            on_reload=on_reload,
        )
        loop.run(stack.enter_context(Signals()))


def run_once(
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    command: Command,
    environ: Mapping[str, str],
    only: Collection[str] = (),
) -> tuple[Finished, ...]:
    """Run every job once, one after the other, whether it is due or not; one that fails stops no other.

    Args:
        settings: All settings.
        database: Where it is noted how jobs go.
        clock: Tells the time.
        command: How a job is run.
        environ: What jobs find in their environment.
        only: Names of the jobs to run; empty: all.

    Raises:
        LockedError: The service is at work on this state directory.
        InterruptedRunError: The process was asked to stop; so was the job, and it has ended.
        DatabaseError: The database failed.
    """
    records = JobRecords(database)
    done: list[Finished] = []
    with run_lock(settings.state_directory / LOCK), Signals() as signals:
        runs = Runs(command, environ, clock)
        try:
            for job in jobs_of(settings, builds=has_builds(settings)):
                if not only or job.name in only:
                    records.begin(job.name, clock.now())
                    finished = _one(job, runs, signals, settings)
                    records.end(job.name, finished.ended, at=clock.now(), seconds=finished.seconds)
                    done.append(finished)
                if signals.stops:
                    raise InterruptedRunError(
                        "asked to stop", resolution="Nothing is half-made; run the same command again to go on."
                    )
        finally:
            runs.end()
    return tuple(done)


def job_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the jobs that the settings ask for."""
    return tuple(job.name for job in jobs_of(settings, builds=has_builds(settings)))


def _one(job: Job, runs: Runs, signals: Signals, settings: Settings) -> Finished:
    failed = runs.start(job, settings.service.job_timeout_seconds)
    if failed is not None:
        return failed
    stop_seconds = settings.service.stop_seconds
    heeded = 0
    while not (found := runs.finished()):
        if signals.stops > heeded:
            heeded = signals.stops
            if heeded == 1:
                runs.stop()
            else:
                runs.end()
        runs.check_time(stop_seconds)
        signals.wait(min(_POLL_SECONDS, runs.next_check(stop_seconds) or 0.0))
    return found[0]


def _check_same_place(before: Settings, after: Settings) -> None:
    if (before.state_directory, before.database_url) != (after.state_directory, after.database_url):
        raise SettingsError(
            "the state directory or the database is another one in the new settings",
            resolution="Restart the service: what it holds open belongs to the old ones.",
        )


class Door:
    """Where the service listens just now, if anywhere."""

    def __init__(self, pages: Pages, on_listen: Callable[[int], None]) -> None:
        self._pages = pages
        self._on_listen = on_listen
        self._listener: Listener | None = None

    def open(self, text: str | None) -> None:
        """Listen there, and nowhere else; where that fails, all stays as it was."""
        before = self._listener.text if self._listener is not None else None
        if before == text:
            return
        try:
            opened = self._listen(text)
        except MachineError:
            if before is None:
                raise
            # What is in the way may be the address that is given up: the same port, on all addresses or on one.
            self.close()
            try:
                opened = self._listen(text)
            except MachineError:
                self._listener = self._listen(before)
                raise
        self.close()
        self._listener = opened
        if opened is not None:
            self._on_listen(opened.port)

    def _listen(self, text: str | None) -> Listener | None:
        return None if text is None else Listener(text, self._pages.answer)

    def close(self) -> None:
        """Listen nowhere."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
