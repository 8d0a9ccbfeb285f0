# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import pytest

from coppice.cli.image_report import show_report
from coppice.cli.output import Output
from coppice.conversion.guest.model import GuestFact, GuestFacts, GuestPartition, Kernel, OsRelease, UnknownFact
from coppice.conversion.model import (
    Archive,
    Compression,
    Detection,
    FileSystem,
    FileSystemKind,
    Inspection,
    Packaging,
    PartitionTable,
)
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.workflows.image_file import FileReport

pytestmark = pytest.mark.unit

MIB = 1024 * 1024
DISK = Detection(format=DiskFormat.VMDK, variant="streamOptimized", virtual_size_bytes=64 * MIB, allocated_bytes=MIB)
HARDWARE = Requirements(minimum_cores=1, minimum_ram_mib=512, firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI)


def report(*, packaging=None, guest=None, disk=DISK, **more):
    kind = DiskFormat.OVA if packaging else disk.format
    found = Inspection(format=kind, size_bytes=MIB, virtual_size_bytes=64 * MIB, disk=disk, packaging=packaging)
    return FileReport(path=Path("a.ova"), inspection=found, guest=guest, **more)


def shown(made):
    stream = io.StringIO()
    show_report(made, Output(stdout=stream, stderr=stream))
    return stream.getvalue()


def value_of(text, name):
    lines = [line for line in text.splitlines() if line.startswith(name)]
    assert len(lines) == 1, text
    return lines[0].removeprefix(name).strip()


def test_what_a_disk_is_packed_in_is_told_from_the_outside_to_the_inside():
    packaging = Packaging(compression=Compression.GZIP, archive=Archive.OVA, member="disk1.vmdk.gz", hardware=HARDWARE)
    text = shown(report(packaging=packaging, has_manifest=True, signer="CN=Somebody"))
    assert value_of(text, "packed") == "ova, as disk1.vmdk.gz, compressed with gzip"
    assert value_of(text, "machine") == "1 core, 512 MiB of memory, uefi, disk on scsi"
    assert value_of(text, "manifest") == "its files agree with it; signed by CN=Somebody"
    assert value_of(text, "usable as it is") == "no: it is packed; a conversion takes the disk out"


def test_a_bare_disk_has_neither_packing_nor_manifest():
    text = shown(report())
    assert value_of(text, "disk") == "vmdk (streamOptimized)"
    assert value_of(text, "usable as it is") == "yes"
    assert "packed" not in text
    assert "manifest" not in text


def test_a_disk_that_clouds_refuse_is_told_as_that():
    disk = Detection(format=DiskFormat.VHD, variant="fixed", virtual_size_bytes=MIB, must_be_rewritten=True)
    assert value_of(shown(report(disk=disk)), "usable as it is").startswith("no: it holds more than its disk, or is of")


def test_kinds_of_partitions_are_told_by_name_where_they_have_one():
    kinds = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "00000000-0000-0000-0000-000000000001", "0x83")
    parts = tuple(
        GuestPartition(number=number, start_bytes=MIB, size_bytes=MIB, kind=kind)
        for number, kind in enumerate(kinds, start=1)
    )
    text = shown(report(guest=GuestFacts(partition_table=PartitionTable.GPT, partitions=parts)))
    assert "EFI system" in text
    assert kinds[0] not in text
    assert kinds[1] in text
    assert kinds[2] in text


def test_what_is_worth_saying_is_said():
    disk = Detection(format=DiskFormat.QCOW2, virtual_size_bytes=MIB, notes=("it has 1 internal snapshot",))
    assert "note: it has 1 internal snapshot\n" in shown(report(disk=disk))


def test_what_is_in_a_disk_is_told():
    part = GuestPartition(
        number=1,
        start_bytes=MIB,
        size_bytes=63 * MIB,
        kind="0x83",
        is_active=True,
        file_system=FileSystem(kind=FileSystemKind.EXT4, label="root"),
    )
    guest = GuestFacts(
        partition_table=PartitionTable.MBR,
        partitions=(part,),
        boot_ways=(Firmware.BIOS, Firmware.UEFI),
        kernels=(Kernel(path="/boot/vmlinuz", architecture="x86_64", version="6.1"),),
        architecture="x86_64",
        operating_system=OsRelease(identifier="debian", version_id="12", name="Debian"),
        has_cloud_init=True,
    )
    text = shown(report(guest=guest))
    assert value_of(text, "starts with") == "bios, uefi"
    assert value_of(text, "operating system") == "Debian 12"
    assert value_of(text, "kernels") == "6.1"
    assert value_of(text, "cloud-init") == "yes"
    assert "0x83 (active)" in text
    assert "ext4" in text


def test_what_nobody_knows_is_never_told_as_what_is_not_there():
    unknown = tuple(UnknownFact(fact=fact, reason=f"no {fact} tool") for fact in GuestFact)
    text = shown(report(guest=GuestFacts(unknown=unknown)))
    for name in ("partition table", "starts with", "architecture", "operating system", "kernels", "cloud-init"):
        assert value_of(text, name) == "not known"
    for fact in GuestFact:
        assert f"not known: {fact}: no {fact} tool\n" in text


def test_what_is_not_there_is_told_as_that():
    text = shown(report(guest=GuestFacts(has_cloud_init=False)))
    assert value_of(text, "operating system") == "-"
    assert value_of(text, "cloud-init") == "no"
    assert "not known" not in text


def test_names_out_of_an_image_cannot_write_lines_of_their_own():
    packaging = Packaging(archive=Archive.TAR, member="a\x1b[2J\nerror[fake].vmdk")
    guest = GuestFacts(operating_system=OsRelease(pretty_name="x\r\x1b]0;title\x07"))
    text = shown(report(packaging=packaging, guest=guest))
    assert "\x1b" not in text
    assert "\nerror[fake]" not in text
