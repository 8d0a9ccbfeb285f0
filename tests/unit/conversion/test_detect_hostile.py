# SPDX-License-Identifier: Apache-2.0
"""Each hostile qcow2, and each file that is no disk, is refused with its code, by reading little of it."""

from __future__ import annotations

import pytest

from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits
from coppice.errors import ImageRefusedError
from coppice.testing.hostile import foreign, qcow2

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()
CASES = (*qcow2.cases(), *foreign.cases())


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.threat(case.threat)) for case in CASES]
)
def test_a_hostile_file_is_refused_with_its_code_and_with_what_was_found_and_why(tmp_path, case):
    path = tmp_path / case.name
    case.make(path)
    with pytest.raises(ImageRefusedError) as caught:
        inspect(path, LIMITS)
    error = caught.value
    assert error.code == case.code
    assert case.name in error.message
    assert error.context["found"]
    assert error.context["why"]
    assert "No tool opened it" in error.resolution or "Make it anew" in error.resolution


def test_the_same_file_is_made_each_time_and_no_two_have_one_name(tmp_path):
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    for case in [case for case in CASES if "1.5-tib" not in case.name][::9]:
        case.make(tmp_path / "first")
        case.make(tmp_path / "second")
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes(), case.name


def test_there_are_cases_of_each_kind():
    assert {"T58", "T59", "T60", "T62", "T63", "T64"} <= {case.threat for case in CASES}
