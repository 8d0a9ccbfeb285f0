# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coppice.cache import assembly_match, spool
from coppice.cache.assembly import Method, Seed, assemble, sweep_assemblies
from coppice.cache.ranges import total_bytes
from coppice.cache.spool import Spool
from coppice.errors import DeltaError, NoSpaceError, TransferCutError
from coppice.formats.delta import BLOCK_BYTES
from coppice.model.checksum import Checksum
from coppice.testing.deltas import MemoryRemote, disk, make_delta, make_patch
from coppice.testing.desired import desired_image

pytestmark = pytest.mark.integration
OLD = disk(1, 2, 3, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12)
NEW = disk(1, 2, 3, 0, 0, 0, 4, 5, 6, 77, 8, 9, 88, 10, 11, 12)
LARGE = 10**9


class Place:
    def __init__(self, directory, *held) -> None:
        self.directory = directory / "cache"
        self.seeds = []
        for number, content in enumerate(held):
            path = directory / f"held-{number}"
            path.write_bytes(content)
            self.seeds.append(Seed(path=path, checksum=Checksum.of(content)))
        self.destination = self.directory / "partial" / "arrived"
        self.destination.parent.mkdir(parents=True)

    def assemble(self, made, *, size_bytes=LARGE, limit_bytes=LARGE, remote=None):
        listed = replace(desired_image().listed, size_bytes=size_bytes, delta=made.delta)
        remote = remote or MemoryRemote(made.files)
        result = assemble(
            listed,
            destination=self.destination,
            seeds=self.seeds,
            remote=remote,
            directory=self.directory,
            limit_bytes=limit_bytes,
        )
        assert result.fetched_bytes == remote.given_bytes
        return result

    @property
    def left_over(self):
        return [each for each in (self.directory / "partial").rglob("*") if each.name not in {"deltas", "arrived"}]


def test_a_patch_for_what_is_held_is_taken(tmp_path):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, origins=[OLD])
    result = place.assemble(made)
    assert result.method is Method.PATCH
    assert place.destination.read_bytes() == NEW
    # The index is an eighth of the patch, or less: it was looked into.
    assert result.fetched_bytes == made.delta.index.size_bytes + made.delta.patches[0].file.size_bytes
    assert result.reused_bytes == len(NEW) - 2 * BLOCK_BYTES
    assert place.destination.stat().st_mode & 0o777 == 0o444
    assert place.left_over == []


def test_the_smallest_of_the_patches_that_can_be_used_is_taken(tmp_path):
    place = Place(tmp_path, disk(1), OLD)
    made = make_delta(NEW, origins=[disk(1), OLD, disk(5)])
    result = place.assemble(made)
    assert (result.method, result.requests) == (Method.PATCH, 2)
    assert result.fetched_bytes == made.delta.index.size_bytes + made.delta.patches[1].file.size_bytes
    assert place.destination.read_bytes() == NEW


def test_an_index_that_costs_much_beside_a_patch_is_not_asked_for(tmp_path):
    new = NEW[:-1] + b"!"
    place = Place(tmp_path, NEW)
    made = make_delta(new, origins=[NEW])
    made.delta = replace(made.delta, index=replace(made.delta.index, uri="mem:nowhere", size_bytes=5000))
    result = place.assemble(made)
    assert (result.method, result.requests) == (Method.PATCH, 1)
    assert result.fetched_bytes == made.delta.patches[0].file.size_bytes
    assert place.destination.read_bytes() == new


def test_without_a_patch_only_the_missing_blocks_are_fetched(tmp_path):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, frame_blocks=1)
    remote = MemoryRemote(made.files)
    result = place.assemble(made, remote=remote)
    assert result.method is Method.BLOCKS
    assert place.destination.read_bytes() == NEW
    table = remote.ranges[0]
    fetched = made.delta.index.size_bytes + table[2] + total_bytes([each[1:] for each in remote.ranges[1:]])
    assert result.fetched_bytes == fetched
    assert result.reused_bytes == len(NEW) - 2 * BLOCK_BYTES
    assert place.left_over == []


