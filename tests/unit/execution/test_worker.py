# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from coppice.errors import BuildError
from coppice.execution import worker
from coppice.execution.worker import LOCK, STOP, TOKEN, code_version, describe, is_held, serve
from coppice.schedule.lock import run_lock

pytestmark = pytest.mark.unit


def double(number, *, monitor, stopped):
    monitor.message(str(number))
    return 2 * number


def fail(*, monitor, stopped):
    raise BuildError("no", details="the end of its log")


@pytest.fixture
def run(tmp_path):
    with run_lock(tmp_path / "run" / LOCK):
        (tmp_path / "run" / TOKEN).write_text("t")
        yield tmp_path / "run"


@pytest.fixture
def sent(monkeypatch):
    notes = []
    monkeypatch.setattr(worker, "_sender", lambda topic, call: lambda note: notes.append((topic, call, note)))
    return notes


def read(pickled):
    return pickle.loads(pickled)  # noqa: S301 - as above


def order(place, *work, **other):
    known = {"version": code_version(), "run": str(place), "token": "t", "topic": "topic", "call": "0"}
    return {**known, "work": pickle.dumps((work[0], work[1:])) if work else b"", **other}


def test_work_gives_its_result_and_tells_of_its_progress(run, sent):
    assert read(serve(order(run, double, 21))["result"]) == 42
    assert sent == [("topic", "0", {"op": "message", "text": "21"})]


def test_an_error_comes_back_whole(run, sent):
    problem = read(serve(order(run, fail))["error"])
    assert (type(problem), problem.message, problem.details) == (BuildError, "no", "the end of its log")


def test_work_is_begun_twice_at_most(run, sent):
    answers = [serve(order(run, double, 1)) for _ in range(3)]
    assert ["result" in each for each in answers] == [True, True, False]
    assert answers[2] == {"lost": True}
    assert "result" in serve(order(run, double, 1, call="1"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": "0.0.9 (123456789abc), Python 3.11"}, "it runs Coppice "),
        ({"token": "another"}, "another directory of that name"),
        ({"run": "/nowhere/run"}, "does not see /nowhere"),
    ],
)
def test_a_worker_that_does_not_do_says_why_and_does_nothing(run, sent, wrong, said):
    # What another version pickled is not even looked at.
    answer = serve(order(run, **{"work": b"not even a pickle", **wrong}))
    assert said in answer["refusal"]
    assert said in describe(order(run, **wrong))["refusal"]
    assert [path for path in run.iterdir() if "begun" in path.name] == []


def test_a_file_system_whose_locks_are_not_seen_is_refused(tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / TOKEN).write_text("t")
    assert "does not see who holds a lock" in serve(order(tmp_path))["refusal"]


def test_a_worker_that_does_says_what_it_is(run):
    said = describe(order(run))
    assert said["refusal"] == ""
    assert said["version"] == code_version()
    assert {"host", "architecture", "root", "kvm"} <= said.keys()


def test_work_stops_when_its_run_says_so(run, sent, monkeypatch):
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.0)
    (run / STOP).touch()
    assert "error" in serve(order(run, double, 1))
    assert read(serve(order(run, double, 1))["error"]).code == "interrupted"


def test_work_stops_when_whoever_it_is_for_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.0)
    stopped = None
    with run_lock(tmp_path / LOCK):
        stopped = worker._asker(tmp_path)
        assert not stopped()
    assert stopped()


def test_a_lock_is_held_while_somebody_holds_it(tmp_path):
    assert not is_held(tmp_path / "nothing")
    with run_lock(tmp_path / "lock"):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_another_script_for_guests_is_another_version(tmp_path, monkeypatch):
    script, cached = tmp_path / "guest" / "finish.sh", tmp_path / "__pycache__" / "worker.pyc"
    for path in (script, cached):
        path.parent.mkdir()
        path.write_bytes(b"one")
    monkeypatch.setattr(worker, "coppice", SimpleNamespace(__file__=str(tmp_path / "__init__.py"), __version__="1"))
    first = code_version.__wrapped__()
    cached.write_bytes(b"two")
    assert code_version.__wrapped__() == first
    script.write_bytes(b"two")
    assert code_version.__wrapped__() != first
