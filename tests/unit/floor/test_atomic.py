# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from coppice import atomic
from coppice.errors import NoSpaceError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "list.json"
    atomic.write_text(target, "old")
    atomic.write_text(target, "new", mode=0o600)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["list.json"]


def test_a_link_in_the_place_of_what_is_written_changes_nothing_of_where_it_leads(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"content")
    secret.chmod(0o600)
    with (
        pytest.raises(StorageError),
        atomic.replacing(tmp_path / "new", mode=0o644) as temporary,
    ):
        temporary.symlink_to(secret)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write_half_and_stop() -> None:
        with atomic.replacing(target) as temporary:
            temporary.write_text("half")
            raise interruption

    with pytest.raises(interruption):
        write_half_and_stop()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_its_own_error_and_leaves_nothing(tmp_path: Path) -> None:
    def write_on_a_full_disk() -> None:
        with atomic.replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NoSpaceError) as caught:
        write_on_a_full_disk()
    assert caught.value.resolution is not None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic.replacing_directory(tmp_path / "made") as temporary:
        (temporary / "inner").write_text("content")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "inner").read_text() == "content"

    def fail_half_way() -> None:
        with atomic.replacing_directory(tmp_path / "never") as temporary:
            (temporary / "inner").write_text("content")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_existing_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "keep").touch()

    def make_again() -> None:
        with atomic.replacing_directory(tmp_path / "made") as temporary:
            (temporary / "inner").touch()

    with pytest.raises(StorageError):
        make_again()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["keep"]


def test_only_own_old_leftovers_are_swept(tmp_path: Path) -> None:
    old = atomic.partial_path(tmp_path / "image")
    old.write_text("half")
    os.utime(old, (1, 1))
    young = atomic.partial_path(tmp_path / "image")
    young.write_text("half")
    foreign = tmp_path / "notes.partial"
    foreign.write_text("somebody else's")
    os.utime(foreign, (1, 1))
    assert atomic.sweep_partials(tmp_path, older_than_seconds=60) == [old]
    assert sorted(tmp_path.iterdir()) == sorted([young, foreign])


def test_leftovers_of_one_file_are_swept_alone(tmp_path: Path) -> None:
    record, other = tmp_path / f"{'a' * 128}.json", tmp_path / "[b]*.json"
    left = {each: atomic.partial_path(each) for each in (record, other)}
    for path in left.values():
        path.write_text("half")
        os.utime(path, (1, 1))
    assert atomic.sweep_partials(tmp_path, older_than_seconds=60, of=other.name) == [left[other]]
    assert atomic.sweep_partials(tmp_path, older_than_seconds=60, of=record.name) == [left[record]]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, link, stdout = tmp_path / "pipe", tmp_path / "link", tmp_path / "stdout"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    stdout.symlink_to("/proc/self/fd/1")
    for path in (pipe, link, stdout):
        with pytest.raises(StorageError, match="no ordinary file"):
            atomic.write_text(path, "new")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert stdout.is_symlink()
    assert len(list(tmp_path.iterdir())) == 3