def test_several_disks_give_each_what_they_have(tmp_path):
    place = Place(tmp_path, disk(1, 2, 3), disk(0, 77, 0, 4, 5, 6), disk(8, 9, 88, 10))
    made = make_delta(NEW, packs=3)
    result = place.assemble(made)
    assert place.destination.read_bytes() == NEW
    assert result.reused_bytes == len(NEW) - 2 * BLOCK_BYTES


def test_the_whole_file_is_fetched_where_it_is_the_cheapest(tmp_path):
    place = Place(tmp_path, OLD)
    result = place.assemble(make_delta(NEW, origins=[OLD]), size_bytes=100)
    assert (result.method, result.fetched_bytes) == (Method.WHOLE, 0)
    assert "whole 100" in result.reason
    assert not place.destination.exists()


def test_with_nothing_held_nothing_is_asked_for(tmp_path):
    assert Place(tmp_path).assemble(make_delta(NEW)).method is Method.WHOLE


def test_disks_that_have_nothing_of_it_cost_no_more_than_the_index(tmp_path):
    place = Place(tmp_path, disk(500, 501))
    made = make_delta(NEW, origins=[])
    result = place.assemble(made, size_bytes=40_000)
    assert (result.method, result.fetched_bytes) == (Method.WHOLE, made.delta.index.size_bytes)
    assert not place.destination.exists()
    assert place.left_over == []


def test_a_patch_that_costs_more_than_blocks_is_left(tmp_path):
    place = Place(tmp_path, disk(*range(1000, 1100)), NEW[: -2 * BLOCK_BYTES])
    target = NEW
    made = make_delta(target, origins=[disk(*range(1000, 1100))], frame_blocks=1)
    result = place.assemble(made)
    assert result.method is Method.BLOCKS
    assert place.destination.read_bytes() == target


def test_zeros_take_no_room(tmp_path):
    target = disk(*[0] * 4000, 1, *[0] * 4000)
    place = Place(tmp_path, disk(1))
    for made in (make_delta(target, origins=[disk(1)]), make_delta(target)):
        place.assemble(made)
        assert place.destination.read_bytes() == target
        assert place.destination.stat().st_blocks * 512 < 1024 * 1024
        place.destination.unlink()


@pytest.mark.parametrize("with_patch", [True, False])
def test_a_disk_need_not_end_at_a_block(tmp_path, with_patch):
    old, new = disk(1, 2, tail=100), disk(1, 3, 2, tail=100)
    place = Place(tmp_path, old)
    place.assemble(make_delta(new, origins=[old] if with_patch else []))
    assert place.destination.read_bytes() == new


NUMBERS = st.lists(st.integers(0, 12), min_size=1, max_size=24)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    held=st.tuples(NUMBERS, NUMBERS),
    wanted=NUMBERS,
    tail=st.integers(0, 4095),
    packs=st.integers(1, 3),
    frame_blocks=st.integers(1, 4),
    with_patch=st.booleans(),
)
def test_whatever_is_held_the_disk_comes_out_as_it_was_signed(tmp_path_factory, held, wanted, tail, with_patch, **kind):
    one, other = disk(*held[0], tail=tail), disk(*held[1])
    target = disk(*wanted, tail=tail)
    place = Place(tmp_path_factory.mktemp("any"), one, other)
    result = place.assemble(make_delta(target, origins=[other] if with_patch else [], **kind))
    assert result.method is not Method.WHOLE
    assert place.destination.read_bytes() == target


@pytest.mark.threat("T86")
@pytest.mark.parametrize("with_patch", [True, False])
def test_a_held_disk_that_was_altered_is_noticed(tmp_path, with_patch):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, origins=[OLD] if with_patch else [])
    if not with_patch:
        place.assemble(make_delta(disk(1, 2, 55)))  # its blocks are known from now on
        place.destination.unlink()
    path = place.seeds[0].path
    state = path.stat()
    path.write_bytes(b"!" + OLD[1:])
    if not with_patch:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DeltaError, match="not the one that was signed"):
        place.assemble(made)
    assert not place.destination.exists()
    assert place.left_over == []


