# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from coppice.cage.folder import is_more_below

pytestmark = pytest.mark.unit


def test_files_count_by_the_room_that_they_take(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "full").write_bytes(b"x" * 100_000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert not is_more_below(tmp_path, 200_000)
    assert is_more_below(tmp_path, 90_000)
    assert is_more_below(tmp_path, 0)


def test_an_empty_folder_and_one_that_is_not_there_hold_nothing(tmp_path: Path) -> None:
    assert not is_more_below(tmp_path, 0)
    assert not is_more_below(tmp_path / "none", 0)


def test_many_empty_files_and_folders_count_too(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"file-{number}").touch()
        (tmp_path / f"folder-{number}").mkdir()
    assert is_more_below(tmp_path, 39 * 512)
    assert not is_more_below(tmp_path, 40 * 512)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").write_bytes(b"x" * 100_000)
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    assert not is_more_below(tmp_path / "inside", 4096)


def test_a_tree_too_deep_to_be_counted_is_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    levels = 1500
    for _ in range(levels):
        Path("abcdef").mkdir()
        os.chdir("abcdef")
    try:
        assert is_more_below(tmp_path, 1 << 40)
    finally:
        for _ in range(levels):
            os.chdir("..")
            Path("abcdef").rmdir()
