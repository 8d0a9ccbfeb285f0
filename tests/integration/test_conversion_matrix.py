# SPDX-License-Identifier: Apache-2.0
"""Every format into every other: the guest sees the same disk, and a real Glance takes it for what it is said to be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import zipfile

import pytest
import zstandard

from coppice.conversion.model import ConversionLimits
from coppice.conversion.options import Options, Qcow2Compression
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.errors import ConversionError
from coppice.model.image import DiskFormat
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.testing import images

pytestmark = pytest.mark.integration
F = DiskFormat
LIMITS = ConversionLimits(timeout_seconds=120)
OPTIONS = Options(name="matrix", requirements=Requirements(minimum_cores=1, minimum_ram_mib=512))
DISK = images.raw_disk(5 * images.MIB)
DISKS = {
    "raw": (),
    "qcow2-v2": ("-O", "qcow2", "-o", "compat=0.10"),
    "qcow2-v3": ("-O", "qcow2"),
    "qcow2-extended-l2": ("-O", "qcow2", "-o", "extended_l2=on"),
    "qcow2-zlib": ("-O", "qcow2", "-c"),
    "qcow2-zstd": ("-O", "qcow2", "-c", "-o", "compression_type=zstd"),
    "vmdk-sparse": ("-O", "vmdk", "-o", "subformat=monolithicSparse"),
    "vmdk-stream": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "vdi": ("-O", "vdi"),
    "vdi-static": ("-O", "vdi", "-o", "static=on"),
    "vhd-dynamic": ("-O", "vpc", "-o", "subformat=dynamic,force_size=on"),
    "vhd-fixed": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vhdx-fixed": ("-O", "vhdx", "-o", "subformat=fixed"),
}
"""Kinds of disks, each as the real tool makes it."""
WANTED = sorted(set(F) - {F.ISO})
QEMU = {F.RAW: "raw", F.QCOW2: "qcow2", F.VMDK: "vmdk", F.VDI: "vdi", F.VHD: "vpc", F.VHDX: "vhdx"}


def zipped(name, data, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def tarred(name, data):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


PACKINGS = {
    "gzip": lambda _, data: gzip.compress(data),
    "bzip2": lambda _, data: bz2.compress(data),
    "xz": lambda _, data: lzma.compress(data),
    "zstd": lambda _, data: zstandard.ZstdCompressor().compress(data),
    "zip": zipped,
    "zip-stored": lambda name, data: zipped(name, data, zipfile.ZIP_STORED),
    "tar": tarred,
    "tar.gz": lambda name, data: gzip.compress(tarred(name, data)),
    "gz-in-tar": lambda name, data: tarred(name + ".gz", gzip.compress(data)),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sources")
    reference = directory / "reference"
    reference.write_bytes(DISK)
    for name, arguments in DISKS.items():
        argv = ["qemu-img", "convert", "-f", "raw", *arguments, reference, directory / name]
        subprocess.run(argv, check=True)
    converted(reference, F.OVA, directory / "ova", directory)
    return directory


def converted(source, wanted, destination, spool, options=OPTIONS):
    with opened_disk(source, LIMITS, spool=spool) as disk:
        return transform(disk, wanted, destination, options=options, limits=LIMITS, monitor=SILENT)


def assert_same_guest(sources, made, wanted, tmp_path):
    """See that the disk is the reference's, by the real tool; and the tool finds the file in order."""
    if wanted is F.OVA:
        made = converted_from_ova(made, tmp_path)
        wanted = F.VMDK
    kind = QEMU[wanted]
    argv = ["qemu-img", "compare", "-f", "raw", "-F", kind, sources / "reference", made]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    if wanted in {F.QCOW2, F.VDI, F.VHDX, F.VMDK}:
        subprocess.run(["qemu-img", "check", "-q", "-f", kind, made], check=True)


def converted_from_ova(made, tmp_path):
    # An archive as any other program reads it.
    with tarfile.open(made) as archive:
        member = next(each for each in archive if each.name.endswith(".vmdk"))
        content = archive.extractfile(member).read()
    path = tmp_path / "from-ova.vmdk"
    path.write_bytes(content)
    return path


