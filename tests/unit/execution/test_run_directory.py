# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import LockedError
from coppice.execution import cluster
from coppice.execution.cluster import GUARD
from coppice.execution.worker import LOCK, TOKEN, is_held
from coppice.schedule.lock import run_lock

pytestmark = pytest.mark.unit


def test_a_run_has_a_directory_while_it_lasts_and_removes_what_ended_runs_left(tmp_path):
    place = tmp_path / "cluster"
    (place / "left").mkdir(parents=True)
    (place / "left" / TOKEN).write_text("t")
    with run_lock(place / "held" / LOCK), cluster._run_directory(tmp_path) as run:
        assert is_held(run / LOCK)
        assert {each.name for each in place.iterdir()} == {"held", run.name}
    assert {each.name for each in place.iterdir()} == {"held"}


def test_a_directory_whose_run_is_about_to_lock_it_is_not_taken_for_one_that_was_left(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_GUARD_SECONDS", 0)
    new = tmp_path / "cluster" / "new"
    new.mkdir(parents=True)
    with run_lock(tmp_path / GUARD), pytest.raises(LockedError), cluster._run_directory(tmp_path):
        pass
    assert new.is_dir()
    with cluster._run_directory(tmp_path):
        assert not new.exists()
