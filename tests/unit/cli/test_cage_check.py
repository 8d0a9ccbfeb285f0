# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coppice.cage import Means, Walls
from coppice.cli.checks import Verdict, check_cage
from coppice.errors import SettingsError

pytestmark = pytest.mark.unit

REASON = "bubblewrap: bwrap: No permissions to create new namespace"
LIMITS = Means(walls=Walls.NONE, lacking=(REASON,))


def context(*, require_cage: bool) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(conversion=SimpleNamespace(require_cage=require_cage)))


@pytest.mark.parametrize(
    ("means", "require_cage", "verdict"),
    [
        (Means(walls=Walls.BUBBLEWRAP), True, Verdict.OK),
        (Means(walls=Walls.LANDLOCK, lacking=(REASON,)), False, Verdict.NOTE),
        (Means(walls=Walls.LANDLOCK, lacking=(REASON,)), True, Verdict.MISSING),
        (LIMITS, False, Verdict.NOTE),
        (LIMITS, True, Verdict.MISSING),
    ],
)
def test_the_doctor_says_how_far_programs_are_shut_in_and_why_no_further(
    monkeypatch: pytest.MonkeyPatch, means: Means, require_cage: bool, verdict: Verdict
) -> None:
    monkeypatch.setattr("coppice.cage.find_means", lambda: means)
    check = check_cage(context(require_cage=require_cage))
    assert check.verdict is verdict
    assert (check.found or "").startswith(f"{means.strength}: ")
    assert (REASON in (check.found or "")) is (verdict is not Verdict.OK)
    assert (check.remedy is None) is (verdict is Verdict.OK)


def test_settings_that_cannot_be_read_do_not_keep_the_doctor_from_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread:
        @property
        def settings(self) -> object:
            raise SettingsError("wrong")

    monkeypatch.setattr("coppice.cage.find_means", lambda: LIMITS)
    unread: Any = Unread()
    assert check_cage(unread).verdict is Verdict.NOTE
