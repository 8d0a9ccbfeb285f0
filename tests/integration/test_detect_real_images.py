# SPDX-License-Identifier: Apache-2.0
"""What real programs write is taken for what it is, and the detector and QEMU agree on it."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits, PartitionTable
from coppice.errors import CorruptImageError, ImageRefusedError, OversizedImageError
from coppice.model.image import DiskFormat
from coppice.testing import images
from coppice.testing.encrypted import encrypted_disk
from coppice.testing.qcow2 import TinyQcow2

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
LIMITS = ConversionLimits(maximum_expansion=10**9)
MIB = 1024 * 1024
QEMU_NAMES = {DiskFormat.VHD: "vpc", DiskFormat.ISO: "raw"}


def run(*argv: object) -> str:
    ended = subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def seen_by_qemu(path: Path) -> tuple[str, int]:
    said = json.loads(run("qemu-img", "info", "--output=json", path))
    return said["format"], said["virtual-size"]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A raw disk of 12 MiB with data, text that compresses, and holes."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    content = bytearray(images.raw_disk(12 * MIB))
    content[MIB : 2 * MIB] = b"hello, guest\n" * 80_659 + b"\0" * 9
    path.write_bytes(content)
    return path


QCOW2 = {
    "v3": ((), "v3"),
    "v2": (("-o", "compat=0.10"), "v2"),
    "zlib": (("-c",), "v3"),
    "zstd": (("-c", "-o", "compression_type=zstd"), "v3 zstd"),
    "zlib-out-of-order": (("-c", "-W", "-m", "8"), "v3"),
    "small-clusters": (("-o", "cluster_size=512"), "v3"),
    "small-compressed-clusters": (("-c", "-o", "cluster_size=512"), "v3"),
    "large-compressed-clusters": (("-c", "-o", "cluster_size=2M"), "v3"),
    "extended-l2": (("-o", "extended_l2=on"), "v3 extended-l2"),
    "extended-l2-compressed": (("-c", "-o", "extended_l2=on"), "v3 extended-l2"),
    "lazy-refcounts": (("-o", "lazy_refcounts=on"), "v3"),
    "refcounts-of-a-bit": (("-o", "refcount_bits=1"), "v3"),
    "refcounts-of-64-bits": (("-o", "refcount_bits=64"), "v3"),
    "preallocated-metadata": (("-o", "preallocation=metadata"), "v3"),
    "preallocated-in-full": (("-o", "preallocation=falloc"), "v3"),
    "without-holes": (("-S", "0"), "v3"),
}


@pytest.mark.threat("T64")
@pytest.mark.parametrize("name", QCOW2)
def test_every_kind_of_qcow2_that_qemu_writes_is_taken(tmp_path, disk, name):
    options, variant = QCOW2[name]
    path = tmp_path / "x"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, disk, path)
    found = inspect(path, LIMITS)
    assert (found.format, found.disk.variant) == (DiskFormat.QCOW2, variant)
    assert ("qcow2", found.virtual_size_bytes) == seen_by_qemu(path)
    assert found.is_usable_as_it_is == ("extended-l2" not in variant)
    mapped = json.loads(run("qemu-img", "map", "--output=json", path))
    present = sum(each["length"] for each in mapped if each["present"] and not each["zero"])
    assert present <= found.disk.allocated_bytes <= found.virtual_size_bytes


@pytest.mark.parametrize("size", ["512", "1M", "10G", "1T"])
def test_an_empty_qcow2_of_any_length_is_taken(tmp_path, size):
    path = tmp_path / "x"
    run("qemu-img", "create", "-f", "qcow2", path, size)
    found = inspect(path, LIMITS)
    assert found.disk.allocated_bytes == 0
    assert ("qcow2", found.virtual_size_bytes) == seen_by_qemu(path)


@pytest.mark.threat("T63")
def test_an_empty_disk_that_its_file_does_not_make_credible_is_refused(tmp_path):
    path = tmp_path / "x"
    run("qemu-img", "create", "-f", "qcow2", path, "63T")
    with pytest.raises(OversizedImageError):
        inspect(path, ConversionLimits())


@pytest.mark.threat("T64")
def test_a_qcow2_that_was_used_is_taken_and_its_snapshots_and_bitmaps_are_told(tmp_path, disk):
    path = tmp_path / "x"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, path)
    writes = ["write -P 3 0 2M", "write -z 3M 1M", "discard 4M 1M", "write -z -u 6M 100k", "write -P 4 11M 700"]
    run("qemu-io", *(word for each in writes for word in ("-c", each)), path)
    run("qemu-img", "resize", path, "5G")
    assert inspect(path, LIMITS).disk.notes == ()
    run("qemu-img", "snapshot", "-c", "before the change", path)
    run("qemu-img", "snapshot", "-c", "after", path)
    run("qemu-io", *(word for each in writes for word in ("-c", each)), path)
    found = inspect(path, LIMITS)
    assert not found.is_usable_as_it_is
    assert "internal snapshots (2)" in found.disk.notes[0]
    run("qemu-img", "bitmap", "--add", path, "b0")
    run("qemu-img", "bitmap", "--add", "-g", "512", path, "b1")
    run("qemu-io", *(word for each in writes for word in ("-c", each)), path)
    assert "dirty bitmaps (2)" in inspect(path, LIMITS).disk.notes[1]
    run("qemu-img", "snapshot", "-d", "after", path)
    run("qemu-img", "snapshot", "-d", "before the change", path)
    run("qemu-img", "bitmap", "--remove", path, "b0")
    run("qemu-img", "bitmap", "--remove", path, "b1")
    run("qemu-img", "resize", "--shrink", path, "5M")
    found = inspect(path, LIMITS)
    assert found.is_usable_as_it_is
    assert found.virtual_size_bytes == 5 * MIB


@pytest.mark.threat("T64")
def test_qcow2_files_that_qemu_made_for_other_uses_are_refused(tmp_path, disk):
    base, data = tmp_path / "base", tmp_path / "data"
    shutil.copy(disk, base)
    path = tmp_path / "x"
    for options in (
        f"backing_file={base},backing_fmt=raw",
        f"data_file={data}",
        f"data_file={data},data_file_raw=on",
    ):
        run("qemu-img", "create", "-f", "qcow2", "-o", options, path, "12M")
        with pytest.raises(ImageRefusedError) as caught:
            inspect(path, LIMITS)
        assert caught.value.code == "image-outside-reference"
    encrypted_disk(path, "qcow2", "12M")
    with pytest.raises(ImageRefusedError) as caught:
        inspect(path, LIMITS)
    assert caught.value.code == "image-encrypted"
    for kind, code in (("qcow", "image-unsupported"), ("qed", "image-unsupported"), ("parallels", "image-unsupported")):
        run("qemu-img", "convert", "-f", "raw", "-O", kind, disk, tmp_path / "x")
        with pytest.raises(ImageRefusedError) as caught:
            inspect(tmp_path / "x", LIMITS)
        assert caught.value.code == code


@pytest.mark.threat("T63")
def test_a_qcow2_that_was_cut_off_anywhere_in_its_disk_is_refused(tmp_path, disk):
    whole = tmp_path / "whole"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", disk, whole)
    content = whole.read_bytes()
    for part in range(1, 20):
        path = tmp_path / "x"
        path.write_bytes(content[: len(content) * part // 20])
        with pytest.raises(CorruptImageError):
            inspect(path, LIMITS)


@pytest.mark.threat("T63")
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3))])
def test_what_is_taken_of_files_with_random_lies_qemu_reads_whole_and_at_the_same_length(tmp_path, seed):
    source = random.Random(seed)  # noqa: S311 - content for tests
    bases = (
        TinyQcow2(),
        TinyQcow2(version=2),
        TinyQcow2(cluster_bits=9),
        TinyQcow2(cluster_bits=14, fields={"incompatible": 16}),
    )
    taken = 0
    for _ in range(60):
        base = source.choice(bases)
        content = bytearray(base.content())
        cluster = 1 << base.cluster_bits
        tables = cluster * source.randrange(1, 5) + source.randrange(24)
        where = source.choice([source.randrange(4, 112), tables, source.randrange(len(content))])
        lie = source.choice([source.randbytes(2), bytes(8), b"\xff" * 4, struct.pack(">Q", 1 << source.randrange(64))])
        content[where : where + len(lie)] = lie
        path = tmp_path / "x"
        path.write_bytes(content)
        try:
            found = inspect(path, ConversionLimits())
        except ImageRefusedError:
            continue
        taken += 1
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, tmp_path / "out")
        assert (tmp_path / "out").stat().st_size == found.virtual_size_bytes
    assert 0 < taken < 60


@pytest.mark.threat("T62")
@pytest.mark.parametrize("joliet", [(), ("-R", "-J"), ("-udf", "-R", "-J")], ids=["plain", "joliet", "udf"])
def test_discs_are_taken_for_discs_also_where_a_machine_boots_from_them_as_from_a_disk(tmp_path, disk, joliet):
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "file").write_text("x\n" * 5000)
    path = tmp_path / "x"
    run("genisoimage", "-quiet", *joliet, "-o", path, folder)
    found = inspect(path, LIMITS)
    assert (found.format, found.disk.variant, found.virtual_size_bytes) == (
        DiskFormat.ISO,
        "plain",
        path.stat().st_size,
    )
    with path.open("r+b") as stream, disk.open("rb") as source:
        stream.write(source.read(512))
    assert inspect(path, LIMITS).disk.variant == "hybrid"
    with path.open("r+b") as stream:
        stream.write(images.vmdk_descriptor("/etc/passwd"))
    with pytest.raises(ImageRefusedError) as caught:
        inspect(path, LIMITS)
    assert caught.value.code == "image-several-formats"


@pytest.mark.threat("T62")
@pytest.mark.parametrize("maker", ["mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkfs.btrfs", "mkswap"])
def test_a_file_system_without_partitions_is_a_raw_disk(tmp_path, maker):
    path = tmp_path / "x"
    with path.open("wb") as stream:
        stream.truncate(512 * MIB)
    run(f"/sbin/{maker}", path)
    found = inspect(path, LIMITS)
    assert (found.format, found.disk.partition_table) == (DiskFormat.RAW, None)
    assert found.virtual_size_bytes == 512 * MIB


@pytest.mark.threat("T62")
@pytest.mark.parametrize(("label", "table"), [("dos", PartitionTable.MBR), ("gpt", PartitionTable.GPT)])
def test_a_partitioned_disk_is_raw_with_its_table(tmp_path, label, table):
    path = tmp_path / "x"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    subprocess.run(["/sbin/sfdisk", "-q", str(path)], input=f"label: {label}\n,32M\n,\n", text=True, check=True)
    found = inspect(path, LIMITS)
    assert (found.format, found.disk.partition_table) == (DiskFormat.RAW, table)
    assert seen_by_qemu(path) == ("raw", found.virtual_size_bytes)


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx", "vpc"])
def test_the_detector_and_qemu_agree_on_the_other_formats(tmp_path, disk, kind):
    path = tmp_path / "x"
    run("qemu-img", "convert", "-f", "raw", "-O", kind, disk, path)
    found = inspect(path, LIMITS)
    assert seen_by_qemu(path) == (QEMU_NAMES.get(found.format, str(found.format)), found.virtual_size_bytes)
