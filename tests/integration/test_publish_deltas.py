# SPDX-License-Identifier: Apache-2.0
"""A list published with deltas: what is made, when, and that every image can be had from it."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
from datetime import timedelta

import pytest

from coppice.errors import InputError, PublicationError
from coppice.formats.cms import open_message
from coppice.formats.delta import BLOCK_BYTES, apply_patch, block_hash, read_index, read_pack_table, unpack_frame
from coppice.formats.delta import read_patch as read_patch_file
from coppice.imagelist import delta_make
from coppice.imagelist.publication import PlacePublisher
from coppice.imagelist.retirement import retire
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.testing.consumers import atrope_complaints, cloudkeeper_complaints
from coppice.testing.desk import Desk
from coppice.workflows.prepare import open_publisher

pytestmark = pytest.mark.integration
DAY = timedelta(days=1)


def disk(*stretches, size=64):
    """Return a disk of so many blocks: zeros, with stretches of (block, count, seed) in it; and half a block more."""
    data = bytearray(size * BLOCK_BYTES + 512)
    for block, count, seed in stretches:
        content = random.Random(seed).randbytes(count * BLOCK_BYTES)  # noqa: S311 - no secret
        data[block * BLOCK_BYTES : (block + count) * BLOCK_BYTES] = content
    return bytes(data)


FIRST = disk((0, 8, 1), (20, 16, 2), (50, 4, 3))
SECOND = disk((0, 8, 1), (20, 8, 2), (28, 8, 4), (50, 4, 3))
THIRD = disk((4, 8, 1), (20, 8, 2), (28, 8, 4), (60, 2, 5))


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.add("alpha", "1", FIRST)
    desk.create()
    desk.selections.select("general", "alpha")
    yield desk
    desk.close()


def web(desk, file):
    data = (desk.root / "web/images" / file.uri.rpartition("/")[2]).read_bytes()
    assert (len(data), hashlib.sha512(data).hexdigest()) == (file.size_bytes, file.checksum.hexdigest)
    return data


def from_blocks(desk, delta):
    index = read_index(web(desk, delta.index))
    packs = [web(desk, pack) for pack in delta.packs]
    blocks = []
    for run in index.runs():
        for each in range(run.count):
            if run.pack is None:
                blocks.append(bytes(BLOCK_BYTES))
                continue
            layout, pack = index.packs[run.pack], packs[run.pack]
            start, length = layout.table_range(len(pack))
            offsets = read_pack_table(pack[start : start + length], layout, pack_bytes=len(pack))
            frame, within = divmod(run.first + each, layout.frame_blocks)
            unpacked = unpack_frame(pack[offsets[frame] : offsets[frame + 1]], layout, frame)
            block = unpacked[within * BLOCK_BYTES : (within + 1) * BLOCK_BYTES]
            assert block_hash(block) == index.hash_at(run.hashes + each)
            blocks.append(block)
    return b"".join(blocks)[: index.guest_size_bytes]


def patched(desk, patch, origin):
    data = web(desk, patch.file)
    stream = io.BytesIO(data)
    head = read_patch_file(stream, size_bytes=len(data))
    assert head.origin_checksum == patch.origin
    pieces = apply_patch(head, stream, lambda offset, length: origin[offset : offset + length])
    return b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)


def test_every_version_can_be_had_from_blocks_and_from_patches(desk):
    for number, content in enumerate((FIRST, SECOND, THIRD), start=1):
        if number > 1:
            desk.add("alpha", str(number), content)
        desk.publish(deltas=True)
        [image] = desk.read().images
        assert image.delta.guest_checksum.hexdigest == hashlib.sha512(content).hexdigest()
        assert from_blocks(desk, image.delta) == content
        earlier = {hashlib.sha512(each).hexdigest(): each for each in (FIRST, SECOND, THIRD)[: number - 1]}
        assert {patch.origin.hexdigest for patch in image.delta.patches} == set(earlier)
        for patch in image.delta.patches:
            assert patched(desk, patch, earlier[patch.origin.hexdigest]) == content


def test_a_qcow2_is_had_as_its_guest_sees_it(desk, tmp_path):
    raw, packed = tmp_path / "raw", tmp_path / "packed"
    raw.write_bytes(FIRST[: 64 * BLOCK_BYTES])
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, packed], check=True)
    content = packed.read_bytes()
    desk.add("beta", "1", content, disk_format=DiskFormat.QCOW2, virtual_size=64 * BLOCK_BYTES)
    desk.selections.select("general", "beta")
    desk.publish(deltas=True)
    alpha, beta = (image.delta for image in desk.read().images)
    assert from_blocks(desk, beta) == FIRST[: 64 * BLOCK_BYTES]
    # Both have the same blocks: there is one pack.
    assert [pack.uri for pack in alpha.packs] == [pack.uri for pack in beta.packs]


def test_without_deltas_nothing_of_them_is_published(desk):
    desk.publish()
    assert desk.read().images[0].delta is None
    assert len(list((desk.root / "web/images").iterdir())) == 1


def test_what_did_not_change_is_not_made_again(desk, monkeypatch):
    desk.publish(deltas=True)
    before = desk.read().images[0].delta

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(delta_make, "scan", fail)
    assert desk.publish(deltas=True).publication.images_written == ()
    assert desk.read().images[0].delta == before


def test_a_preview_makes_nothing_and_says_what_would_be_made(desk):
    desk.publish()
    desk.add("alpha", "2", SECOND)
    found = desk.preview(deltas=True)
    assert any("a delta of alpha 2 would be made" in each for each in found.warnings)
    assert any("a patch from alpha 1 to 2 would be made" in each for each in found.warnings)
    assert found.content.images[0].delta is None
    assert not list((desk.settings.state_directory / "deltas").rglob("delta-*"))


def test_killed_while_it_makes_or_puts_them_the_next_run_goes_on(desk, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    desk.publish()
    before = (desk.root / "web/general.list").read_bytes()
    desk.add("alpha", "2", SECOND)
    for target, name in (
        (delta_make.IndexWriter, "finish"),
        (delta_make, "write_patch"),
        (PlacePublisher, "_replace"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, killed)
            with pytest.raises(Killed):
                desk.publish(deltas=True)
        assert (desk.root / "web/general.list").read_bytes() == before
    desk.publish(deltas=True)
    [image] = desk.read().images
    assert from_blocks(desk, image.delta) == SECOND
    assert len(image.delta.patches) == 1
    assert not list((desk.settings.state_directory / "deltas").rglob("work/*"))


def test_an_image_whose_delta_cannot_be_made_is_published_without(desk, monkeypatch):
    monkeypatch.setattr("coppice.imagelist.delta_scan.MAX_BLOCKS", 4)
    report = desk.publish(deltas=True)
    assert any("published without a delta" in each for each in report.warnings)
    assert desk.read().images[0].delta is None


def test_damaged_records_and_lost_files_are_made_anew(desk):
    desk.publish(deltas=True)
    kept = desk.settings.state_directory / "deltas"
    for damage in (b"{}", b"\xff", b'{"maker": 1, "guest": 7}'):
        for path in kept.rglob("records/*.json"):
            path.write_bytes(damage)
        desk.publish(deltas=True)
        assert from_blocks(desk, desk.read().images[0].delta) == FIRST
    for path in kept.rglob("files/*.pack"):
        path.unlink()
    desk.publish(deltas=True)
    assert from_blocks(desk, desk.read().images[0].delta) == FIRST


def test_a_file_that_is_not_what_the_list_says_is_not_published(desk):
    desk.publish(deltas=True)
    before = (desk.root / "web/general.list").read_bytes()
    [pack] = (desk.root / "web/images").glob("*.pack")
    pack.unlink()
    [kept] = (desk.settings.state_directory / "deltas").rglob("files/*.pack")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="not the one"):
        desk.publish(deltas=True)
    assert (desk.root / "web/general.list").read_bytes() == before


def test_deltas_are_removed_when_no_list_names_them_and_never_before(desk):
    desk.publish(deltas=True)
    old = desk.read().images[0].delta
    for number, content in ((2, SECOND), (3, disk((1, 30, 9)))):
        desk.add("alpha", str(number), content)
        desk.publish(deltas=True)
    new = desk.read().images[0].delta
    # The third has nothing of the others: their packs are not named any more.
    assert {pack.uri for pack in new.packs}.isdisjoint(pack.uri for pack in old.packs)
    assert from_blocks(desk, new) == disk((1, 30, 9))
    place = open_publisher(desk.settings, "web").place
    now = desk.clock.now()
    retire(place, unnamed_since=now - DAY, now=now, monitor=SILENT)
    assert (desk.root / "web/images" / old.index.uri.rpartition("/")[2]).exists()
    removed = retire(place, unnamed_since=now + timedelta(seconds=1), now=now + DAY, monitor=SILENT)
    assert old.index.uri.rpartition("/")[2] in removed
    assert from_blocks(desk, desk.read().images[0].delta) == disk((1, 30, 9))
    kept = {path.name for path in (desk.settings.state_directory / "deltas").rglob("files/*")}
    named = {file.uri.rpartition("/")[2] for file in (new.index, *new.packs, *(each.file for each in new.patches))}
    assert kept == named


def test_an_image_names_few_packs_however_many_versions_there_were(desk, monkeypatch):
    monkeypatch.setattr(delta_make, "MOST_OLD_PACKS", 3)
    content = FIRST
    for number in range(2, 9):
        content = content[: number * BLOCK_BYTES] + os.urandom(BLOCK_BYTES) + content[(number + 1) * BLOCK_BYTES :]
        desk.publish(deltas=True)
        desk.add("alpha", str(number), content)
    desk.publish(deltas=True)
    delta = desk.read().images[0].delta
    assert len(delta.packs) <= 4
    assert from_blocks(desk, delta) == content
    assert len(delta.patches) == desk.settings.publishing.delta_versions


def test_a_place_that_fails_in_the_middle_leaves_the_list_as_it_was(desk, monkeypatch):
    desk.publish()
    before = (desk.root / "web/general.list").read_bytes()
    place = "coppice.imagelist.directory.DirectoryPlace.put"
    monkeypatch.setattr(place, lambda *_: (_ for _ in ()).throw(PublicationError("refused")))
    with pytest.raises(PublicationError, match="refused"):
        desk.publish(deltas=True)
    assert (desk.root / "web/general.list").read_bytes() == before


def test_other_readers_see_a_list_as_ever(desk):
    desk.publish()
    plain = open_message((desk.root / "web/general.list").read_bytes()).payload
    desk.publish(deltas=True)
    payload = open_message((desk.root / "web/general.list").read_bytes()).payload
    assert b"coppice:delta" in payload
    assert atrope_complaints(payload) == []
    assert cloudkeeper_complaints(payload) == cloudkeeper_complaints(plain)
