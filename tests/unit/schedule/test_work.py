# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from coppice.schedule.model import Job, Outcome
from coppice.schedule.work import Command, judge, timed_out

pytestmark = pytest.mark.unit

SYNC = Job(name="sync", words=("sync",), interval_seconds=1.0)


def answer(status, *errors):
    return json.dumps({"status": status, "errors": [{"code": code, "message": message} for code, message in errors]})


def test_a_job_is_this_coppice_with_the_same_settings_file_and_nothing_from_where_the_service_was_started():
    command = Command(config=Path("/etc/coppice/site.toml"), log_format="json", verbose=True, quiet=False)
    assert command.argv(SYNC) == (
        *(sys.executable, "-P", "-m", "coppice", "--json", "--log-format", "json"),
        *("--config", "/etc/coppice/site.toml", "--verbose", "sync"),
    )


@pytest.mark.parametrize(
    ("status", "said", "outcome"),
    [
        (0, answer("success"), Outcome.SUCCESS),
        (1, answer("partial", ("cloud-timeout", "a"), ("cloud-fault", "b")), Outcome.PARTIAL),
        (6, answer("partial", ("source-unreachable", "a")), Outcome.PARTIAL),
        (6, answer("error", ("source-unreachable", "a")), Outcome.FAILED),
        (75, answer("error", ("locked", "another run is at work")), Outcome.BUSY),
        (75, answer("error", ("something", "else")), Outcome.FAILED),
        (3, answer("success"), Outcome.FAILED),
        (0, "", Outcome.FAILED),
        (0, "[]", Outcome.FAILED),
        (0, "{", Outcome.FAILED),
        (0, "[" * 100_000, Outcome.FAILED),
        (0, "\udcff", Outcome.FAILED),
        (0, json.dumps({"status": ["success"], "errors": "none"}), Outcome.FAILED),
        (1, json.dumps({"status": "error", "errors": [None]}), Outcome.FAILED),
        (-9, answer("success"), Outcome.FAILED),
    ],
)
def test_what_a_run_says_and_how_it_ends_tell_what_became_of_it(status, said, outcome):
    assert judge(status, said.encode(errors="surrogateescape")).outcome is outcome


@pytest.mark.parametrize(
    ("status", "said", "is_left"),
    [
        (1, answer("partial", ("locked", "cloud a is held")), True),
        (1, answer("partial", ("cloud-timeout", "a"), ("locked", "cloud b is held")), True),
        (1, answer("partial", ("cloud-timeout", "a")), False),
        (1, json.dumps({"status": "partial", "errors": [None, {}]}), False),
        (1, json.dumps({"status": "partial", "errors": "locked"}), False),
        (1, answer("error", ("cloud-timeout", "a"), ("locked", "cloud b is held")), True),
    ],
)
def test_that_another_run_held_one_of_several_clouds_is_seen(status, said, is_left):
    assert judge(status, said.encode()).is_left is is_left


@pytest.mark.parametrize(("status", "outcome"), [(0, Outcome.SUCCESS), (1, Outcome.PARTIAL), (8, Outcome.FAILED)])
def test_a_run_that_says_more_than_is_kept_is_judged_by_how_it_ended(monkeypatch, status, outcome):
    said = answer("success").encode()
    monkeypatch.setattr("coppice.schedule.work.ANSWER_LIMIT_BYTES", len(said) - 1)
    assert judge(status, said[:-1]).outcome is outcome
    assert judge(status, said[:-2]).outcome is Outcome.FAILED


def test_of_several_errors_the_first_is_told_and_how_many_more_there_are():
    ended = judge(1, answer("partial", ("cloud-timeout", "slow"), ("cloud-fault", "b")).encode())
    assert (ended.error_code, ended.error) == ("cloud-timeout", "slow (and 1 more)")


def test_a_run_that_a_signal_ended_has_the_exit_code_that_a_shell_would_show():
    killed = judge(-9, b"")
    assert (killed.exit_code, killed.error) == (137, "it was ended by SIGKILL")
    assert judge(-64, b"").exit_code == 192


def test_a_run_that_took_too_long_failed_whatever_it_said():
    late = timed_out(60.0, -15)
    assert (late.outcome, late.exit_code, late.error_code) == (Outcome.FAILED, 143, "job-timeout")
    assert late.error == "it did not end within 60 s, and was ended"
