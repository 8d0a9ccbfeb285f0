# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from coppice.cache.locks import Leases
from coppice.cache.model import CachedImage, Held
from coppice.conversion.bound import prune_guest_bytes
from coppice.conversion.convert import Converter
from coppice.conversion.keep import read_made
from coppice.conversion.model import ConversionLimits, Source
from coppice.errors import ChecksumMismatchError, ImageRefusedError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.image import DiskFormat
from coppice.testing import images

pytestmark = pytest.mark.integration
KEY = ImageKey(ListIdentifier("l"), ImageIdentifier("i"))
LISTED = Checksum.of(b"the published file")
F = DiskFormat


def guest_held(path, content):
    path.write_bytes(content)
    return CachedImage(
        key=KEY,
        version="1",
        path=path,
        checksum=Checksum.of(content),
        listed_checksum=LISTED,
        size_bytes=len(content),
        declared_format="raw",
        reused=False,
        held=Held.GUEST,
    )


def published(path, seed=1):
    raw = path.with_suffix(".img")
    raw.write_bytes(images.raw_disk(seed=seed))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-c", str(raw), str(path)], check=True)
    content = path.read_bytes()
    return Source(path=path, checksum=Checksum.of(content), size_bytes=len(content), name="an image")


def opened(tmp_path, leases=None):
    limits = ConversionLimits(timeout_seconds=60)
    return Converter(tmp_path / "converted", limits, leases=leases or Leases(tmp_path / "leases"))


@pytest.fixture
def converter(tmp_path):
    return opened(tmp_path)


def test_the_disk_that_was_put_together_is_known_by_the_file_that_was_listed(tmp_path, converter):
    held = guest_held(tmp_path / "x", images.raw_disk())
    as_it_is = converter.convert(held, (F.RAW,))
    made = converter.convert(held, (F.QCOW2,))
    assert as_it_is.path == held.path
    assert as_it_is.image.checksum == held.checksum
    assert {as_it_is.source_checksum, made.source_checksum} == {LISTED}


def test_what_was_made_of_other_bytes_that_the_same_list_names_is_not_taken(tmp_path, converter):
    one = converter.convert(guest_held(tmp_path / "x", images.raw_disk(seed=1)), (F.QCOW2,))
    other = converter.convert(guest_held(tmp_path / "y", images.raw_disk(seed=2)), (F.QCOW2,))
    assert one.path != other.path
    assert not other.reused


@pytest.mark.threat("T86")
def test_a_disk_altered_after_it_was_put_together_is_not_converted(tmp_path, converter):
    held = guest_held(tmp_path / "x", images.raw_disk())
    with held.path.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"!")
    with pytest.raises(ChecksumMismatchError):
        converter.convert(held, (F.RAW,))


@pytest.mark.parametrize("content", [images.qcow2(), images.vmdk_with_footer()], ids=["qcow2", "vmdk"])
def test_a_guest_cannot_choose_how_its_disk_is_read(tmp_path, converter, content):
    with pytest.raises(ImageRefusedError):
        converter.convert(guest_held(tmp_path / "x", content), (F.RAW, F.QCOW2, F.VMDK))


def test_the_guests_bytes_of_a_published_file_are_made_once(tmp_path, converter):
    source = published(tmp_path / "x.qcow2")
    first = converter.guest_bytes(source)
    state = first.path.stat()
    assert first.path.read_bytes() == images.raw_disk()
    assert first.checksum == Checksum.of(images.raw_disk())
    assert opened(tmp_path).guest_bytes(source) == first
    assert first.path.stat().st_mtime_ns == state.st_mtime_ns


def test_a_raw_file_is_its_own_guests_bytes(tmp_path, converter):
    path = tmp_path / "x"
    path.write_bytes(images.raw_disk())
    source = Source(path=path, checksum=Checksum.of(images.raw_disk()), size_bytes=images.MIB, name="an image")
    assert converter.guest_bytes(source).path == path
    assert not converter.directory.exists()


def test_a_raw_file_that_a_cloud_wanted_serves_deltas_and_stays(tmp_path, converter):
    source = published(tmp_path / "x.qcow2")
    cached = CachedImage(
        key=KEY,
        version="1",
        path=source.path,
        checksum=source.checksum,
        listed_checksum=source.checksum,
        size_bytes=source.size_bytes,
        declared_format=None,
        reused=False,
    )
    for_deltas = converter.guest_bytes(source).path
    assert read_made(for_deltas).is_seed
    for_the_cloud = converter.convert(cached, (F.RAW,))
    assert (for_the_cloud.path, for_the_cloud.reused) == (for_deltas, True)
    assert prune_guest_bytes(converter.directory, Leases(tmp_path / "leases"), keep=0) == ()


def test_only_the_disks_used_last_stay_and_those_in_use(tmp_path):
    leases = Leases(tmp_path / "leases")
    converter = opened(tmp_path, leases)
    sources = [published(tmp_path / f"{number}.qcow2", seed=number) for number in range(3)]
    made = [converter.guest_bytes(source) for source in sources]
    converter.guest_bytes(sources[0])
    others = Leases(tmp_path / "leases")
    assert prune_guest_bytes(converter.directory, others, keep=0) == ()
    leases.close()
    assert set(prune_guest_bytes(converter.directory, others, keep=2)) == {made[1].path}
    assert [each.path.exists() for each in made] == [True, False, True]


def test_a_disk_that_was_cut_short_is_made_again(tmp_path, converter):
    source = published(tmp_path / "x.qcow2")
    made = converter.guest_bytes(source)
    made.path.chmod(0o644)
    with made.path.open("r+b") as stream:
        stream.truncate(1000)
    assert converter.guest_bytes(source).path.read_bytes() == images.raw_disk()