@pytest.mark.threat("T86")
def test_a_held_disk_that_was_cut_short_or_replaced_by_a_link_is_no_help(tmp_path):
    place = Place(tmp_path, OLD)
    place.seeds[0].path.write_bytes(OLD[:BLOCK_BYTES])
    with pytest.raises(DeltaError, match="shorter than it was"):
        place.assemble(make_delta(NEW, origins=[OLD]))
    place.seeds[0].path.unlink()
    place.seeds[0].path.symlink_to(tmp_path)
    assert place.assemble(make_delta(NEW, origins=[OLD])).method is Method.WHOLE
    place.seeds[0].path.unlink()
    os.mkfifo(place.seeds[0].path)
    assert place.assemble(make_delta(NEW, origins=[OLD])).method is Method.WHOLE


def test_what_was_kept_of_a_disks_blocks_is_made_anew_when_it_is_damaged(tmp_path):
    place = Place(tmp_path, OLD)
    place.assemble(make_delta(NEW))
    (kept,) = (place.directory / "blocks").iterdir()
    good = kept.read_bytes()
    for bad in (b"", good[:20], good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b"X" + good[1:]):
        kept.write_bytes(bad)
        place.destination.unlink()
        place.assemble(make_delta(NEW))
        assert place.destination.read_bytes() == NEW
        assert kept.read_bytes() == good


def test_blocks_are_shared_with_what_is_held_where_the_file_system_can(tmp_path, monkeypatch):
    old = disk(*range(1, 60))
    new = disk(0, *range(1, 40), 99, *range(41, 60))
    place = Place(tmp_path, old)
    shared = []

    def clone(target, _, request):
        source, offset, length, position = struct.unpack("qQQQ", request)
        assert offset % BLOCK_BYTES == length % BLOCK_BYTES == position % BLOCK_BYTES == 0
        os.pwrite(target, os.pread(source, length, offset), position)
        shared.append(length)

    monkeypatch.setattr("coppice.cache.assembly_write.fcntl.ioctl", clone)
    place.assemble(make_delta(new, origins=[old]))
    assert place.destination.read_bytes() == new
    assert shared == [39 * BLOCK_BYTES, 19 * BLOCK_BYTES]


@pytest.mark.threat("T46")
def test_no_byte_that_came_is_fetched_again_after_the_line_went_dead(tmp_path):
    place = Place(tmp_path, disk(1, 2))
    new = disk(1, 2, *range(100, 140), 0, 1, *range(200, 220))
    made = make_delta(new, packs=2, frame_blocks=3)
    needed = place_cost(tmp_path / "other", new, made)
    given, tries = 0, 0
    while not place.destination.exists():
        remote = MemoryRemote(made.files, cut_after_bytes=30_000)
        tries += 1
        try:
            place.assemble(made, remote=remote)
        except TransferCutError:
            assert tries < 20
        given += remote.given_bytes
    assert tries > 3
    assert given == needed
    assert place.destination.read_bytes() == new


def place_cost(directory, new, made):
    directory.mkdir()
    place = Place(directory, disk(1, 2))
    return place.assemble(made).fetched_bytes


@pytest.mark.threat("T50")
@pytest.mark.parametrize("kind", ["flipped", "elsewhere", "short", "long"])
def test_a_server_that_lies_about_ranges_gives_no_disk(tmp_path, kind):
    lies = {
        "flipped": lambda _, __, piece: bytes([piece[0] ^ 1]) + piece[1:],
        "elsewhere": lambda uri, _, piece: made.files[uri][: len(piece)],
        "short": lambda _, __, piece: piece[:-1],
        "long": lambda uri, _, piece: piece + bytes(len(made.files[uri])),
    }
    place = Place(tmp_path, OLD)
    made = make_delta(NEW)
    with pytest.raises(DeltaError):
        place.assemble(made, remote=MemoryRemote(made.files, spoil=lies[kind]))
    assert not place.destination.exists()
    assert place.left_over == []
    # Nothing of the lie stays: an honest server serves the next time.
    place.assemble(made)
    assert place.destination.read_bytes() == NEW


