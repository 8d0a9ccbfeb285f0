# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coppice.events.journal import Journal
from coppice.schedule.model import Ended, JobRecord, Outcome
from coppice.schedule.records import JobRecords

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
WELL = Ended(outcome=Outcome.SUCCESS, exit_code=0)
PARTLY = Ended(outcome=Outcome.PARTIAL, exit_code=1, error="one list failed", error_code="source-unreachable")
FAILED = Ended(outcome=Outcome.FAILED, exit_code=137, error="it was ended by SIGKILL", error_code="job-failed")
BUSY = Ended(outcome=Outcome.BUSY, exit_code=75, error="another run is at work", error_code="locked")
STOPPED = Ended(outcome=Outcome.STOPPED, exit_code=143)


def run(records, ended, minutes, name="sync"):
    records.begin(name, NOW + timedelta(minutes=minutes))
    return records.end(name, ended, at=NOW + timedelta(minutes=minutes + 1), seconds=60.0)


def told(database):
    return [(str(event.kind), event.subject) for event in Journal(database).events()]


def test_runs_are_counted_and_the_last_one_is_known(database):
    records = JobRecords(database)
    run(records, WELL, 0)
    run(records, FAILED, 10)
    assert records.all() == {
        "sync": JobRecord(
            name="sync",
            started_at=NOW + timedelta(minutes=10),
            ended_at=NOW + timedelta(minutes=11),
            succeeded_at=NOW + timedelta(minutes=1),
            outcome=Outcome.FAILED,
            exit_code=137,
            error="it was ended by SIGKILL",
            seconds=60.0,
            runs=2,
            failures=1,
        )
    }


def test_a_run_that_began_and_of_which_nothing_more_is_known_has_no_end(database):
    records = JobRecords(database)
    run(records, WELL, 0)
    begun = records.begin("sync", NOW + timedelta(minutes=5))
    assert (begun.started_at, begun.ended_at, begun.outcome) == (NOW + timedelta(minutes=5), None, Outcome.SUCCESS)


@pytest.mark.parametrize("ended", [BUSY, STOPPED])
def test_a_run_that_did_not_come_to_its_end_says_nothing_of_how_the_job_goes(database, ended):
    records = JobRecords(database)
    run(records, FAILED, 0)
    after = run(records, ended, 10)
    assert (after.outcome, after.runs, after.failures, after.ended_at) == (Outcome.FAILED, 1, 1, None)
    run(records, FAILED, 20)
    assert told(database) == [("JobFailed", "sync")]


def test_a_failure_and_the_recovery_are_told_once_each_however_often_a_job_fails(database):
    records = JobRecords(database)
    for minutes, ended in enumerate((WELL, FAILED, FAILED, BUSY, FAILED, PARTLY, WELL, FAILED)):
        run(records, ended, minutes * 10)
    assert told(database) == [("JobFailed", "sync"), ("JobRecovered", "sync"), ("JobFailed", "sync")]
    first = Journal(database).events()[0]
    assert first.facts["error"] == {"code": "job-failed", "message": "it was ended by SIGKILL"}
    assert first.facts["exit_code"] == 137


def test_some_items_that_fail_are_no_failure_of_the_job_and_no_full_success_either(database):
    after = run(JobRecords(database), PARTLY, 0)
    assert (after.is_failing, after.failures, after.succeeded_at, after.error) == (False, 0, None, "one list failed")


@pytest.mark.threat("T93")
def test_what_a_job_said_is_kept_without_secrets_and_cut(database):
    said = Ended(outcome=Outcome.FAILED, exit_code=6, error="https://me:canary@example.org token=canary " + "x" * 9000)
    after = run(JobRecords(database), said, 0)
    assert after.error is not None
    assert "canary" not in after.error
    assert len(after.error) <= 2000
