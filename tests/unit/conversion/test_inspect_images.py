# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os

import pytest

from coppice.conversion.choose import choose
from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits
from coppice.errors import ConversionError, ImageRefusedError
from coppice.model.image import DiskFormat
from coppice.testing import images

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    ("data", "kind", "virtual"),
    [
        (images.raw_disk(), DiskFormat.RAW, images.MIB),
        (images.superfloppy(), DiskFormat.RAW, images.MIB),
        (images.qcow2(virtual_size_bytes=5 * images.MIB), DiskFormat.QCOW2, 5 * images.MIB),
        (images.qcow2(incompatible=1 << 4), DiskFormat.QCOW2, images.MIB),
        (images.iso(), DiskFormat.ISO, 64 * images.KIB),
        (images.iso(hybrid=True), DiskFormat.ISO, 64 * images.KIB),
    ],
    ids=["raw", "superfloppy", "qcow2", "extended-l2", "iso", "hybrid"],
)
def test_good_images_are_told_apart_by_their_content(tmp_path, data, kind, virtual):
    path = tmp_path / "image.raw"
    path.write_bytes(data)
    found = inspect(path, LIMITS)
    assert (found.format, found.size_bytes, found.virtual_size_bytes) == (kind, len(data), virtual)


HOSTILE = {
    "backing": ("T58", images.qcow2(backing_file="/etc/passwd"), "backing file"),
    "backing-json": ("T58", images.qcow2(backing_file='json:{"driver":"raw"}'), "backing file"),
    "data-file": ("T59", images.qcow2(data_file="/etc/passwd"), "data file"),
    "vmdk-flat": ("T60", images.vmdk_descriptor("/etc/passwd"), "names other files"),
    "vmdk-footer": ("T63", images.vmdk_with_footer(footer_sectors=2**31), "states another size"),
    "iso+vmdk": ("T62", images.iso(system_area=images.vmdk_descriptor("/etc/passwd")), "names other files"),
    "iso+version": ("T62", images.iso(system_area=b"#x\n\nversion=1\n"), "names other files"),
    "iso+qcow2": ("T62", images.iso(system_area=images.qcow2()[:512]), "several formats"),
    "html": ("T62", b"<!DOCTYPE html><html>404</html>".ljust(600), "HTML"),
    "gzip": ("T62", gzip.compress(os.urandom(2000)), "gzip"),
    "empty": ("T62", b"", "0 bytes"),
    "short-qcow2": ("T62", images.qcow2()[:200], "200 bytes"),
    "qcow1": ("T62", images.qcow2(version=1), "version 1"),
    "qed": ("T62", b"QED\0".ljust(4096, b"\0"), "QED"),
    "8EiB": ("T63", images.qcow2(virtual_size_bytes=2**63), "bytes"),
    "63TiB": ("T63", images.qcow2(virtual_size_bytes=63 * 2**40), "bytes"),
    "clusters": ("T63", images.qcow2(cluster_bits=63), "cluster size"),
    "l1": ("T63", images.qcow2(l1_entries=2**31), "first-level"),
    "aes": ("T64", images.qcow2(encryption=1), "encrypted"),
    "luks": ("T64", images.qcow2(encryption=2), "encrypted"),
    "dirty": ("T64", images.qcow2(incompatible=1), "dirty"),
    "corrupt": ("T64", images.qcow2(incompatible=2), "corrupt"),
    "unknown": ("T64", images.qcow2(incompatible=1 << 40), "unknown"),
}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(data, why, id=name, marks=pytest.mark.threat(number))
        for name, (number, data, why) in HOSTILE.items()
    ],
)
def test_dangerous_files_are_refused_with_what_was_found(tmp_path, data, why):
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageRefusedError) as caught:
        inspect(path, LIMITS)
    assert why in caught.value.message


@pytest.mark.threat("T61")
def test_links_and_pipes_are_refused_without_waiting(tmp_path):
    (tmp_path / "real").write_bytes(images.raw_disk())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        with pytest.raises(ImageRefusedError):
            inspect(tmp_path / name, LIMITS)


def test_the_same_format_is_kept_and_else_the_cheapest_is_made():
    assert choose(DiskFormat.RAW, (DiskFormat.QCOW2, DiskFormat.RAW)) is DiskFormat.RAW
    assert choose(DiskFormat.VMDK, (DiskFormat.RAW, DiskFormat.QCOW2)) is DiskFormat.QCOW2
    assert choose(DiskFormat.QCOW2, (DiskFormat.VDI, DiskFormat.RAW)) is DiskFormat.RAW


@pytest.mark.parametrize(
    ("source", "accepted"),
    [(DiskFormat.ISO, (DiskFormat.RAW,)), (DiskFormat.RAW, ()), (DiskFormat.RAW, (DiskFormat.ISO,))],
)
def test_what_cannot_be_converted_is_said(source, accepted):
    with pytest.raises(ConversionError):
        choose(source, accepted)
