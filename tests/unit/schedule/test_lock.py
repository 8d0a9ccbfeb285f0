# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coppice.errors import LockedError, StorageError
from coppice.schedule.lock import run_lock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.mark.threat("T84")
def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path):
    with (
        run_lock(tmp_path / "deep" / "run.lock"),
        pytest.raises(LockedError, match=f"pid {os.getpid()}, command .*, since 20") as caught,
        run_lock(tmp_path / "deep" / "run.lock"),
    ):
        pass
    assert caught.value.exit_code == 75


def test_the_lock_is_free_after_the_block_however_it_ends(tmp_path: Path):
    lock = tmp_path / "run.lock"
    with pytest.raises(KeyboardInterrupt), run_lock(lock):
        raise KeyboardInterrupt
    with run_lock(lock):
        pass


@pytest.mark.threat("T84")
def test_what_a_dead_run_wrote_is_not_believed(tmp_path: Path):
    lock = tmp_path / "run.lock"
    lock.write_text(f"pid {os.getppid()}, command 'coppice sync', since 2026-01-01T00:00:00Z\n" * 100)
    with run_lock(lock):
        assert lock.read_text().startswith(f"pid {os.getpid()},")
        assert lock.read_text().count("\n") == 1


def test_waiting_lasts_until_the_other_run_ends(tmp_path: Path):
    lock = tmp_path / "run.lock"
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with run_lock(lock):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(10)
    begun = time.monotonic()
    with pytest.raises(LockedError), run_lock(lock, wait_seconds=0.05):
        pass
    assert time.monotonic() - begun >= 0.05
    done.set()
    with run_lock(lock, wait_seconds=10):
        pass
    thread.join()


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "run.lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(StorageError), run_lock(tmp_path / "run.lock"):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.mark.threat("T80")
def test_a_full_disk_keeps_nobody_from_holding_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = tmp_path / "run.lock"
    with run_lock(lock), pytest.raises(LockedError, match="it left no name yet"), run_lock(lock):
        pass
