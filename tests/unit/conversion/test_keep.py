# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from datetime import timedelta

import pytest

from coppice import atomic
from coppice.conversion.bound import (
    keep_within,
    make_room,
    prune_guest_bytes,
    prune_results,
    remove_halves,
    sweep_leftovers,
)
from coppice.conversion.files import locked
from coppice.conversion.keep import (
    Made,
    all_kept,
    lease_of,
    lock_of,
    place_of,
    read_made,
    record_of,
    write_made,
)
from coppice.conversion.model import Archive, Compression, Detection, Inspection, Packaging, PartitionTable
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements

pytestmark = pytest.mark.unit
BLOCK = 64 * 1024
FOUND = Inspection(
    format=DiskFormat.QCOW2,
    size_bytes=5,
    virtual_size_bytes=7,
    disk=Detection(format=DiskFormat.QCOW2, virtual_size_bytes=7, variant="v3", notes=("one", "two")),
)
PACKED = Inspection(
    format=DiskFormat.RAW,
    size_bytes=5,
    virtual_size_bytes=7,
    disk=Detection(format=DiskFormat.RAW, virtual_size_bytes=7, partition_table=PartitionTable.GPT, allocated_bytes=3),
    packaging=Packaging(
        compression=Compression.XZ,
        archive=Archive.OVA,
        member="d\udcff.vmdk",
        hardware=Requirements(minimum_cores=2, firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI),
    ),
)


class FakeLeases:
    def __init__(self, *used) -> None:
        self.used = {lease_of(each) for each in used}

    def take(self, checksum):
        self.used.add(checksum)

    def is_used(self, checksum):
        return checksum in self.used


def kept(directory, number, *, is_seed=False, found=FOUND, used_seconds=None):
    source = Checksum.of(b"source %d" % number)
    path = place_of(directory, source, ("1", "qcow2"), DiskFormat.RAW if is_seed else DiskFormat.QCOW2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(BLOCK))
    image = Image(
        format=DiskFormat(path.suffix[1:]), size_bytes=BLOCK, virtual_size_bytes=7, checksum=Checksum.of(b"content")
    )
    write_made(path, Made(image=image, source=source, converter="x 1", is_seed=is_seed, found=found))
    used = number if used_seconds is None else used_seconds
    os.utime(record_of(path), (used, used))
    return path


@pytest.mark.parametrize("found", [FOUND, PACKED], ids=["bare", "packed"])
def test_a_record_says_afterwards_what_it_said_before(tmp_path, found):
    path = kept(tmp_path, 1, found=found)
    made = read_made(path)
    assert made is not None
    assert made.found == found
    assert [each.path for each in all_kept(tmp_path, made.source)] == [path]
    assert list(all_kept(tmp_path, Checksum.of(b"another"))) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"found": {"disk": 3}}', b'{"format": []}']
)
def test_a_record_that_cannot_be_read_is_none(tmp_path, content):
    path = kept(tmp_path, 1)
    record_of(path).write_bytes(content)
    assert read_made(path) is None
    assert list(all_kept(tmp_path)) == []


@pytest.mark.parametrize("key", ["size_bytes", "virtual_size_bytes"])
@pytest.mark.parametrize("said", [b"Infinity", b"NaN", b"1e999"])
def test_a_record_with_a_length_that_is_no_number_is_none(tmp_path, key, said):
    path = kept(tmp_path, 1)
    good = record_of(path).read_bytes()
    for count in (1, -1):
        # The first is the result's, the last the source's.
        parts = good.split(b'"%s": ' % key.encode())
        parts[count] = said + parts[count].lstrip(b"0123456789")
        record_of(path).write_bytes((b'"%s": ' % key.encode()).join(parts))
        assert read_made(path) is None
        assert list(all_kept(tmp_path)) == []


def test_each_source_format_and_option_has_a_place_of_its_own(tmp_path):
    one, other = Checksum.of(b"1"), Checksum.of(b"2")
    places = {
        place_of(tmp_path, source, identity, wanted)
        for source in (one, other)
        for identity in (("1", "a"), ("1", "b"), ("1a",), ("a", "1"))
        for wanted in (DiskFormat.RAW, DiskFormat.QCOW2)
    }
    assert len(places) == 16
    assert all(len(path.name) < 80 for path in places)


def test_what_was_used_last_stays_within_the_bound(tmp_path):
    paths = [kept(tmp_path, number) for number in (3, 1, 2)]
    assert keep_within(tmp_path, None, FakeLeases()) == ()
    assert keep_within(tmp_path, 3 * BLOCK, FakeLeases()) == ()
    assert keep_within(tmp_path, BLOCK, FakeLeases()) == (paths[1], paths[2])
    assert [each.exists() for each in paths] == [True, False, False]
    assert not record_of(paths[1]).exists()


