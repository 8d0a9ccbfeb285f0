# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys

import click
import pytest

from coppice.cli import main as cli
from coppice.cli.envelope import Result, Status
from coppice.cli.words import pass_context, verb
from coppice.errors import CoppiceError, ExpiredListError, LockedError, NotFoundError, SettingsError

pytestmark = pytest.mark.contract

KEYS = {"command", "version", "status", "data", "errors", "messages"}
ERROR_KEYS = {"code", "message", "details", "resolution", "context"}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))

    def _run(*arguments, act=None):
        if act is not None:

            @verb("act")
            @pass_context
            def command(context):
                return act(context)

            module = type("module", (), {"command": command})
            monkeypatch.setitem(cli.COMMANDS, "act", ("acting", "Act."))
            monkeypatch.setitem(sys.modules, "acting", module)
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run


def _raising(problem):
    def act(_context):
        raise problem

    return act


def test_the_envelope_has_exactly_these_keys(run):
    code, out, _ = run("--json", "act", act=lambda _context: Result(command="act", data={"a": 1}, messages=("done",)))
    said = json.loads(out)
    assert set(said) == KEYS
    assert (code, said["command"], said["status"], said["messages"]) == (0, "act", "success", ["done"])


@pytest.mark.parametrize("arguments", [("--json", "act"), ("act", "--json")])
def test_json_may_stand_before_or_after_the_command(run, arguments):
    assert set(json.loads(run(*arguments, act=lambda _context: Result(command="act"))[1])) == KEYS


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (SettingsError("x"), 3),
        (ExpiredListError("x"), 5),
        (NotFoundError("x"), 12),
        (LockedError("x"), 75),
        (KeyboardInterrupt(), 130),
        (cli.Terminated(), 143),
        (ZeroDivisionError("x"), 70),
        (click.UsageError("x"), 2),
        (click.Abort(), 130),
    ],
)
def test_exceptions_become_exit_codes_and_one_error_of_the_envelope(run, problem, code):
    got, out, err = run("--json", "act", act=_raising(problem))
    said = json.loads(out)
    assert got == code
    assert said["status"] == "error"
    assert set(said["errors"][0]) == ERROR_KEYS
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [("--json", "confg"), ("--json",), ("confg", "--json"), ("status", "--bogus", "--json"), ("--json", "--bogus")],
)
def test_what_cannot_be_parsed_is_answered_in_json_too(run, arguments):
    code, out, _ = run(*arguments)
    said = json.loads(out)
    assert code == 2
    assert set(said) == KEYS
    assert said["errors"][0]["code"] == "usage"


def test_an_unknown_command_is_answered_with_the_nearest(run):
    code, out, err = run("stauts")
    assert (code, out) == (2, "")
    assert "Did you mean 'status'?" in err


def test_errors_are_told_with_code_details_and_hint_on_standard_error(run):
    problem = NotFoundError("no such thing", details="seen: none", resolution="Look again.")
    code, out, err = run("act", act=_raising(problem))
    assert (code, out) == (12, "")
    assert err == "error[not-found]: no such thing\n  seen: none\nhint: Look again.\n"


@pytest.mark.threat("T76")
def test_text_of_strangers_cannot_write_lines_of_its_own(run):
    _, _, err = run("act", act=_raising(NotFoundError("no \x1b[2J\nerror[fake]: image")))
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.threat("T93")
@pytest.mark.parametrize("arguments", [("act",), ("--json", "act"), ("--verbose", "act")])
def test_secrets_do_not_leave_in_errors(run, arguments):
    problem = CoppiceError(
        "https://user:canary-9731@host failed", details="password=canary-9731", context={"token": "canary-9731"}
    )
    _, out, err = run(*arguments, act=_raising(problem))
    assert "canary-9731" not in out + err


def test_partial_exits_1_and_errors_exit_with_their_own_code(run):
    errors = (NotFoundError("x"),)
    partial = Result(command="act", status=Status.PARTIAL, errors=errors)
    assert run("act", act=lambda _context: partial)[0] == 1
    failed = Result(command="act", status=Status.ERROR, errors=errors)
    assert run("act", act=lambda _context: failed)[0] == 12


def test_the_traceback_of_a_defect_goes_to_a_file_that_only_its_owner_reads(run, tmp_path):
    (tmp_path / "state").mkdir()
    code, _, err = run("act", act=_raising(ZeroDivisionError("token=canary-9731")))
    kept = list((tmp_path / "state/log").iterdir())
    assert code == 70
    assert len(kept) == 1
    assert str(kept[0]) in err
    assert kept[0].stat().st_mode & 0o777 == 0o600
    assert "ZeroDivisionError" in kept[0].read_text()
    assert "canary-9731" not in kept[0].read_text() + err


def test_notes_go_to_standard_error_and_quiet_leaves_them_out(run):
    def act(_context):
        return Result(command="act", messages=("note",), show=lambda output: output.line("data"))

    assert run("act", act=act)[1:] == ("data\n", "note\n")
    assert run("--quiet", "act", act=act)[1:] == ("data\n", "")
