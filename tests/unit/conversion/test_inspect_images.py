# SPDX-License-Identifier: Apache-2.0
"""A file is inspected whole: as it lies, in an archive, and unpacked where there is room for it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest

from coppice.conversion.inspect import inspect
from coppice.conversion.model import Archive, Compression, ConversionLimits
from coppice.errors import ImageRefusedError, StorageError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing import images
from coppice.testing.qcow2 import TinyQcow2

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("disk.img")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.threat("T61")
def test_links_and_pipes_are_refused_without_waiting(tmp_path):
    (tmp_path / "real").write_bytes(images.raw_disk())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing", "."):
        with pytest.raises(ImageRefusedError):
            inspect(tmp_path / name, LIMITS)


def test_a_bare_disk_is_what_its_content_is_whatever_its_name(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(TinyQcow2().content())
    found = inspect(path, LIMITS)
    assert (found.format, found.size_bytes, found.virtual_size_bytes) == (DiskFormat.QCOW2, path.stat().st_size, 65536)
    assert found.packaging is None
    assert found.is_usable_as_it_is


def test_a_disk_in_an_archive_needs_no_spool(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(tar_of(TinyQcow2().content()))
    found = inspect(path, LIMITS)
    assert (found.format, found.packaging.archive, found.packaging.member) == (
        DiskFormat.QCOW2,
        Archive.TAR,
        "disk.img",
    )
    assert not found.is_usable_as_it_is
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_what_is_compressed_needs_one_and_leaves_nothing_there(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(TinyQcow2().content()))
    with pytest.raises(UnsupportedImageError, match="no place here to unpack"):
        inspect(path, LIMITS)
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    found = inspect(path, LIMITS, spool=tmp_path / "spool")
    assert (found.format, found.packaging.compression) == (DiskFormat.QCOW2, Compression.GZIP)
    assert not [each for each in (tmp_path / "spool").iterdir() if each.stat().st_size]


@pytest.mark.threat("T58")
def test_what_lies_in_an_archive_or_is_packed_is_looked_at_like_a_bare_disk(tmp_path):
    path = tmp_path / "x"
    hostile = TinyQcow2(backing_file="/etc/passwd").content()
    for content in (hostile, tar_of(hostile), gzip.compress(hostile), gzip.compress(tar_of(hostile))):
        path.write_bytes(content)
        with pytest.raises(ImageRefusedError, match="backing file") as caught:
            inspect(path, LIMITS, spool=tmp_path / "spool")
        assert caught.value.code == "image-outside-reference"


def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(images.raw_disk())

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        inspect(path, LIMITS)


@pytest.mark.threat("T62")
def test_a_file_that_becomes_shorter_while_it_is_looked_at_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(TinyQcow2().content())
    read = os.pread
    calls = []

    def shrink(handle: int, length: int, at: int) -> bytes:
        calls.append(at)
        if len(calls) == 12:
            os.truncate(path, 600)
        return read(handle, length, at)

    monkeypatch.setattr(os, "pread", shrink)
    with pytest.raises(ImageRefusedError):
        inspect(path, LIMITS)
    assert len(calls) > 12
