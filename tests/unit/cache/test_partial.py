# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading

import pytest

from coppice.cache import progress as progress_module
from coppice.cache.partial import PartialFile, progress_path
from coppice.cache.progress import PartialSource
from coppice.errors import LockedError, NoSpaceError, SizeMismatchError, StorageError
from coppice.model.checksum import Checksum

pytestmark = pytest.mark.unit
DATA = os.urandom(300_000)
SOURCE = PartialSource(uri="https://images.example.org/x", etag='"one"')


@pytest.fixture
def path(tmp_path):
    return tmp_path / "partial" / "x"


@pytest.fixture
def reboot(tmp_path, monkeypatch):
    boot = tmp_path / "boot"
    boot.write_text("first\n")
    monkeypatch.setattr(progress_module, "BOOT_ID", boot)
    return lambda: boot.write_text("second\n")


def append_in_pieces(partial, size=10_000):
    for start in range(0, len(DATA), size):
        partial.append(DATA[start : start + size])


def test_what_is_appended_is_hashed_and_given_its_name(path, tmp_path):
    with PartialFile(path, ("sha256", "sha512")) as partial:
        for start in range(0, len(DATA), 7000):
            partial.append(DATA[start : start + 7000])
        found = partial.finish(len(DATA))
        partial.keep_as(tmp_path / "objects" / "aa" / "x")
    assert found == {name: Checksum.of(DATA, name) for name in ("sha256", "sha512")}
    assert (tmp_path / "objects" / "aa" / "x").read_bytes() == DATA
    assert (tmp_path / "objects" / "aa" / "x").stat().st_mode & 0o777 == 0o444
    assert list(path.parent.iterdir()) == []


def test_pieces_in_any_order_give_the_same_checksum(path):
    starts = sorted(range(0, len(DATA), 5000), key=lambda start: start * 7919 % 104_729)
    with PartialFile(path) as partial:
        for start in starts:
            partial.write(start, DATA[start : start + 5000])
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


def test_threads_may_write_at_the_same_time(path):
    def write(first):
        for start in range(first * 100, len(DATA), 400):
            partial.write(start, DATA[start : start + 100])

    with PartialFile(path) as partial:
        threads = [threading.Thread(target=write, args=(each,)) for each in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


@pytest.mark.threat("T79")
def test_what_was_appended_is_taken_up_by_its_size_and_hashed(path):
    with PartialFile(path) as partial:
        partial.came_from(SOURCE)
        partial.append(DATA[:100_001])
    with PartialFile(path) as partial:
        assert (partial.size_bytes, partial.taken_up_bytes, partial.source) == (100_001, 100_001, SOURCE)
        partial.append(DATA[100_001:])
        assert partial.finish()["sha512"] == Checksum.of(DATA)


@pytest.mark.threat("T79")
def test_stretches_that_were_written_out_of_order_are_taken_up(path):
    with PartialFile(path) as partial:
        partial.append(DATA[:1000])
        partial.write(200_000, DATA[200_000:250_000])
        partial.write(1000, DATA[1000:2000])
    with PartialFile(path) as partial:
        assert partial.gaps(len(DATA)) == [(2000, 200_000), (250_000, len(DATA))]
        for start, end in partial.gaps(len(DATA)):
            partial.write(start, DATA[start:end])
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


@pytest.mark.threat("T79")
def test_a_line_of_progress_that_a_kill_cut_off_says_nothing(path):
    with PartialFile(path) as partial:
        partial.write(1000, DATA[1000:2000])
        partial.write(5000, DATA[5000:6000])
    progress = progress_path(path)
    progress.write_bytes(progress.read_bytes()[:-3])
    for _ in range(2):
        with PartialFile(path) as partial:
            assert partial.total_bytes == 1000
            partial.write(1000, DATA[1000:2000])


@pytest.mark.threat("T83")
def test_after_a_restart_of_the_machine_only_what_was_durable_counts(path, reboot):
    with PartialFile(path) as partial:
        partial.came_from(SOURCE)
        partial.append(DATA[:50_000])
        partial.sync()
        partial.append(DATA[50_000:90_000])
    reboot()
    for _ in range(2):
        with PartialFile(path) as partial:
            assert (partial.size_bytes, path.stat().st_size, partial.source) == (50_000, 50_000, SOURCE)
    with PartialFile(path) as partial:
        partial.append(DATA[50_000:])
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


@pytest.mark.threat("T83")
def test_after_a_restart_of_the_machine_nothing_counts_that_nobody_made_durable(path, reboot):
    with PartialFile(path) as partial:
        partial.append(DATA[:50_000])
    reboot()
    with PartialFile(path) as partial:
        assert (partial.total_bytes, path.stat().st_size) == (0, 0)


@pytest.mark.threat("T83")
def test_much_is_made_durable_on_the_way(path, reboot, monkeypatch):
    monkeypatch.setattr("coppice.cache.partial.DURABLE_EVERY_BYTES", 10_000)
    with PartialFile(path) as partial:
        for start in range(0, 100_000, 1000):
            partial.append(DATA[start : start + 1000])
    reboot()
    with PartialFile(path) as partial:
        assert partial.size_bytes >= 10_000


@pytest.mark.parametrize(
    "spoilt", [b"", b"boot", b"\xff\xfe\n", b"boot x\nwhole 1\n", b"from []\n", b"nothing of it\n"]
)
def test_progress_that_cannot_be_read_says_that_nothing_is_there(path, spoilt):
    with PartialFile(path) as partial:
        partial.append(DATA)
    progress_path(path).write_bytes(spoilt)
    with PartialFile(path) as partial:
        assert partial.total_bytes == 0
        partial.append(DATA)
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


def test_bytes_without_progress_are_nobodys(path):
    path.parent.mkdir()
    path.write_bytes(DATA)
    with PartialFile(path) as partial:
        assert partial.total_bytes == 0


def test_stretches_behind_the_end_of_the_file_do_not_count(path):
    with PartialFile(path) as partial:
        partial.write(200_000, DATA[200_000:])
    os.truncate(path, 210_000)
    with PartialFile(path) as partial:
        assert partial.gaps(len(DATA)) == [(0, 200_000), (210_000, len(DATA))]


def test_begun_anew_it_holds_nothing_of_before(path):
    with PartialFile(path) as partial:
        partial.came_from(SOURCE)
        partial.write(100_000, b"x" * 100_000)
        partial.restart()
        assert (partial.total_bytes, partial.source) == (0, None)
        partial.append(DATA)
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)
    with PartialFile(path) as partial:
        assert partial.size_bytes == len(DATA)


