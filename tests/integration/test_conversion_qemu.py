# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import itertools
import os
import shutil
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from coppice.cache.locks import Leases
from coppice.cache.model import CachedImage
from coppice.conversion.convert import Converter
from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits
from coppice.conversion.options import Options
from coppice.conversion.qemu import QemuImg
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.digests import new_digest
from coppice.errors import ChecksumMismatchError, ConversionError, ImageRefusedError, NoSpaceError, ToolMissingError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT_TASK
from coppice.testing import images

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
KEY = ImageKey(ListIdentifier("l"), ImageIdentifier("i"))
LIMITS = ConversionLimits(timeout_seconds=60)
F = DiskFormat


def cached(path, data=None):
    if data is not None:
        path.write_bytes(data)
    content = path.read_bytes()
    return CachedImage(
        key=KEY,
        version="1",
        path=path,
        checksum=Checksum.of(content),
        listed_checksum=Checksum.of(content),
        size_bytes=len(content),
        declared_format=None,
        reused=False,
    )


def opened(tmp_path, limits=LIMITS):
    return Converter(tmp_path / "converted", limits, leases=Leases(tmp_path / "leases"))


@pytest.fixture
def converter(tmp_path):
    return opened(tmp_path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    # Takes the place of qemu-img and writes down that it was called.
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def install(script: str) -> Path:
        program = directory / "qemu-img"
        calls = tmp_path / "calls"
        version = 'case "$1" in --version) echo "qemu-img version 9.9"; exit 0;; esac'
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{version}\nfor last; do :; done\n{script}\n')
        program.chmod(0o755)
        return calls

    return install


def test_the_published_file_is_taken_where_its_format_is_accepted(tmp_path, converter, stand_in):
    calls = stand_in("exit 1")
    source = cached(tmp_path / "x", images.qcow2())
    made = converter.convert(source, (F.RAW, F.QCOW2))
    assert (made.path, made.converter, made.image.format) == (source.path, "none", F.QCOW2)
    assert made.image.checksum == source.checksum
    assert not calls.exists()


@pytest.mark.threat("T69")
@pytest.mark.parametrize("wanted", [F.QCOW2, F.VMDK, F.VDI, F.VHD, F.VHDX])
def test_a_disk_comes_back_the_same_from_every_format(tmp_path, converter, wanted):
    data = images.raw_disk(4 * images.MIB)
    there = converter.convert(cached(tmp_path / "x", data), (wanted,))
    assert there.image.format is wanted
    digest = new_digest("blake3")
    digest.update(there.path.read_bytes())
    assert there.image.checksum == Checksum("blake3", digest.hexdigest())
    assert there.image.virtual_size_bytes == len(data)
    back = converter.convert(cached(there.path), (F.RAW,))
    assert back.path.read_bytes() == data
    assert back.path.stat().st_blocks * 512 < len(data)


@pytest.mark.threat("T69")
def test_a_qcow2_is_clean_and_compressed_with_zstd(tmp_path, converter):
    made = converter.convert(cached(tmp_path / "x", images.raw_disk()), (F.QCOW2,))
    said = subprocess.run(["qemu-img", "info", made.path], check=True, capture_output=True, text=True).stdout
    assert "compression type: zstd" in said
    subprocess.run(["qemu-img", "check", made.path], check=True, capture_output=True)


def test_a_result_is_used_again_until_it_is_altered(tmp_path, converter):
    source = cached(tmp_path / "x", images.raw_disk())
    first = converter.convert(source, (F.QCOW2,))
    assert not first.reused
    assert converter.convert(source, (F.QCOW2,)).reused
    assert opened(tmp_path).convert(source, (F.QCOW2,)).reused
    first.path.chmod(0o644)
    first.path.write_bytes(b"x" * first.image.size_bytes)
    assert not converter.convert(source, (F.QCOW2,)).reused
    assert inspect(first.path, LIMITS).format is F.QCOW2


@pytest.mark.threat("T58")
@pytest.mark.threat("T59")
@pytest.mark.threat("T60")
@pytest.mark.parametrize("kind", ["backing", "json", "data", "vmdk"])
def test_an_image_that_names_another_file_is_refused_before_any_tool_runs(tmp_path, converter, stand_in, kind):
    calls = stand_in("exit 0")
    canary = tmp_path / "canary"
    canary.write_bytes(b"CANARY" * 1000)
    data = {
        "backing": images.qcow2(backing_file=str(canary)),
        "json": images.qcow2(backing_file=f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{canary}"}}}}'),
        "data": images.qcow2(data_file=str(canary)),
        "vmdk": images.vmdk_descriptor(str(canary)),
    }[kind]
    with pytest.raises(ImageRefusedError):
        converter.convert(cached(tmp_path / "x", data), (F.RAW,))
    assert not calls.exists()
    assert not any(b"CANARY" in path.read_bytes() for path in converter.directory.rglob("*") if path.is_file())


def test_the_handmade_qcow2_is_one_that_the_real_tool_would_open(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(images.qcow2())
    subprocess.run(["qemu-img", "check", "-f", "qcow2", path], check=True, capture_output=True)


def test_an_image_made_with_a_backing_file_by_the_real_tool_is_refused(tmp_path, converter):
    (tmp_path / "base").write_bytes(images.raw_disk())
    command = ["qemu-img", "create", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", tmp_path / "x"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ImageRefusedError, match="backing file"):
        converter.convert(cached(tmp_path / "x"), (F.RAW,))


@pytest.mark.threat("T63")
def test_a_disk_over_the_limit_is_refused(tmp_path):
    command = ["qemu-img", "create", "-f", "qcow2", tmp_path / "x", "2T"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ImageRefusedError, match="are taken"):
        opened(tmp_path).convert(cached(tmp_path / "x"), (F.RAW,))


FAULTS = [
    pytest.param("echo broken >&2; exit 1", ConversionError, id="exit-1"),
    pytest.param("kill -9 $$", ConversionError, id="killed"),
    pytest.param(
        'test "$1" = measure && exit 0; head -c 5000 /dev/zero > "$last"; exit 0', ConversionError, id="wrong-output"
    ),
    pytest.param('echo "error while writing: No space left on device" >&2; exit 1', NoSpaceError, id="no-space"),
    pytest.param("sleep 30", ConversionError, id="hangs"),
]


@pytest.mark.threat("T70")
@pytest.mark.parametrize(("script", "error"), FAULTS)
def test_a_tool_that_fails_is_an_error_and_leaves_nothing(tmp_path, stand_in, script, error):
    stand_in(script)
    converter = opened(tmp_path, ConversionLimits(timeout_seconds=1))
    with pytest.raises(error):
        converter.convert(cached(tmp_path / "x", images.raw_disk()), (F.QCOW2,))
    assert list((converter.directory / "objects").iterdir()) == []


def test_what_a_tool_said_is_told_without_its_progress(tmp_path, stand_in):
    stand_in(
        'test "$1" = convert || exit 1; printf "    (1.00/100%%)\\r    (2.01/100%%)\\r"; echo "it broke" >&2; exit 1'
    )
    with pytest.raises(ConversionError) as caught:
        opened(tmp_path).convert(cached(tmp_path / "x", images.raw_disk()), (F.QCOW2,))
    assert "it broke" in caught.value.details
    assert "/100%" not in caught.value.details


@pytest.mark.threat("T70")
def test_a_missing_tool_is_named(tmp_path, converter, monkeypatch):
    monkeypatch.setattr("coppice.process._SEARCH_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="qemu-img"):
        converter.convert(cached(tmp_path / "x", images.raw_disk()), (F.QCOW2,))


@pytest.mark.threat("T86")
def test_a_file_altered_after_it_was_verified_is_not_converted(tmp_path, converter, stand_in):
    calls = stand_in("exit 0")
    source = cached(tmp_path / "x", images.raw_disk())
    source.path.write_bytes(images.raw_disk(seed=2))
    with pytest.raises(ChecksumMismatchError):
        converter.convert(source, (F.QCOW2,))
    with pytest.raises(ChecksumMismatchError):
        converter.convert(source, (F.RAW,))
    assert not calls.exists()


@pytest.fixture
def afterwards(monkeypatch):
    # Something happens each time that a disk was read, before anybody looks whether it is still the same.
    def install(happen):
        def meddled(*given, **named):
            made = transform(*given, **named)
            happen()
            return made

        monkeypatch.setattr("coppice.conversion.convert.transform", meddled)

    return install


@pytest.mark.threat("T86")
def test_a_file_altered_during_the_conversion_gives_no_result(tmp_path, converter, afterwards):
    source = cached(tmp_path / "x", images.raw_disk())
    afterwards(lambda: source.path.write_bytes(source.path.read_bytes() + b"x"))
    with pytest.raises(ChecksumMismatchError):
        converter.convert(source, (F.QCOW2,))
    assert list((converter.directory / "objects").iterdir()) == []


def test_a_file_that_is_handed_out_during_the_conversion_is_read_anew_and_not_refused(tmp_path, converter, afterwards):
    source = cached(tmp_path / "x", images.raw_disk())
    links = (tmp_path / f"handed-out-{number}" for number in itertools.count())
    afterwards(lambda: next(links).hardlink_to(source.path))
    with pytest.raises(ChecksumMismatchError):
        # Handed out each time that it is read: at some time that is told.
        converter.convert(source, (F.QCOW2,))
    once = tmp_path / "once"
    afterwards(lambda: once.exists() or once.hardlink_to(source.path))
    assert converter.convert(source, (F.QCOW2,)).path.exists()
    assert once.exists()


def test_one_cluster_listed_many_times_does_not_fill_the_disk(tmp_path, converter, monkeypatch):
    # Two tables and one cluster of data: a file of kilobytes whose guest sees gigabytes of it.
    small = tmp_path / "x"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", small, "16G"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", small], check=True, stdout=subprocess.DEVNULL)
    header = small.read_bytes()
    table = int.from_bytes(header[40:48], "big")
    entries = int.from_bytes(header[36:40], "big")
    first = header[table : table + 8]
    second_level = int.from_bytes(first, "big") & 0x00FFFFFFFFFFFE00
    data = header[second_level : second_level + 8]
    with small.open("r+b") as stream:
        stream.seek(table)
        stream.write(first * entries)
        stream.seek(second_level)
        stream.write(data * 8192)
    plenty = shutil.disk_usage(tmp_path)._replace(free=2 * 1024**3)
    monkeypatch.setattr("coppice.conversion.target.shutil.disk_usage", lambda _: plenty)
    with pytest.raises((ImageRefusedError, NoSpaceError)):
        converter.convert(cached(small), (F.VDI,))
    objects = converter.directory / "objects"
    assert not objects.exists() or list(objects.iterdir()) == []


@pytest.mark.parametrize("wanted", [F.QCOW2, F.VMDK, F.OVA, F.VDI, F.RAW])
def test_a_conversion_stops_before_the_disk_is_full(tmp_path, converter, monkeypatch, wanted):
    # Of what is compressed nobody knows how large it becomes: it is stopped where the room ends.
    little = shutil.disk_usage(tmp_path)._replace(free=16 * 1024 * 1024 + 100_000)
    monkeypatch.setattr("coppice.conversion.target.shutil", SimpleNamespace(disk_usage=lambda _: little))
    (tmp_path / "x").write_bytes(os.urandom(4 * images.MIB))
    subprocess.run(["qemu-img", "convert", "-O", "vhdx", tmp_path / "x", tmp_path / "y"], check=True)
    with pytest.raises(NoSpaceError):
        converter.convert(cached(tmp_path / "y"), (wanted,))
    assert list((converter.directory / "objects").iterdir()) == []


class Exchanging:
    """A monitor that puts a link in the place of a file when qemu-img is about to read it."""

    def __init__(self, path, other) -> None:
        self.path, self.other = path, other

    def message(self, text):
        pass

    @contextmanager
    def task(self, label, **_):
        if label.startswith("converting"):
            self.path.unlink()
            self.path.symlink_to(self.other)
        yield SILENT_TASK


@pytest.mark.threat("T70")
def test_what_takes_the_place_of_an_unpacked_disk_is_not_converted(tmp_path):
    secret, image = tmp_path / "secret", tmp_path / "image"
    secret.write_bytes(images.raw_disk())
    image.write_bytes(gzip.compress(images.raw_disk()))
    with (
        opened_disk(image, LIMITS, spool=tmp_path / "beside") as disk,
        pytest.raises(ImageRefusedError, match="took the place"),
    ):
        transform(
            disk,
            F.QCOW2,
            tmp_path / "new",
            options=Options(),
            limits=LIMITS,
            monitor=Exchanging(disk.path, secret),
        )


@pytest.mark.parametrize("kind", ["vmdk", "vdi"])
def test_a_large_disk_that_holds_little_asks_for_little_room(tmp_path, kind):
    disk = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, str(disk), "100G"], check=True)
    limits = ConversionLimits(timeout_seconds=60, maximum_expansion=10**9)
    with opened_disk(disk, limits, spool=None) as readable:
        assert QemuImg(limits, Options()).data_bytes(readable) < 100 * 1024**2
