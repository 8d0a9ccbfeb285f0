# SPDX-License-Identifier: Apache-2.0
"""The record of jobs: when each ran and what came of it; events tell of the first failure, and of the recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.log import redact
from coppice.schedule.model import JobRecord, Outcome
from coppice.schedule.tables import JobRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.schedule.model import Ended

_MAX_ERROR_LENGTH: Final = 2000
_UNCOUNTED: Final = frozenset({Outcome.BUSY, Outcome.STOPPED})


class JobRecords:
    """What is noted of jobs in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, JobRecord]:
        """Return what is noted of each job, by its name.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            return {row.name: _read(row) for row in session.scalars(select(JobRow))}

    def begin(self, name: str, at: datetime) -> JobRecord:
        """Note that a run of a job begins.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, name)
            row.started_at, row.ended_at = at, None
            return _read(row)

    def end(self, name: str, ended: Ended, *, at: datetime, seconds: float) -> JobRecord:
        """Note what became of the run that began last.

        Of one that found another at work, or was stopped, nothing is noted: it did not come to its end, and says
        nothing of how the job goes. So a failure is told of once, however often the job is tried.

        Args:
            name: The job.
            ended: What became of it.
            at: When it ended.
            seconds: How long it took.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, name)
            if ended.outcome in _UNCOUNTED:
                return _read(row)
            _tell(session, row, ended, at)
            row.ended_at = at
            row.outcome, row.exit_code = str(ended.outcome), ended.exit_code
            row.error = None if ended.error is None else redact(ended.error)[:_MAX_ERROR_LENGTH]
            row.seconds = seconds
            row.runs += 1
            if ended.outcome is Outcome.FAILED:
                row.failures += 1
            if ended.outcome is Outcome.SUCCESS:
                row.succeeded_at = at
            return _read(row)


def _tell(session: Session, row: JobRow, ended: Ended, at: datetime) -> None:
    was_failing, fails = row.outcome == Outcome.FAILED, ended.outcome is Outcome.FAILED
    if was_failing == fails:
        return
    facts: dict[str, object] = {"job": row.name, "exit_code": ended.exit_code}
    if fails:
        facts |= {"error": {"code": ended.error_code, "message": ended.error}}
    kind = EventKind.JOB_FAILED if fails else EventKind.JOB_RECOVERED
    write_event(session, kind, subject=row.name, facts=facts, at=at)


def _row(session: Session, name: str) -> JobRow:
    row = session.get(JobRow, name)
    if row is None:
        row = JobRow(name=name, runs=0, failures=0)
        session.add(row)
    return row


def _read(row: JobRow) -> JobRecord:
    return JobRecord(
        name=row.name,
        started_at=row.started_at,
        ended_at=row.ended_at,
        succeeded_at=row.succeeded_at,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        exit_code=row.exit_code,
        error=row.error,
        seconds=row.seconds,
        runs=row.runs,
        failures=row.failures,
    )