def test_zeros_become_holes_and_are_hashed(path):
    zeros = bytes(4 * 1024 * 1024)
    with PartialFile(path) as partial:
        partial.append(DATA)
        partial.append(zeros)
        partial.append(DATA)
        assert partial.finish()["sha512"] == Checksum.of(DATA + zeros + DATA)
    assert path.read_bytes() == DATA + zeros + DATA
    assert path.stat().st_blocks * 512 < len(zeros)


def test_zeros_over_what_was_there_are_written(path):
    with PartialFile(path) as partial:
        partial.append(b"x" * 5000)
        partial.write(1000, bytes(2000))
    assert path.read_bytes() == b"x" * 1000 + bytes(2000) + b"x" * 2000


def test_a_file_with_holes_is_not_finished(path):
    with PartialFile(path) as partial:
        partial.write(1000, DATA[1000:])
        with pytest.raises(SizeMismatchError):
            partial.finish(len(DATA))
        with pytest.raises(SizeMismatchError):
            partial.finish()


@pytest.mark.threat("T84")
def test_one_at_a_time_has_it(path):
    with PartialFile(path), pytest.raises(LockedError):
        PartialFile(path)
    PartialFile(path).close()


def test_a_link_is_not_written_through(path, tmp_path):
    path.parent.mkdir()
    (tmp_path / "other").write_bytes(b"mine")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(StorageError):
        PartialFile(path)
    assert (tmp_path / "other").read_bytes() == b"mine"


@pytest.mark.threat("T80")
def test_a_full_disk_is_an_error_and_what_was_written_before_stays(path, monkeypatch):
    real = os.pwrite
    left = [150_000]

    def pwrite(handle, data, offset):
        if left[0] < len(data):
            raise OSError(28, "No space left on device")
        left[0] -= len(data)
        return real(handle, data, offset)

    with PartialFile(path) as partial:
        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(NoSpaceError):
            append_in_pieces(partial)
    monkeypatch.undo()
    with PartialFile(path) as partial:
        assert partial.size_bytes >= 140_000
        partial.append(DATA[partial.size_bytes :])
        assert partial.finish(len(DATA))["sha512"] == Checksum.of(DATA)


def test_thrown_away_it_leaves_nothing(path):
    partial = PartialFile(path)
    partial.append(DATA)
    partial.discard()
    assert list(path.parent.iterdir()) == []


@pytest.mark.threat("T86")
def test_a_file_that_somebody_shortens_meanwhile_is_not_finished(path):
    with PartialFile(path) as partial:
        partial.append(DATA)
        os.truncate(path, 1000)
        with pytest.raises((SizeMismatchError, StorageError)):
            partial.finish(len(DATA))
