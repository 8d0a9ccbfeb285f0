# SPDX-License-Identifier: Apache-2.0
"""Every hostile VMDK, VDI, VHD and VHDX is refused with its code, and little of it is read for that."""

from __future__ import annotations

import pytest

from coppice.conversion.detect import detect
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import FileWindow
from coppice.errors import ImageRefusedError
from coppice.testing.hostile import disks

pytestmark = pytest.mark.unit
CASES = disks.cases()


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.threat(case.threat)) for case in CASES]
)
def test_a_hostile_disk_is_refused_with_its_code_and_says_what_was_found_and_why(tmp_path, case):
    path = tmp_path / case.name
    case.make(path)
    with FileWindow(path) as window, pytest.raises(ImageRefusedError) as caught:
        detect(window, ConversionLimits(), name=case.name, file_size_bytes=window.size_bytes)
    error = caught.value
    assert error.code == case.code
    assert case.name in error.message
    assert error.context["found"]
    assert error.context["why"]
    assert "No tool opened it" in error.resolution


def test_no_two_hostile_disks_have_one_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("beginning", ["vmdk-s", "vdi-p", "vhd-p", "vhdx-p"])
def test_a_hostile_disk_is_made_of_the_same_bytes_each_time(tmp_path, beginning):
    for case in (case for case in CASES if case.name.startswith(beginning)):
        case.make(tmp_path / "first")
        case.make(tmp_path / "second")
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_the_hostile_disks_stand_for_the_threats_that_are_theirs():
    assert {case.threat for case in CASES} == {"T58", "T60", "T61", "T62", "T63", "T64"}
