# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from coppice.conversion.unpack_split import MemberSplit, SplicedWindow
from coppice.conversion.unpack_spool import SpoolFile, WriterThread, copy_stretch, sweep_spool
from coppice.conversion.window import BytesWindow, FileWindow
from coppice.errors import NoSpaceError, StorageError
from coppice.testing.archives import archive, header, member

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
MIB = 1024 * 1024


def test_pieces_of_any_length_are_written_as_they_are_with_holes_for_whole_blocks_of_zeros(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - content for a test
    pieces = []
    for _ in range(120):
        length = chance.choice([0, 1, 511, 4095, 4096, 4097, 65536, MIB])
        pieces.append(bytes(length) if chance.random() < 0.6 else chance.randbytes(min(length, 9000)))
    with SpoolFile(tmp_path) as spool:
        for piece in pieces:
            spool.write(piece)
        spool.close_hole()
        assert spool.path.read_bytes() == b"".join(pieces)
        assert spool.size_bytes == spool.path.stat().st_size
        assert spool.path.stat().st_blocks * 512 < spool.size_bytes // 4
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".coppice-unpacked-0123456789abcdef.spool"
    left.write_bytes(b"half of a disk")
    other = tmp_path / "somebody-else's.raw"
    other.write_bytes(b"")
    (tmp_path / ".coppice-unpacked-fedcba9876543210.spool").symlink_to(other)
    with SpoolFile(tmp_path) as spool:
        assert sweep_spool(tmp_path) == [left]
        assert spool.path.exists()
    assert other.exists()
    assert sweep_spool(tmp_path / "missing") == []


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    made: list[int] = []

    def flock(handle: int, how: int) -> None:
        made.append(handle)
        if len(made) == 1:
            raise BlockingIOError(errno.EWOULDBLOCK, "a sweeper holds it")
        if len(made) == 2:
            for path in tmp_path.iterdir():
                path.unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with SpoolFile(tmp_path) as spool:
        assert len(made) == 3
        assert spool.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError):
        SpoolFile(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_problem_of_the_writer_is_told_to_whoever_unpacks_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with SpoolFile(tmp_path) as spool, pytest.raises(NoSpaceError), WriterThread() as writer:  # noqa: PT012 - at one of them
        for _ in range(100):
            writer.put(spool, b"x" * 4096)
    with SpoolFile(tmp_path) as spool, pytest.raises(NoSpaceError), WriterThread() as writer:
        writer.put(spool, b"the only piece")


def test_blocks_are_those_of_the_file_wherever_a_piece_begins(tmp_path: Path) -> None:
    # A piece that begins inside of a block, whose end is zeros; two empty blocks; data; and zeros at its end.
    pieces = [b"x" * 512, bytes(4096 - 512) + bytes(8192) + b"y" * 4096 + bytes(1000), bytes(3096), b"z" * 100]
    with SpoolFile(tmp_path) as spool:
        for piece in pieces:
            spool.write(bytearray(piece))
        spool.close_hole()
        assert spool.path.read_bytes() == b"".join(pieces)
        assert os.lseek(spool.handle, 0, os.SEEK_HOLE) == 4096
        assert os.lseek(spool.handle, 4096, os.SEEK_DATA) == 3 * 4096
        assert os.lseek(spool.handle, 3 * 4096, os.SEEK_HOLE) == 4 * 4096
        assert os.lseek(spool.handle, 4 * 4096, os.SEEK_DATA) == 5 * 4096


def test_memory_is_lent_again_when_what_lies_in_it_is_written_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    may_write = threading.Event()

    def slow(handle: int, piece: bytes, position: int) -> int:
        assert may_write.wait(60)
        return real(handle, piece, position)

    monkeypatch.setattr(os, "pwrite", slow)
    with SpoolFile(tmp_path) as spool, WriterThread() as writer:
        lent: list[bytearray] = []
        for number in range(5):
            buffer = writer.take()
            assert not any(buffer is each for each in lent)
            lent.append(buffer)
            buffer[:] = bytes([number + 1]) * MIB
            writer.put(spool, buffer)
            writer.give_back(buffer)
        lent.append(writer.take())
        threading.Timer(0.1, may_write.set).start()
        again = writer.take()
        assert may_write.is_set()
        assert again is lent[0]
        again[:] = bytes([99]) * MIB
        writer.put(spool, again)
        writer.give_back(again)
    assert spool.size_bytes == 6 * MIB


def test_each_piece_is_written_as_it_was_handed_over_however_often_memory_is_used_again(tmp_path: Path) -> None:
    with SpoolFile(tmp_path) as spool:
        buffers = set()
        with WriterThread() as writer:
            for number in range(60):
                buffer = writer.take()
                buffers.add(id(buffer))
                buffer[:] = number.to_bytes(4, "little") * (MIB // 4)
                writer.put(spool, bytes(buffer[:1000]))
                writer.put(spool, buffer)
                writer.give_back(buffer)
        content = spool.path.read_bytes()
    assert len(buffers) <= 6
    at = 0
    for number in range(60):
        assert content[at : at + 1000 + MIB] == number.to_bytes(4, "little") * (250 + MIB // 4)
        at += 1000 + MIB
    assert at == len(content)


def test_nobody_waits_for_memory_of_a_writer_that_has_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with SpoolFile(tmp_path) as spool, pytest.raises(NoSpaceError), WriterThread() as writer:  # noqa: PT012 - at one of them
        for _ in range(100):
            buffer = writer.take()
            buffer[:1] = b"x"
            writer.put(spool, buffer)
            writer.give_back(buffer)


@pytest.mark.threat("T65")
def test_what_is_unpacked_leaves_room_for_others_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    def nearly_full(handle: int) -> os.statvfs_result:
        free = 40 * MIB - os.fstat(handle).st_blocks * 512
        return os.statvfs_result((*real[:1], 1, real[2], free, free, *real[5:]))

    monkeypatch.setattr(os, "fstatvfs", nearly_full)
    with SpoolFile(tmp_path) as spool, pytest.raises(NoSpaceError):  # noqa: PT012 - at one of them
        for _ in range(40):
            spool.write(b"x" * MIB)
    assert 16 * MIB < spool.size_bytes < 32 * MIB


def test_a_stretch_is_copied_with_its_holes(tmp_path: Path) -> None:
    content = bytes(3 * MIB) + os.urandom(MIB) + bytes(4 * MIB) + b"end"
    source = tmp_path / "source"
    with source.open("wb") as stream:
        stream.seek(3 * MIB)
        stream.write(content[3 * MIB : 4 * MIB])
        stream.seek(8 * MIB)
        stream.write(b"end")
    for offset, size in (
        (0, len(content)),
        (512, 5 * MIB),
        (3 * MIB - 1, MIB + 2),
        (5 * MIB, MIB),
        (8 * MIB, 3),
        (7, 0),
    ):
        with FileWindow(source) as window:
            copy_stretch(window.handle, offset, size, tmp_path / "made")
        assert (tmp_path / "made").read_bytes() == content[offset : offset + size]
        assert (tmp_path / "made").stat().st_blocks * 512 <= 2 * MIB


def test_a_stretch_of_a_file_that_became_shorter_is_no_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4096)
    with FileWindow(source) as window:
        os.truncate(source, 1000)
        with pytest.raises(StorageError):
            copy_stretch(window.handle, 0, 4096, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def split(content: bytes, directory: Path, step: int) -> tuple[MemberSplit, bytes, bytes | None]:
    found: dict[str, bytes] = {}
    with SpoolFile(directory) as main, SpoolFile(directory) as part:
        made = MemberSplit(main, lambda: part)
        for at in range(0, len(content), step):
            for spool, piece in made.route(content[at : at + step]):
                spool.write(piece)
        for name, spool in (("main", main), ("part", part)):
            spool.close_hole()
            found[name] = spool.path.read_bytes()
    return made, found["main"], found["part"] if made.part is not None else None


@pytest.mark.parametrize("step", [1000, 4096, MIB])
def test_the_first_large_member_goes_to_a_file_of_its_own(step: int, tmp_path: Path) -> None:
    disk = os.urandom(MIB + 700)
    whole = archive(member("a.ovf", b"text"), member("b", b""), member("c.raw", disk), member("d.raw", disk))
    made, main, part = split(whole, tmp_path, step)
    assert part == disk
    assert (made.start, made.size_bytes) == (4 * 512, len(disk))
    assert main == whole[: made.start] + whole[made.start + len(disk) :]
    window = SplicedWindow(*_windows(tmp_path, main, part, made.start))
    assert window.size_bytes == len(whole)
    assert window.read(0, len(whole) + 9) == whole
    for start in (0, made.start - 1, made.start, made.start + len(disk) - 1, made.start + len(disk), len(whole) - 1):
        for length in (0, 1, 2, 600, len(disk) + 2):
            assert window.read(start, length) == whole[start : start + length]


@pytest.mark.parametrize(
    "content",
    [
        os.urandom(3 * MIB),
        bytes(3 * MIB),
        b"",
        b"short",
        archive(member("small.raw", b"x" * 4096)),
        header("link", 4 * MIB, kind="2") + bytes(MIB),
        header("disk.raw", 4 * MIB, checksum=1) + bytes(MIB),
    ],
    ids=["noise", "zeros", "nothing", "short", "small-member", "link", "wrong-checksum"],
)
def test_what_has_no_large_member_stays_in_one_file(content: bytes, tmp_path: Path) -> None:
    _, main, part = split(content, tmp_path, 65536)
    assert part is None
    assert main == content


def test_what_goes_to_one_file_as_a_whole_is_not_copied_and_what_is_cut_is(tmp_path: Path) -> None:
    with SpoolFile(tmp_path) as spool:
        made = MemberSplit(spool, lambda: spool)
        first, second = bytearray(os.urandom(4096)), bytearray(4096)
        parts = [part for _, part in made.route(first)]
        assert [len(part) for part in parts] == [512, 4096 - 512]
        assert all(part is not first for part in parts)
        assert all(part is second for _, part in made.route(second))


def test_a_stretch_lies_in_one_of_the_files_or_in_none(tmp_path: Path) -> None:
    main, start, part = _windows(tmp_path, bytes(100), bytes(50), 40)
    window = SplicedWindow(main, start, part)
    assert window.place_of(0, 40) == (main, 0)
    assert window.place_of(40, 50) == (part, 0)
    assert window.place_of(45, 5) == (part, 5)
    assert window.place_of(90, 60) == (main, 40)
    assert window.place_of(39, 2) is None
    assert window.place_of(89, 2) is None
    assert window.place_of(0, 150) is None


def test_a_part_of_a_window_is_of_the_same_open_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"0123456789")
    with FileWindow(path, 2, 6) as whole, whole.part(1, 3) as part:
        path.unlink()
        path.write_bytes(b"another file")
        assert part.read(0, 9) == b"345"
        assert (part.path, part.offset, part.size_bytes) == (path, 3, 3)
    assert BytesWindow(b"345").read(1, 1) == b"4"


def _windows(directory: Path, main: bytes, part: bytes, start: int) -> tuple[FileWindow, int, FileWindow]:
    (directory / "main").write_bytes(main)
    (directory / "part").write_bytes(part)
    return FileWindow(directory / "main"), start, FileWindow(directory / "part")


def test_nothing_is_written_after_an_interruption_has_closed_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted: list[bool] = []

    class Interrupted(WriterThread):
        def _end(self) -> None:
            if not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            super()._end()
            assert not self._thread.is_alive()

    with SpoolFile(tmp_path) as spool, pytest.raises(KeyboardInterrupt), Interrupted() as writer:
        writer.put(spool, b"x")
    assert interrupted
    assert list(tmp_path.iterdir()) == []
