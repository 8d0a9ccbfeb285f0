# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.errors import PlanFileError, StorageError
from coppice.workflows.plan_file import read_plan_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
HEAD = '{"format": "coppice-plan", "version": 1, "allow_withdrawals": false'
NO_PLANS = {
    "empty": "",
    "no object": "[]",
    "of another kind": "{}",
    "of a later version": '{"format": "coppice-plan", "version": 2}',
    "without clouds": HEAD + ', "clouds": {}}',
    "with odd clouds": HEAD + ', "clouds": {"a": 1}}',
    "with odd subscriptions": HEAD + ', "subscriptions": [1], "clouds": {"a": {}}}',
    "without a word on withdrawals": '{"format": "coppice-plan", "version": 1, "clouds": {"a": {}}}',
    "twice the same key": '{"format": "coppice-plan", "format": "coppice-plan"}',
    "deep": "[" * 100_000,
    "no text": "\udcff",
}


@pytest.mark.parametrize("text", NO_PLANS.values(), ids=NO_PLANS)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PlanFileError) as refused:
        read_plan_file(path)
    assert refused.value.resolution


def test_a_plan_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(StorageError):
        read_plan_file(tmp_path / "plan.json")


def test_what_a_plan_says_is_read(tmp_path: Path):
    path = tmp_path / "plan.json"
    path.write_text(HEAD + ', "subscriptions": ["x"], "clouds": {"a": {}}, "sites": {"a": "s"}}')
    found = read_plan_file(path)
    assert (found.only, found.allow_withdrawals, found.clouds, found.sites) == (("x",), False, {"a": {}}, {"a": "s"})