@pytest.mark.threat("T50")
@pytest.mark.parametrize("name", ["index", "patch", "pack"])
def test_files_that_were_altered_give_no_disk(tmp_path, name):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, origins=[OLD] if name == "patch" else [])
    uri = next(each for each in made.files if f"-{name}" in each)
    good = made.files[uri]
    for at in range(0, len(good), max(1, len(good) // 60)):
        made.files[uri] = good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :]
        try:
            place.assemble(made)
        except DeltaError:
            assert not place.destination.exists()
            assert place.left_over == []
        else:
            # A part of a pack that nobody asked for.
            assert place.destination.read_bytes() == NEW
            place.destination.unlink()


def signed_anew(made, name, content):
    """The publisher itself signs a hostile file."""

    def file(old):
        if f"-{name}" not in old.uri:
            return old
        made.files[old.uri] = content
        return replace(old, size_bytes=len(content), checksum=Checksum.of(content))

    delta = made.delta
    patches = tuple(replace(each, file=file(each.file)) for each in delta.patches)
    made.delta = replace(delta, index=file(delta.index), packs=tuple(map(file, delta.packs)), patches=patches)
    return made


@pytest.mark.parametrize("name", ["index", "patch", "pack"])
def test_hostile_files_that_were_signed_give_no_disk(tmp_path, name):
    place = Place(tmp_path, OLD)
    good = make_delta(NEW, origins=[OLD] if name == "patch" else [])
    content = next(value for key, value in good.files.items() if f"-{name}" in key)
    step = max(1, len(content) // 60)
    altered = [content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :] for at in range(0, len(content), step)]
    for hostile in (*altered, b"", content[:50], content[:-1], content + bytes(1000)):
        made = signed_anew(make_delta(NEW, origins=[OLD] if name == "patch" else []), name, hostile)
        try:
            place.assemble(made)
        except DeltaError:
            assert not place.destination.exists()
            assert place.left_over == []
        else:
            assert place.destination.read_bytes() == NEW
            place.destination.unlink()


def test_parts_of_another_delta_are_refused(tmp_path):
    place = Place(tmp_path, OLD)
    made, other = make_delta(NEW, origins=[OLD]), make_delta(disk(1, 2, 3, 78), origins=[OLD])
    patch = replace(made.delta.patches[0], file=other.delta.patches[0].file)
    made.files |= other.files
    made.delta = replace(made.delta, patches=(patch,))
    with pytest.raises(DeltaError, match="makes another disk"):
        place.assemble(made)
    made.delta = replace(made.delta, patches=(), index=other.delta.index)
    with pytest.raises(DeltaError, match="of another disk"):
        place.assemble(made)


def test_an_index_with_more_packs_than_the_list_names_is_refused(tmp_path):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, packs=2)
    made.delta = replace(made.delta, packs=made.delta.packs[:1])
    with pytest.raises(DeltaError, match="has 2 packs; the list names 1"):
        place.assemble(made)


def test_a_patch_from_another_disk_than_the_list_says_is_refused(tmp_path):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, origins=[OLD])
    content = make_patch(OLD[:-1] + b"!", NEW)
    with pytest.raises(DeltaError, match="starts from another disk"):
        place.assemble(signed_anew(made, "patch", content))


def test_where_the_index_is_no_good_a_patch_still_serves(tmp_path):
    old = disk(*range(1, 300))
    new = disk(*range(1, 150), *range(1000, 1150))
    place = Place(tmp_path, old)
    made = signed_anew(make_delta(new, origins=[old]), "index", b"nonsense")
    assert place.assemble(made).method is Method.PATCH
    assert place.destination.read_bytes() == new


