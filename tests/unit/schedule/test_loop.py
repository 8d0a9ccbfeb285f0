# SPDX-License-Identifier: Apache-2.0
"""The loop with stand-ins for its children, its signals and its clock: a whole day in a blink."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from coppice.clock import FixedClock
from coppice.errors import DatabaseError, SettingsError, ToolFailedError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.schedule.announce import Announcer
from coppice.schedule.loop import Loop
from coppice.schedule.records import JobRecords
from coppice.schedule.runs import Runs
from coppice.schedule.standing import Board
from coppice.settings.load import load_settings
from coppice.settings.model import HookSettings
from coppice.workflows.tell import meet_hooks

pytestmark = pytest.mark.unit

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


class FakeChild:
    """Ends at a moment of the clock, or when it is told to and obeys."""

    pid = 1

    def __init__(self, world, job, how) -> None:
        self.world, self.job, self.how = world, job, how
        self.until = world.seconds + how.get("seconds", 10)
        self.status = None
        self.closed = False

    def poll(self):
        if self.status is None and self.world.seconds >= self.until:
            self.status = self.how.get("status", 0)
        return self.status

    def tell(self, number):
        self.world.log.append((self.world.seconds, self.job.name, number.name))
        if self.how.get("obeys", True):
            self.status = 143

    def end(self):
        self.world.log.append((self.world.seconds, self.job.name, "killed"))
        self.status = -9

    def answer(self):
        if self.status == 143:
            return json.dumps({"status": "error", "errors": [{"code": "interrupted", "message": "stopped"}]}).encode()
        return self.how.get("answer", json.dumps({"status": "success", "errors": []})).encode()

    def close(self):
        assert self.status is not None
        self.closed = True


class FakeCommand:
    def __init__(self, world) -> None:
        self.world = world

    def start(self, job, environ):
        how = self.world.next_how(job.name)
        if how.get("refuses"):
            raise ToolFailedError("cannot start python: Cannot allocate memory")
        self.world.log.append((self.world.seconds, job.name, "begins"))
        child = FakeChild(self.world, job, how)
        self.world.children.append(child)
        return child


class FakeSignals:
    """Where the loop would wait, the clock goes on; what is to happen at a moment happens then."""

    def __init__(self, world, events, until) -> None:
        self.world, self.events, self.until = world, dict(sorted(events.items())), until
        self.stops, self._reload, self.waits = 0, False, 0

    def take_reload(self):
        asked, self._reload = self._reload, False
        return asked

    def wait(self, seconds):
        self.waits += 1
        assert self.waits < 20_000, "the loop never rests"
        ends = [child.until for child in self.world.children if child.status is None]
        target = min([self.world.seconds + seconds, *ends, *self.events])
        self.world.clock.advance(timedelta(seconds=max(0.001, target - self.world.seconds)))
        for moment in [each for each in self.events if each <= self.world.seconds]:
            what = self.events.pop(moment)
            if what == "reload":
                self._reload = True
            elif what == "stop":
                self.stops += 1
            else:
                what()
        if self.world.seconds >= self.until and not self.stops:
            self.stops = 1


class World:
    def __init__(self, tmp_path, database, **service) -> None:
        file = tmp_path / "coppice.toml"
        file.write_text(f'state_directory = "{tmp_path}/state"\n')
        found = load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})
        self.settings = replace(found, service=replace(found.service, **service))
        self.clock = FixedClock(START)
        self.database = database
        self.records = JobRecords(database)
        self.board = Board()
        self.log, self.children, self.hows = [], [], {}
        self.draw = 0.0
        self.next_settings = lambda: self.settings

    @property
    def seconds(self):
        return (self.clock.now() - START).total_seconds()

    def next_how(self, name):
        waiting = self.hows.get(name)
        return waiting.popleft() if waiting else {}

    def will(self, name, *hows):
        self.hows[name] = deque(hows)

    def run(self, until, events=None, on_reload=lambda _: None):
        signals = FakeSignals(self, events or {}, until)
        Loop(
            self.settings,
            read_settings=self.next_settings,
            database=self.database,
            records=self.records,
            runs=Runs(FakeCommand(self), {}, self.clock),
            board=self.board,
            announcer=Announcer({}),
            clock=self.clock,
            on_reload=on_reload,
            draw=lambda: self.draw,
        ).run(signals)
        assert all(child.closed for child in self.children)
        return signals

    def begun(self, name):
        return [round(at) for at, job, what in self.log if job == name and what == "begins"]


@pytest.fixture
def world(tmp_path, database):
    return World(tmp_path, database, sync_seconds=1800.0, retire_seconds=3600.0, prune_seconds=86400.0, jitter=0.0)


def test_every_job_runs_at_its_interval_for_a_whole_day_and_the_loop_rests_in_between(world):
    signals = world.run(86_000)
    counts = Counter(job for _, job, what in world.log if what == "begins")
    assert counts == {"sync": 48, "retire": 24, "prune": 1}
    assert world.begun("sync")[:3] == [0, 1800, 3600]
    assert signals.waits < 86_000 / 20


def test_stale_appliances_are_looked_for_from_when_one_was_built_here(world):
    kept = world.settings.state_directory / "catalogue" / "evidence" / "some-build"
    world.run(9000, {1000: lambda: kept.mkdir(parents=True)})
    assert world.begun("rebuild") == [1000, 4600, 8200]
    assert world.begun("sync") == [0, 1800, 3600, 5400, 7200]


def test_jobs_run_side_by_side_and_none_twice_at_once(world):
    world.will("sync", {"seconds": 7000})
    world.run(8000)
    assert world.begun("retire") == [0, 3600, 7200]
    # It took longer than its interval: the next begins when it has ended.
    assert world.begun("sync") == [0, 7001]


def test_runs_are_put_off_at_random(world):
    world.settings = replace(world.settings, service=replace(world.settings.service, jitter=0.1))
    world.draw = 0.5
    world.run(4000)
    assert world.begun("sync") == [0, 1890, 3780]


def test_what_fails_crashes_or_cannot_be_started_comes_again_at_its_interval_and_stops_no_other_job(world):
    error = json.dumps({"status": "error", "errors": [{"code": "source-unreachable", "message": "no"}]})
    world.will(
        "sync",
        {"status": 6, "answer": error},
        {"status": -9},
        {"status": 0, "answer": ""},
        {"refuses": True},
        {},
    )
    world.run(9000)
    assert world.begun("sync") == [0, 1800, 3600, 7200]
    assert world.begun("retire") == [0, 3600, 7200]
    record = world.records.all()["sync"]
    assert (record.runs, record.failures, str(record.outcome)) == (5, 4, "success")
    kinds = [str(event.kind) for event in Journal(world.database).events()]
    assert kinds == ["JobFailed", "JobRecovered"]


def test_a_job_that_found_another_run_at_work_is_tried_again_within_a_minute_and_has_not_failed(world):
    locked = json.dumps({"status": "error", "errors": [{"code": "locked", "message": "another run is at work"}]})
    world.will("retire", *[{"status": 75, "answer": locked, "seconds": 1}] * 2)
    world.run(1000)
    assert world.begun("retire") == [0, 61, 122]
    assert world.records.all()["retire"].failures == 0


def test_a_job_of_which_another_run_held_one_of_several_clouds_is_tried_again_within_a_minute(world):
    locked = json.dumps({"status": "partial", "errors": [{"code": "locked", "message": "cloud b is held"}]})
    world.will("sync", *[{"status": 1, "answer": locked, "seconds": 1}] * 2)
    world.run(1000)
    assert world.begun("sync") == [0, 61, 122]
    record = world.records.all()["sync"]
    assert (record.runs, record.failures, str(record.outcome)) == (3, 0, "success")


@pytest.mark.parametrize("obeys", [True, False])
def test_a_job_that_takes_too_long_is_told_to_stop_and_ended_when_it_does_not(world, obeys):
    changed = replace(world.settings.service, job_timeout_seconds=100.0, stop_seconds=20.0)
    world.settings = replace(world.settings, service=changed)
    world.will("sync", {"seconds": 10_000, "obeys": obeys})
    world.run(1000)
    ends = [(round(at), what) for at, job, what in world.log if job == "sync" and what != "begins"]
    assert ends == ([(100, "SIGTERM")] if obeys else [(100, "SIGTERM"), (120, "killed")])
    record = world.records.all()["sync"]
    assert (record.failures, record.error) == (1, "it did not end within 100 s, and was ended")


@pytest.mark.threat("T82")
def test_asked_to_stop_it_tells_what_runs_waits_for_it_and_begins_nothing_more(world):
    world.will("sync", {"seconds": 10_000})
    world.run(100_000, {1000.0: "stop"})
    assert (1000.0, "sync", "SIGTERM") in world.log
    assert all(at <= 1000 for at, _, _ in world.log)
    record = world.records.all()["sync"]
    # It did not come to its end: when the service starts again, it goes on at once.
    assert (record.ended_at, record.failures) == (None, 0)
    world.log.clear()
    world.run(world.seconds + 10)
    assert [(job, what) for _, job, what in world.log if what == "begins"] == [("sync", "begins")]


def test_what_does_not_stop_is_ended_after_its_time_or_at_once_when_asked_again(world):
    world.settings = replace(world.settings, service=replace(world.settings.service, stop_seconds=20.0))
    world.will("sync", {"seconds": 10_000, "obeys": False})
    world.run(100_000, {1000.0: "stop"})
    assert (1020.0, "sync", "killed") in world.log
    world.will("sync", {"seconds": 10_000, "obeys": False})
    begun = world.seconds
    world.run(200_000, {begun + 100.0: "stop", begun + 103.0: "stop"})
    assert (begun + 103.0, "sync", "killed") in world.log


def test_settings_that_are_read_anew_count_from_then_on(world):
    faster = replace(world.settings, service=replace(world.settings.service, sync_seconds=100.0))
    world.next_settings = lambda: faster
    world.run(2100, {1000.0: "reload"})
    assert world.begun("sync")[:3] == [0, 1000, 1100]
    assert world.board.read().reloads == 1


def test_settings_that_are_wrong_are_told_of_and_those_from_before_count(world):
    def refuse():
        raise SettingsError("the settings file is not TOML")

    world.next_settings = refuse
    world.run(4000, {1000.0: "reload"})
    assert world.begun("sync") == [0, 1800, 3600]
    assert world.board.read().settings_error == "settings-invalid"


def test_a_job_that_left_the_settings_while_it_ran_is_not_begun_again(world):
    world.settings = replace(world.settings, service=replace(world.settings.service, refresh_seconds=50.0))
    without = replace(world.settings, service=replace(world.settings.service, refresh_seconds=None))
    world.next_settings = lambda: without
    world.will("refresh", {"seconds": 500})
    world.run(4000, {100.0: "reload"})
    assert world.begun("refresh") == [0]
    assert "refresh" not in world.board.read().next_at


def test_lists_are_not_refreshed_beside_a_sync(world):
    world.settings = replace(world.settings, service=replace(world.settings.service, refresh_seconds=60.0))
    world.will("sync", {"seconds": 300})
    world.run(600)
    refreshed = world.begun("refresh")
    assert refreshed[0] == 0
    assert world.begun("sync")[0] >= 10
    began = world.begun("sync")[0]
    assert not [at for at in refreshed if began <= at < began + 300]


def test_hooks_are_told_when_one_is_to_be_told_of_something_and_not_again_at_once(world):
    world.settings = replace(world.settings, hooks={"front": HookSettings(name="front", kind="file")})
    meet_hooks(world.settings, world.database, world.clock)
    happens = lambda: Journal(world.database).record(  # noqa: E731 - shorter than a function
        EventKind.IMAGE_NEW, subject="x", facts={}, at=world.clock.now()
    )
    world.run(1200, {1000.0: happens})
    begun = world.begun("tell")
    assert begun
    assert 1000 <= begun[0] <= 1031
    assert all(later - earlier >= 30 for earlier, later in pairwise(begun))


@pytest.mark.threat("T85")
def test_a_database_that_fails_for_a_while_stops_nothing(world, monkeypatch):
    def fail(*_args, **_kwargs):
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.records, "begin", fail)
        patch.setattr(world.records, "end", fail)
        world.run(4000)
    assert world.begun("sync") == [0, 1800, 3600]
    assert world.board.read().database_error == "database-failed"
