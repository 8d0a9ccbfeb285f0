# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.cage import Cage, Means, Strength, Walls, trial
from coppice.errors import CageError, StorageError, UnreadableFileError
from coppice.process import Completed

pytestmark = pytest.mark.unit

FULL = Means(walls=Walls.BUBBLEWRAP)
CLOSED = Means(walls=Walls.LANDLOCK)
LIMITS = Means(walls=Walls.NONE, lacking=("bubblewrap: the program 'bwrap' is not installed",))


def file_in(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    "name", ["image,backing_file=x", "nbd:unix", "with space", "-o", "json:{}", "\n", "ü", "..hidden", "a" * 120]
)
def test_an_odd_name_is_not_what_the_program_sees(tmp_path: Path, name: str) -> None:
    odd = file_in(tmp_path, name)
    assert Cage(reads=[odd], means=FULL).inside(odd) == "/in/0/file"


def test_a_plain_name_stays_and_each_file_has_a_path_of_its_own(tmp_path: Path) -> None:
    one, other = file_in(tmp_path, "disk.vmdk"), tmp_path / "below" / "disk.vmdk"
    cage = Cage(reads=[one], writes=[other], means=FULL)
    assert cage.inside(one) == "/in/0/disk.vmdk"
    assert cage.inside(other) == "/out/0/disk.vmdk"


def test_a_file_that_is_read_and_written_is_one_that_is_written(tmp_path: Path) -> None:
    disk = file_in(tmp_path, "disk")
    assert Cage(reads=[disk, disk], writes=[disk], means=FULL).inside(disk) == "/out/0/disk"


def test_without_a_tree_of_its_own_a_program_sees_files_where_they_are(tmp_path: Path) -> None:
    disk = file_in(tmp_path, "with space")
    linked = tmp_path / "linked"
    linked.symlink_to(disk)
    for means in (CLOSED, LIMITS):
        assert Cage(reads=[linked], means=means).inside(linked) == os.path.realpath(disk)


@pytest.mark.threat("T71")
def test_a_link_in_the_place_of_what_is_to_be_written_is_not_followed(tmp_path: Path) -> None:
    precious, out = file_in(tmp_path, "precious"), tmp_path / "out"
    precious.write_bytes(b"content")
    out.symlink_to(precious)
    for means in (CLOSED, LIMITS):
        cage = Cage(writes=[out], means=means)
        assert cage.inside(out) == str(out)
        with pytest.raises(StorageError):
            cage.run(["true"], timeout_seconds=10)
    assert precious.read_bytes() == b"content"


def test_a_file_that_was_not_given_has_no_path_inside(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Cage(reads=[file_in(tmp_path, "one")], means=FULL).inside(tmp_path / "other")


def test_where_a_cage_is_required_less_does_not_do(tmp_path: Path) -> None:
    for means in (LIMITS, CLOSED, Means(walls=Walls.BUBBLEWRAP, is_filtered=False)):
        cage = Cage(reads=[tmp_path], means=replace(means, lacking=LIMITS.lacking), is_required=True)
        with pytest.raises(CageError, match="cannot be shut in fully") as caught:
            cage.run(["true"], timeout_seconds=1)
        assert "bwrap" in (caught.value.details or "")
        assert "require_cage" in (caught.value.resolution or "")
        with pytest.raises(CageError):
            cage.inside(tmp_path)
    assert Cage(means=FULL, is_required=True).means is FULL


def test_what_is_no_regular_file_is_not_handed_in(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for bad in (tmp_path / "missing", tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(UnreadableFileError):
            Cage(reads=[bad], means=FULL).run(["true"], timeout_seconds=1)
    for bad in (pipe, Path("/dev/zero"), tmp_path / "none" / "below"):
        with pytest.raises(StorageError):
            Cage(writes=[bad], means=FULL).run(["true"], timeout_seconds=1)


@pytest.mark.parametrize(
    ("means", "strength"),
    [
        (FULL, Strength.FULL),
        (Means(walls=Walls.BUBBLEWRAP, is_filtered=False), Strength.CLOSED),
        (CLOSED, Strength.CLOSED),
        (Means(walls=Walls.LANDLOCK, is_filtered=False), Strength.LIMITS),
        (LIMITS, Strength.LIMITS),
    ],
)
def test_strength_is_what_the_means_keep_out(means: Means, strength: Strength) -> None:
    assert means.strength is strength
    assert means.told()


def completed(code: int, said: str = "") -> Completed:
    return Completed(argv=("true",), returncode=code, stdout=b"", stderr=said.encode(), combined=said, seconds=0.0)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Means]:
    """Return which means are tried; all fail until a test says otherwise."""
    seen: list[Means] = []

    def stay(means: Means, what: object) -> Completed:
        seen.append(means)
        return completed(1, f"{means.walls}: not permitted\n")

    monkeypatch.setattr(trial, "stay", stay)
    monkeypatch.setattr("coppice.cage.landlock.version", lambda: 7)
    monkeypatch.setattr(trial, "has_filter", lambda: True)
    trial.forget_means()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return seen


@pytest.fixture(autouse=True)
def _forgotten() -> object:
    yield
    trial.forget_means()


def test_means_are_tried_from_the_strongest_on_and_once(tried: list[Means], caplog: pytest.LogCaptureFixture) -> None:
    found = trial.find_means()
    assert [(each.walls, each.is_privileged) for each in tried] == [
        (Walls.BUBBLEWRAP, True),
        (Walls.BUBBLEWRAP, False),
        (Walls.LANDLOCK, True),
        (Walls.LANDLOCK, False),
        (Walls.NONE, False),
    ]
    assert found.strength is Strength.LIMITS
    assert not found.is_filtered
    assert [line.split(":")[0] for line in found.lacking] == [
        "bubblewrap",
        "bubblewrap",
        "landlock",
        "landlock",
        "none",
    ]
    assert trial.find_means() is found
    assert len([record for record in caplog.records if "only limited" in record.message]) == 1


def test_the_first_means_that_work_are_taken_and_say_why_not_stronger_ones(
    tried: list[Means], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay(means: Means, what: object) -> Completed:
        return completed(0 if means.walls is Walls.LANDLOCK else 1, "bwrap: No permissions to create new namespace")

    monkeypatch.setattr(trial, "stay", stay)
    found = trial.find_means()
    assert found.walls is Walls.LANDLOCK
    assert found.lacking == ("bubblewrap: bwrap: No permissions to create new namespace",) * 2


def test_a_kernel_without_landlock_is_not_taken_for_one_with_it(
    tried: list[Means], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coppice.cage.landlock.version", lambda: 2)

    def stay(means: Means, what: object) -> Completed:
        return completed(1 if means.walls is Walls.BUBBLEWRAP else 0)

    monkeypatch.setattr(trial, "stay", stay)
    found = trial.find_means()
    assert found.walls is Walls.NONE
    assert found.is_filtered
