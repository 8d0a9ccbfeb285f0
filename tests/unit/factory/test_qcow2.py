# SPDX-License-Identifier: Apache-2.0
"""Compressed qcow2 files as builds write and read them; what QEMU says of them is in the integration tests."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace

import pytest
import zstandard

from coppice.errors import BuildError
from coppice.factory import qcow2
from coppice.factory.qcow2 import open_own, read_qcow2, write_qcow2

CLUSTER = 65536
COPIED, COMPRESSED = 1 << 63, 1 << 62


def make_raw(path, pieces, size_bytes):
    with path.open("wb") as stream:
        for at, piece in pieces.items():
            stream.seek(at)
            stream.write(piece)
        stream.truncate(size_bytes)
    return path


@pytest.fixture
def raw(tmp_path):
    chance = random.Random(1)  # noqa: S311 - bytes that do not compress
    pieces = {
        0: b"boot",
        3 * CLUSTER: bytes(CLUSTER),
        5 * CLUSTER: chance.randbytes(2 * CLUSTER),
        8 * CLUSTER: b"".join(b"line %d\n" % number for number in range(60000)),
        9000 * CLUSTER: b"beyond the first table",
    }
    # The last cluster is not a whole one.
    return make_raw(tmp_path / "raw", pieces | {9001 * CLUSTER: b"end" * 400}, 9001 * CLUSTER + 1200)


def entries(path):
    """Return the second-level entries of an image that are not empty, with their places in the file."""
    data = path.read_bytes()
    count, at = struct.unpack_from(">IQ", data, 36)
    found = {}
    for (table,) in struct.iter_unpack(">Q", data[at : at + 8 * count]):
        if table:
            start = table & ~COPIED
            found |= {
                start + 8 * place: entry
                for place, (entry,) in enumerate(struct.iter_unpack(">Q", data[start : start + CLUSTER]))
                if entry
            }
    return found


def test_a_disk_that_is_written_and_read_is_the_same_and_the_same_disk_makes_the_same_bytes(tmp_path, raw):
    for name in ("one", "two"):
        write_qcow2(raw, tmp_path / name, timeout_seconds=60)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_qcow2(tmp_path / "one", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == raw.read_bytes()
    assert (tmp_path / "again").stat().st_blocks < 200 * CLUSTER // 512


def test_zeros_take_no_room_and_what_does_not_compress_is_kept_as_it_is(tmp_path, raw):
    write_qcow2(raw, tmp_path / "image", timeout_seconds=60)
    said = entries(tmp_path / "image").values()
    assert sum(1 for entry in said if entry & COPIED) == 2
    # The boot sector, the lines, and both of the last; the zeros that were written are not there.
    lines = -(-len(b"".join(b"line %d\n" % number for number in range(60000))) // CLUSTER)
    assert sum(1 for entry in said if entry & COMPRESSED) == 1 + lines + 2


def test_what_a_parents_image_has_compressed_is_taken_over_and_the_rest_is_made(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(qcow2, "_LEVEL", 19)
    write_qcow2(raw, tmp_path / "parent", timeout_seconds=60)
    monkeypatch.setattr(qcow2, "_LEVEL", 3)
    like = read_qcow2(tmp_path / "parent", tmp_path / "parents-disk", remembers=True)
    with raw.open("r+b") as stream:
        stream.seek(9 * CLUSTER)
        stream.write(b"changed")
    write_qcow2(raw, tmp_path / "alone", timeout_seconds=60)
    write_qcow2(raw, tmp_path / "child", timeout_seconds=60, like=like)
    with (tmp_path / "parent").open("rb") as parent, (tmp_path / "child").open("rb") as child:
        old, new = open_own(parent), open_own(child)
        assert old is not None
        assert new is not None
        same = [n for n in new.written() if new.frame_of(n) and new.frame_of(n) == old.frame_of(n)]
        assert 8 in same
        assert 9 not in same
        assert len(same) > 5
    assert read_qcow2(tmp_path / "child", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == raw.read_bytes()
    # What a smaller form was found for stays smaller.
    assert (tmp_path / "child").stat().st_size <= (tmp_path / "alone").stat().st_size


def test_a_parent_that_became_an_image_of_another_kind_or_went_is_no_help_and_no_harm(tmp_path, raw):
    write_qcow2(raw, tmp_path / "alone", timeout_seconds=60)
    like = read_qcow2(tmp_path / "alone", tmp_path / "parents-disk", remembers=True)
    assert like is not None
    for name, path in (("other", raw), ("gone", tmp_path / "gone")):
        write_qcow2(raw, tmp_path / name, timeout_seconds=60, like=replace(like, path=path))
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone").read_bytes()


def test_what_nobody_remembers_is_compressed_anew(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(qcow2, "_LEVEL", 19)
    write_qcow2(raw, tmp_path / "parent", timeout_seconds=60)
    monkeypatch.setattr(qcow2, "_LEVEL", 3)
    like = read_qcow2(tmp_path / "parent", tmp_path / "parents-disk")
    assert like is not None
    assert like.clusters == {}
    write_qcow2(raw, tmp_path / "alone", timeout_seconds=60)
    write_qcow2(raw, tmp_path / "beside", timeout_seconds=60, like=like)
    assert (tmp_path / "beside").read_bytes() == (tmp_path / "alone").read_bytes()


def test_a_parent_that_was_replaced_since_it_was_read_gives_nothing(tmp_path):
    parent = tmp_path / "parent"
    raw = make_raw(tmp_path / "raw", {number * CLUSTER: b"own %d" % number for number in range(30)}, 64 * CLUSTER)
    write_qcow2(raw, parent, timeout_seconds=60)
    like = read_qcow2(parent, tmp_path / "parents-disk", remembers=True)
    other = make_raw(tmp_path / "other", {number * CLUSTER: b"other %d" % number for number in range(30)}, 64 * CLUSTER)
    parent.unlink()
    write_qcow2(other, parent, timeout_seconds=60)
    write_qcow2(raw, tmp_path / "child", timeout_seconds=60, like=like)
    assert read_qcow2(tmp_path / "child", tmp_path / "again") is not None
    assert (tmp_path / "again").read_bytes() == raw.read_bytes()


def test_a_cluster_at_the_start_of_the_file_is_for_qemu_to_understand(tmp_path, raw):
    # To QEMU it is none; whoever took it for one would see another disk than a machine does.
    image = tmp_path / "image"
    write_qcow2(raw, image, timeout_seconds=60)
    place = next(place for place, entry in entries(image).items() if entry & COPIED)
    with image.open("r+b") as stream:
        stream.seek(place)
        stream.write(struct.pack(">Q", COPIED))
    assert read_qcow2(image, tmp_path / "again") is None


def test_zeros_that_were_compressed_take_no_room(tmp_path, raw):
    image = tmp_path / "image"
    write_qcow2(raw, image, timeout_seconds=60)
    entry = next(entry for entry in entries(image).values() if entry & COMPRESSED)
    zeros = zstandard.ZstdCompressor().compress(bytes(CLUSTER))
    with image.open("r+b") as stream:
        stream.seek(entry & (1 << 54) - 1)
        stream.write(zeros)
    found = read_qcow2(image, tmp_path / "again", remembers=True)
    assert found is not None
    assert 0 not in found.clusters
    with (tmp_path / "again").open("rb") as stream:
        assert os.lseek(stream.fileno(), 0, os.SEEK_DATA) > 0


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        pytest.param(0, ">I", 1, id="no qcow2"),
        pytest.param(4, ">I", 2, id="version 2"),
        pytest.param(8, ">Q", 512, id="backing file"),
        pytest.param(20, ">I", 12, id="other clusters"),
        pytest.param(24, ">Q", 1 << 60, id="huge disk"),
        pytest.param(36, ">I", 1 << 31, id="long table"),
        pytest.param(60, ">I", 1, id="snapshots"),
        pytest.param(72, ">Q", 1 << 3 | 1 << 2, id="data elsewhere"),
        pytest.param(104, ">B", 0, id="zlib"),
        pytest.param(40, ">Q", 1 << 40, id="table beyond the end"),
    ],
)
def test_an_image_of_another_form_is_not_read(tmp_path, raw, offset, form, value):
    image = tmp_path / "image"
    write_qcow2(raw, image, timeout_seconds=60)
    changed = bytearray(image.read_bytes())
    struct.pack_into(form, changed, offset, value)
    image.write_bytes(changed)
    if offset == 40:
        # No table, no content: the disk would be empty, and QEMU says what is wrong with it.
        with image.open("rb") as stream:
            assert open_own(stream) is None
        return
    assert read_qcow2(image, tmp_path / "again") is None
    assert not (tmp_path / "again").exists()


def test_a_cluster_that_only_qemu_understands_has_qemu_read_the_image(tmp_path, raw):
    image = tmp_path / "image"
    write_qcow2(raw, image, timeout_seconds=60)
    place, entry = next((place, entry) for place, entry in entries(image).items() if entry & COPIED)
    with image.open("r+b") as stream:
        stream.seek(place)
        # It has bytes, and is zeros all the same.
        stream.write(struct.pack(">Q", entry | 1))
    assert read_qcow2(image, tmp_path / "again") is None


def test_a_damaged_cluster_is_an_error(tmp_path, raw):
    image = tmp_path / "image"
    write_qcow2(raw, image, timeout_seconds=60)
    entry = next(entry for entry in entries(image).values() if entry & COMPRESSED)
    with image.open("r+b") as stream:
        stream.seek(entry & (1 << 54) - 1)
        stream.write(b"\xff" * 16)
    with pytest.raises(BuildError, match="damaged"):
        read_qcow2(image, tmp_path / "again")


def test_writing_that_takes_too_long_is_given_up(tmp_path, raw):
    with pytest.raises(BuildError, match="took more than -1 seconds"):
        write_qcow2(raw, tmp_path / "image", timeout_seconds=-1)


def test_a_file_that_does_not_read_back_as_it_was_written_is_an_error(tmp_path, raw, monkeypatch):
    # As of a disk that loses what it was given.
    monkeypatch.setattr(qcow2.OwnQcow2, "stored", lambda _image, _number: b"lost")
    with pytest.raises(BuildError, match="not what was written"):
        write_qcow2(raw, tmp_path / "image", timeout_seconds=60)
