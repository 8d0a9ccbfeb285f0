# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coppice.schedule.due import BUSY_SECONDS, busy_seconds, delay_seconds, jobs_of
from coppice.schedule.model import Job, JobRecord, Outcome
from coppice.settings.load import load_settings
from coppice.settings.model import HookSettings

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SYNC = Job(name="sync", words=("sync",), interval_seconds=1800.0)


def record(started, ended=0.0, outcome=Outcome.SUCCESS):
    """Return the record of a run that began and ended so many seconds before now."""
    return JobRecord(
        name="sync",
        started_at=NOW - timedelta(seconds=started),
        ended_at=None if ended is None else NOW - timedelta(seconds=ended),
        outcome=outcome,
    )


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}"\n')
    return load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})


def test_there_are_sync_retire_and_prune_at_the_intervals_of_the_settings(settings):
    changed = replace(settings, service=replace(settings.service, sync_seconds=1.0, retire_seconds=2.0))
    assert [(job.name, job.words, job.interval_seconds) for job in jobs_of(changed)] == [
        ("sync", ("sync",), 1.0),
        ("retire", ("retire",), 2.0),
        ("prune", ("cache", "prune"), 86400.0),
    ]


def test_lists_are_refreshed_by_themselves_only_where_that_has_an_interval_and_never_beside_a_sync(settings):
    changed = replace(settings, service=replace(settings.service, refresh_seconds=300.0))
    refresh, sync, *_ = jobs_of(changed)
    assert (refresh.name, refresh.words, refresh.interval_seconds) == ("refresh", ("subscription", "refresh"), 300.0)
    assert refresh.apart_from == {"sync"}
    assert sync.apart_from == {"refresh"}
    assert jobs_of(settings)[0].name == "sync"


def test_stale_appliances_are_looked_for_only_where_appliances_are_built(settings):
    assert "rebuild" not in [job.name for job in jobs_of(settings)]
    changed = replace(settings, service=replace(settings.service, rebuild_seconds=60.0))
    rebuild = jobs_of(changed, builds=True)[-1]
    assert (rebuild.name, rebuild.words, rebuild.interval_seconds) == ("rebuild", ("rebuild",), 60.0)
    off = replace(settings, service=replace(settings.service, rebuild=False))
    assert "rebuild" not in [job.name for job in jobs_of(off, builds=True)]


def test_hooks_are_told_when_something_asks_for_it_where_there_are_hooks(settings):
    changed = replace(settings, hooks={"front": HookSettings(name="front", kind="file")})
    tell = jobs_of(changed)[-1]
    assert (tell.name, tell.words, tell.interval_seconds) == ("tell", ("event", "deliver"), None)
    assert delay_seconds(tell, None, NOW) is None
    assert "tell" not in [job.name for job in jobs_of(settings)]


def test_a_job_that_never_ran_begins_now():
    assert delay_seconds(SYNC, None, NOW, jitter=0.5, draw=1.0) == 0
    assert delay_seconds(SYNC, JobRecord(name="sync"), NOW) == 0


def test_a_job_whose_last_run_did_not_come_to_its_end_begins_now():
    assert delay_seconds(SYNC, record(10, ended=None), NOW) == 0


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.PARTIAL, Outcome.SUCCESS])
def test_the_interval_is_counted_from_the_beginning_of_the_last_run_however_that_ended(outcome):
    assert delay_seconds(SYNC, record(600, outcome=outcome), NOW) == 1200
    assert delay_seconds(SYNC, record(1800, outcome=outcome), NOW) == 0
    assert delay_seconds(SYNC, record(9000, outcome=outcome), NOW) == 0


def test_a_run_is_put_off_by_a_share_of_the_interval_and_never_begins_too_early():
    delays = [delay_seconds(SYNC, record(0), NOW, jitter=0.1, draw=draw / 10) for draw in range(11)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (1800, pytest.approx(1980))
    assert delay_seconds(SYNC, record(0), NOW, jitter=0.0, draw=1.0) == 1800


@pytest.mark.threat("T87")
@pytest.mark.parametrize("years", [-10, -1, 1, 10])
def test_a_clock_that_jumps_makes_a_job_due_and_never_puts_it_off_for_years(years):
    jumped = NOW + timedelta(days=365 * years)
    assert delay_seconds(SYNC, record(600), jumped, jitter=0.1, draw=1.0) == 0


def test_a_job_that_found_another_run_at_work_is_tried_again_soon_and_no_sooner_than_its_interval():
    assert busy_seconds(SYNC) == BUSY_SECONDS
    assert busy_seconds(replace(SYNC, interval_seconds=5.0)) == 5
    assert busy_seconds(replace(SYNC, interval_seconds=None)) == BUSY_SECONDS