@pytest.mark.threat("T69")
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("source", [*sorted(DISKS), "ova"])
def test_the_guest_sees_the_same_disk_and_glance_takes_it(sources, glance, tmp_path, source, wanted):
    made = tmp_path / f"made.{wanted}"
    found = converted(sources / source, wanted, made, tmp_path)
    assert (found.format, found.virtual_size_bytes) == (wanted, len(DISK))
    assert_same_guest(sources, made, wanted, tmp_path)
    offered = glance.offer(made, wanted)
    assert offered.is_taken, offered.said
    if wanted is not F.OVA:
        assert offered.virtual_size_bytes == len(DISK)


def all_packed():
    """Return every disk in every packing for every format: any two of them meet in the gate, all three else."""
    formats = (F.RAW, F.QCOW2, F.OVA)
    for row, packing in enumerate(sorted(PACKINGS)):
        for column, disk in enumerate(("raw", "qcow2-v3", "vmdk-stream", "vhd-fixed")):
            for number, wanted in enumerate(formats):
                is_met = (row + column) % len(formats) == number
                yield pytest.param(packing, disk, wanted, marks=() if is_met else pytest.mark.soak)


@pytest.mark.threat("T69")
@pytest.mark.parametrize(("packing", "disk", "wanted"), list(all_packed()))
def test_a_packed_disk_is_the_same_disk(sources, tmp_path, packing, disk, wanted):
    packed = tmp_path / "packed"
    packed.write_bytes(PACKINGS[packing](f"disk.{disk}", (sources / disk).read_bytes()))
    made = tmp_path / "made"
    found = converted(packed, wanted, made, tmp_path / "spool")
    assert found.format is wanted
    assert_same_guest(sources, made, wanted, tmp_path)
    spool = tmp_path / "spool"
    assert not spool.exists() or list(spool.iterdir()) == []


@pytest.mark.threat("T69")
@pytest.mark.parametrize("compression", sorted(Qcow2Compression))
def test_a_disk_comes_back_the_same_through_each_compression(sources, tmp_path, compression):
    made, back = tmp_path / "made", tmp_path / "back"
    converted(sources / "vhdx", F.QCOW2, made, tmp_path, Options(qcow2_compression=compression))
    converted(made, F.RAW, back, tmp_path)
    assert back.read_bytes() == DISK
    assert back.stat().st_blocks * 512 < len(DISK)


@pytest.mark.parametrize("packing", [None, *sorted(PACKINGS)])
def test_an_iso_image_stays_one_byte_for_byte(glance, tmp_path, packing):
    content = images.iso()
    source, made = tmp_path / "x", tmp_path / "made.iso"
    source.write_bytes(content if packing is None else PACKINGS[packing]("x.iso", content))
    found = converted(source, F.ISO, made, tmp_path / "spool")
    assert (found.format, made.read_bytes()) == (F.ISO, content)
    assert glance.offer(made, F.ISO).is_taken


def test_a_disk_does_not_become_an_iso_image(sources, tmp_path):
    with pytest.raises(ConversionError, match="ISO"):
        converted(sources / "raw", F.ISO, tmp_path / "made", tmp_path)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("size", [512, 65536, 1024 * 1024 + 512])
def test_a_disk_of_odd_length_keeps_it(tmp_path, size, wanted):
    content = images.raw_disk(8192)[:512].ljust(size - 1, b"\0") + b"!" if size > 512 else images.raw_disk(8192)[:512]
    source, made, back = tmp_path / "x", tmp_path / "made", tmp_path / "back"
    source.write_bytes(content)
    assert converted(source, wanted, made, tmp_path).virtual_size_bytes == size
    converted(made, F.RAW, back, tmp_path)
    assert back.read_bytes() == content


@pytest.mark.parametrize("wanted", WANTED)
def test_an_empty_disk_of_many_gigabytes_is_converted_in_no_time_and_takes_no_room(tmp_path, wanted):
    # What is written is far smaller than what is credible of strangers' files.
    source, made = tmp_path / "x.qcow2", tmp_path / "made"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "1G"], check=True)
    assert converted(source, wanted, made, tmp_path).virtual_size_bytes == 1024**3
    assert made.stat().st_blocks * 512 < 16 * images.MIB