def test_what_is_used_stays_whatever_the_bound_says(tmp_path):
    paths = [kept(tmp_path, number) for number in (1, 2, 3)]
    assert keep_within(tmp_path, 0, FakeLeases(paths[0], paths[2])) == (paths[1],)


def test_what_a_cloud_has_as_well_takes_no_room_of_its_own(tmp_path):
    paths = [kept(tmp_path, number) for number in (1, 2, 3)]
    (tmp_path / "in-a-cloud").hardlink_to(paths[0])
    assert keep_within(tmp_path, 2 * BLOCK, FakeLeases()) == ()
    assert make_room(tmp_path, 2**63, FakeLeases()) == (paths[1], paths[2])


def test_what_is_being_made_stays_whatever_the_bound_says(tmp_path):
    path = kept(tmp_path, 1)
    with locked(lock_of(path)):
        assert keep_within(tmp_path, 0, FakeLeases()) == ()
    assert keep_within(tmp_path, 0, FakeLeases()) == (path,)


def test_room_is_made_by_what_was_used_least_recently_and_no_more_than_is_needed(tmp_path):
    paths = [kept(tmp_path, number) for number in (1, 2, 3)]
    assert make_room(tmp_path, BLOCK + 1, FakeLeases()) == (paths[0], paths[1])
    assert make_room(tmp_path, 2**63, FakeLeases(paths[2])) == ()


def test_disks_that_serve_deltas_alone_are_few(tmp_path):
    seeds = [kept(tmp_path, number, is_seed=True) for number in (1, 2, 3)]
    kept(tmp_path, 0)
    assert prune_guest_bytes(tmp_path, FakeLeases(seeds[0]), keep=1) == (seeds[1],)


def test_what_was_made_of_something_that_nothing_needs_goes_after_some_days(tmp_path):
    old, needed, used, seed = (kept(tmp_path, number, is_seed=number == 4) for number in (1, 2, 3, 4))
    recent = kept(tmp_path, 5, used_seconds=4_000_000_000)
    made = read_made(needed)
    assert made is not None
    removed = prune_results(tmp_path, FakeLeases(used), needed={made.source}, keep=timedelta(days=7))
    assert removed == (old,)
    assert all(each.exists() for each in (needed, used, seed, recent))


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    whole, without_file, without_record, in_use = (kept(tmp_path, number) for number in (1, 2, 3, 4))
    without_file.unlink()
    record_of(without_record).unlink()
    record_of(in_use).unlink()
    half = atomic.partial_path(whole)
    half.write_bytes(b"half")
    part = atomic.partial_path(half)
    part.write_bytes(b"half of a half")
    half_record = atomic.partial_path(record_of(whole))
    half_record.write_bytes(b"half")
    removed = sweep_leftovers(tmp_path, FakeLeases(in_use))
    assert set(removed) == {record_of(without_file), without_record, half, part, half_record}
    assert whole.exists()
    assert read_made(whole) is not None
    assert in_use.exists()


def test_a_half_that_is_being_made_is_no_leftover(tmp_path):
    whole = kept(tmp_path, 1)
    half = atomic.partial_path(whole)
    part = atomic.partial_path(half)
    for each in (half, part):
        each.write_bytes(b"half")
    with locked(lock_of(whole)):
        assert sweep_leftovers(tmp_path, FakeLeases()) == ()
    assert half.exists()
    assert part.exists()


def test_who_makes_a_file_removes_first_what_a_killed_run_left_of_it_and_of_no_other(tmp_path):
    one, other = kept(tmp_path, 1), kept(tmp_path, 2)
    halves = [atomic.partial_path(each) for each in (one, atomic.partial_path(one), other)]
    for half in halves:
        half.write_bytes(b"half")
    remove_halves(one)
    assert [each.exists() for each in (*halves, one, other)] == [False, False, True, True, True]


def test_the_name_of_a_half_says_whose_it_is_whatever_the_format(tmp_path):
    for wanted in DiskFormat:
        path = place_of(tmp_path, Checksum.of(b"x"), ("1",), wanted)
        path.parent.mkdir(exist_ok=True)
        half = atomic.partial_path(atomic.partial_path(path))
        half.write_bytes(b"half")
        remove_halves(path)
        assert not half.exists()


def test_locks_of_what_is_gone_go_as_well_unless_they_are_held(tmp_path):
    whole, gone = kept(tmp_path, 1), tmp_path / "objects" / "gone.raw"
    with locked(lock_of(whole)):
        pass
    with locked(lock_of(gone)):
        sweep_leftovers(tmp_path, FakeLeases())
        assert lock_of(gone).exists()
    sweep_leftovers(tmp_path, FakeLeases())
    assert [each.name for each in (tmp_path / "locks").iterdir()] == [whole.name]