def test_where_the_index_is_gone_a_patch_still_serves(tmp_path):
    old = disk(*range(1, 300))
    new = disk(*range(1, 150), *range(1000, 1150))
    place = Place(tmp_path, old)
    made = make_delta(new, origins=[old])
    made.delta = replace(made.delta, index=replace(made.delta.index, uri="mem:nowhere"))
    assert place.assemble(made).method is Method.PATCH
    assert place.destination.read_bytes() == new


def test_disks_out_of_bounds_are_refused_before_anything_is_fetched(tmp_path):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW)
    with pytest.raises(DeltaError, match="are taken"):
        place.assemble(made, limit_bytes=len(NEW) - 1)
    made.delta = replace(made.delta, guest_checksum=Checksum.of(NEW, "sha256"))
    with pytest.raises(DeltaError):
        place.assemble(made)
    assert place.left_over == []


def test_a_disk_that_is_scattered_beyond_measure_is_not_put_together(tmp_path, monkeypatch):
    place = Place(tmp_path, OLD)
    monkeypatch.setattr(assembly_match, "MAXIMUM_PIECES", 1)
    with pytest.raises(DeltaError, match="pieces"):
        place.assemble(make_delta(NEW))
    monkeypatch.setattr(assembly_match, "MAXIMUM_BLOCKS", 3)
    with pytest.raises(DeltaError, match="not put together here"):
        place.assemble(make_delta(NEW))


def test_packs_that_unpack_to_far_more_than_the_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("coppice.cache.assembly_blocks.UNPACKED_FREE_BYTES", 0)
    monkeypatch.setattr("coppice.cache.assembly_blocks.MAXIMUM_UNPACKED_SHARE", 1)
    place = Place(tmp_path, disk(2))
    with pytest.raises(DeltaError, match="would be unpacked"):
        place.assemble(make_delta(disk(1, 2, 3), frame_blocks=3 * 8))


@pytest.mark.threat("T80")
@pytest.mark.parametrize("with_patch", [True, False])
def test_a_disk_without_room_is_said_before_it_is_written(tmp_path, monkeypatch, with_patch):
    place = Place(tmp_path, OLD)
    made = make_delta(NEW, origins=[OLD] if with_patch else [])
    monkeypatch.setattr("coppice.cache.assembly.RESERVE_BYTES", 1 << 60)
    with pytest.raises(NoSpaceError):
        place.assemble(made)
    assert not place.destination.exists()


def test_what_nobody_goes_on_with_is_swept(tmp_path):
    place = Place(tmp_path, disk(1, 2))
    made = make_delta(disk(1, 2, *range(100, 140)))
    with pytest.raises(TransferCutError):
        place.assemble(made, remote=MemoryRemote(made.files, cut_after_bytes=20_000))
    assert sweep_assemblies(place.directory) == ()
    (folder,) = (place.directory / "partial" / "deltas").iterdir()
    for path in (folder, *folder.iterdir()):
        os.utime(path, (0, 0))
    assert sweep_assemblies(place.directory) == (folder,)
    assert not folder.exists()


def test_a_spool_takes_only_what_it_can_prove(tmp_path):
    path = tmp_path / "spool"
    with Spool(path, 1000) as one:
        one.put(100, b"a" * 50)
        one.put(150, b"b" * 50)
        one.put(400, b"c" * 50)
        assert one.whole == [(100, 100), (400, 50)]
        with pytest.raises(DeltaError):
            one.put(990, b"d" * 20)
    with path.open("r+b") as stream:
        stream.seek(160)
        stream.write(b"!")
    with spool.note_of(path).open("ab") as stream:
        stream.write(b"torn")
    with Spool(path, 1000) as one:
        assert one.whole == [(100, 50), (400, 50)]
        assert one.read(100, 50) == b"a" * 50
        one.put(150, b"b" * 50)
    with Spool(path, 1000) as one:
        assert one.whole == [(100, 100), (400, 50)]
