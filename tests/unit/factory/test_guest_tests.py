# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.definition.model import GuestTest
from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.factory.boot_look import Look
from coppice.factory.boot_model import Promise
from coppice.factory.guest_tests import run_guest_tests
from coppice.factory.login import Login
from coppice.process import Completed

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit


class Guest(Login):
    """A machine that answers as it is told."""

    def __init__(self, *answers: Callable[[], str]) -> None:
        super().__init__(port=1, user="someone", key=Path("key"), known_hosts=Path("known"))
        object.__setattr__(self, "answers_left", list(answers))
        object.__setattr__(self, "asked", [])

    def run_program(self, content: bytes, timeout_seconds: float) -> Completed:
        self.asked.append((content, timeout_seconds))  # type: ignore[attr-defined]
        said = self.answers_left.pop(0)()  # type: ignore[attr-defined]
        return Completed(argv=("ssh",), returncode=0, stdout=b"", stderr=b"", combined=said, seconds=0.0)


def failing() -> str:
    raise ToolFailedError("ssh ended with 3", details="port 80 is closed", context={"returncode": 3})


def hanging() -> str:
    raise ToolTimeoutError("ssh did not end", details="waiting")


def test_all_tests_run_also_when_one_fails_and_each_has_its_own_time() -> None:
    guest = Guest(failing, hanging, lambda: "x" * 10_000 + "end")
    noted: list[str] = []
    tests = (
        GuestTest(name="web", script=b"curl"),
        GuestTest(name="slow", script=b"sleep", timeout_seconds=7),
        GuestTest(name="fine", script=b"true", timeout_seconds=900),
    )
    runs = run_guest_tests(guest, tests, left_seconds=lambda: 400.0, note=noted.append)
    assert [(each.name, each.failure) for each in runs] == [
        ("web", "ended with 3"),
        ("slow", "did not end within 7 s"),
        ("fine", None),
    ]
    assert [each.output for each in runs[:2]] == ["port 80 is closed", "waiting"]
    assert runs[2].output.endswith("end")
    assert len(runs[2].output) == 4000
    assert guest.asked == [(b"curl", 300.0), (b"sleep", 7.0), (b"true", 400.0)]  # type: ignore[attr-defined]
    assert [each.rsplit(" ", 1)[1] for each in noted] == ["web", "slow", "fine"]


def test_a_program_goes_by_standard_input_and_no_word_of_it_reaches_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, object]]] = []
    monkeypatch.setattr("coppice.factory.login.run", lambda argv, **more: calls.append((argv, more)))
    script = b"#!/bin/sh\necho '$(reboot)'; \"\n"
    Login(port=1, user="u", key=Path("k"), known_hosts=Path("h")).run_program(script, 5.0)
    ((argv, more),) = calls
    assert more == {"timeout_seconds": 5.0, "input_bytes": script}
    assert not any("reboot" in each for each in argv)
    # What the far shell makes of the last word is one word again.
    assert len(shlex.split(argv[-1])) == 1


class DeadGuest:
    """A machine that ended after all had been asked but its own tests."""

    @property
    def channel(self) -> DeadGuest:
        return self

    def run_script(self, script: str, timeout_seconds: float) -> Completed:
        raise ToolFailedError(f"{script} was not run in {timeout_seconds:.0f} s")


def test_a_machine_that_is_gone_at_the_end_has_not_passed_though_it_has_no_tests() -> None:
    look = Look(left_seconds=lambda: 60.0, note=lambda _: None)
    with pytest.raises(ToolFailedError, match="was not run in 60 s"):
        look.own_tests(DeadGuest(), Promise(user="someone"))  # type: ignore[arg-type]
