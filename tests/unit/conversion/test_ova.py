# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from coppice.conversion.model import Archive, Compression, ConversionLimits, Detection
from coppice.conversion.ova import OvaLayout, ova_layout, verify_manifest
from coppice.conversion.ova_write import write_ova
from coppice.conversion.window import BytesWindow, FileWindow
from coppice.errors import (
    ArchiveError,
    DiskCountError,
    ImageRefusedError,
    ManifestError,
    NoSpaceError,
    OvfError,
    StorageError,
)
from coppice.formats.ova_frame import ROOM_BYTES
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.monitor import SILENT_TASK
from coppice.testing.archives import DISK, archive, manifest, member, ova, ovf
from coppice.testing.hostile import archives as hostile_archives
from coppice.testing.hostile import ovf as hostile_ovf
from coppice.testing.ovf_rules import broken_rules

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()
FILES = [("vm.ovf", ovf().encode()), ("disk.raw", DISK)]
CASES = (*hostile_archives.cases(), *hostile_ovf.cases())


class Counting:
    """A task that counts."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount

    def reach(self, amount: int, total: int | None = None) -> None:
        self.done = amount

    def note(self, text: str) -> None:
        pass


def layout_of(content: bytes) -> OvaLayout:
    return ova_layout(BytesWindow(content), LIMITS, "vm.ova")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.threat(case.threat)) for case in CASES]
)
def test_a_hostile_archive_is_refused_with_its_code_by_the_reader_alone(case, tmp_path):
    path = tmp_path / case.name
    case.make(path)
    with FileWindow(path) as window, pytest.raises(ImageRefusedError) as refused:  # noqa: PT012 - either may refuse it
        layout = ova_layout(window, LIMITS, case.name)
        verify_manifest(layout, window, SILENT_TASK)
    assert refused.value.code == case.code
    assert refused.value.message.startswith(f"the image file {case.name} is refused: ")
    assert refused.value.context["offset"] is not None


def test_the_disk_of_an_ova_is_a_stretch_of_it():
    content = ova(more=member("vm.mf", manifest(FILES)))
    found = layout_of(content)
    assert (found.archive, found.member, found.compression) == (Archive.OVA, "disk.raw", None)
    assert content[found.offset : found.offset + found.size_bytes] == DISK
    assert found.hardware == Requirements(
        minimum_cores=2, minimum_ram_mib=2048, minimum_disk_bytes=16384, disk_bus=DiskBus.SCSI
    )
    assert found.notes == ()


def test_the_files_of_an_ova_are_held_against_its_manifest_and_the_bytes_are_counted():
    content = ova(more=member("vm.mf", manifest(FILES)))
    found, task = layout_of(content), Counting()
    verify_manifest(found, BytesWindow(content), task)
    assert task.done == found.bytes_to_verify == len(DISK)
    altered = bytearray(content)
    altered[found.offset + 900] ^= 1
    with pytest.raises(ManifestError, match=r"vm\.ova is refused: the member 'disk\.raw' has the sha256 digest"):
        verify_manifest(found, BytesWindow(bytes(altered)), task)
    with pytest.raises(ManifestError):
        verify_manifest(found, BytesWindow(content[: found.offset + 900]), task)


def test_an_ova_without_a_manifest_has_nothing_to_verify():
    content = ova()
    found, task = layout_of(content), Counting()
    verify_manifest(found, BytesWindow(content), task)
    assert (task.done, found.bytes_to_verify, found.manifest) == (0, 0, {})


def test_an_old_manifest_and_an_unusual_order_are_said():
    descriptor = ovf().encode()
    content = archive(member("disk.raw", DISK), member("vm.mf", manifest(FILES, "SHA1")), member("vm.ovf", descriptor))
    notes = layout_of(content).notes
    assert len(notes) == 2
    assert "not the first file" in notes[0]
    assert "SHA-1" in notes[1]


def test_where_the_descriptor_and_the_disk_differ_is_told():
    text = ovf(disk='ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html"')
    found = layout_of(ova(text))
    assert found.differences(Detection(format=DiskFormat.VMDK, virtual_size_bytes=16384)) == ()
    assert found.differences(Detection(format=DiskFormat.VMDK, virtual_size_bytes=512)) == ()
    assert found.differences(Detection(format=DiskFormat.RAW, virtual_size_bytes=16385)) == (
        "the descriptor says that the disk has 16384 bytes; it has 16385",
        "the descriptor says that the disk is vmdk; it is raw",
    )
    assert (
        layout_of(archive(member("a", DISK))).differences(Detection(format=DiskFormat.RAW, virtual_size_bytes=1)) == ()
    )


@pytest.mark.parametrize("declared", ['ovf:compression="gzip"', ""])
def test_a_compressed_disk_is_known_by_its_content(declared):
    packed = gzip.compress(DISK, mtime=0)
    found = layout_of(ova(ovf(href="disk.raw.gz", file=declared), disk=packed, name="disk.raw.gz"))
    assert (found.compression, found.size_bytes) == (Compression.GZIP, len(packed))
    assert bool(found.notes) is (not declared)


def test_a_name_may_be_written_as_addresses_write_it():
    found = layout_of(ova(ovf(href="my%20d%C3%AFsk.raw"), name="my d\xefsk.raw"))
    assert found.member == "my d\xefsk.raw"


def test_short_texts_may_lie_beside_a_disk_and_nothing_else():
    texts = member("README.txt", "Grüße\n".encode()) + member("sums", b"0123  disk.raw\n")
    assert layout_of(ova(more=texts)).member == "disk.raw"
    plain = layout_of(archive(texts, member("disk.raw", DISK)))
    assert (plain.archive, plain.member, plain.hardware) == (Archive.TAR, "disk.raw", None)
    for other in (b"\0" * 100, b"\xff" * 100, b"a" * 70_000):
        with pytest.raises(DiskCountError, match="2 files that may be disks"):
            layout_of(archive(member("disk.raw", DISK), member("other", other)))
        with pytest.raises(ArchiveError, match="does not name"):
            layout_of(ova(more=member("other", other)))


def test_the_one_file_of_a_plain_archive_is_its_disk_whatever_it_is():
    assert layout_of(archive(member("dir/disk.raw", b"text"))).member == "dir/disk.raw"
    packed = layout_of(archive(member("disk.raw.gz", gzip.compress(DISK, mtime=0))))
    assert packed.compression is Compression.GZIP


def test_further_files_of_a_machine_are_taken_where_the_descriptor_names_them():
    text = ovf(references='<File ovf:id="file1" ovf:href="disk.raw"/><File ovf:id="n" ovf:href="vm.nvram"/>')
    content = ova(text, more=member("vm.nvram", bytes(1000)))
    assert layout_of(content).member == "disk.raw"
    named = manifest([("vm.ovf", text.encode()), ("disk.raw", DISK)])
    with pytest.raises(ManifestError, match=r"does not name 'vm\.nvram'"):
        layout_of(ova(text, more=member("vm.nvram", bytes(1000)) + member("vm.mf", named)))


@pytest.mark.threat("T67")
def test_a_descriptor_in_an_archive_with_two_readings_is_never_read():
    with pytest.raises(OvfError, match="no file of the archive"):
        layout_of(archive(member("vm.OVF", ovf(href="b.raw").encode()), member("disk.raw", DISK)))


# Writing.

DISK_BYTES = b"KDMV" + os.urandom(100_000)
WANTED = Requirements(minimum_cores=2, minimum_ram_mib=512, firmware=Firmware.UEFI, disk_bus=DiskBus.VIRTIO)


def make(directory: Path, name: str = "Debian 12") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    disk, made = directory / "disk.vmdk", directory / "made.ova"
    disk.write_bytes(DISK_BYTES)
    write_ova(disk, made, requirements=WANTED, name=name, virtual_size_bytes=16384, is_linux=True)
    assert not disk.exists()
    return made


def cannot(handle: int, length: int) -> bool:
    return False


def test_a_written_ova_is_read_as_what_it_was_made_of(tmp_path):
    with FileWindow(make(tmp_path)) as window:
        found = ova_layout(window, LIMITS, "made.ova")
        verify_manifest(found, window, SILENT_TASK)
        assert window.read(found.offset, found.size_bytes) == DISK_BYTES
        assert found.offset % ROOM_BYTES == 0
        assert [each.name for each in found.members] == ["Debian-12.ovf", "Debian-12.mf", "Debian-12-disk1.vmdk"]
        assert list(found.manifest) == ["Debian-12.ovf", "Debian-12-disk1.vmdk"]
        descriptor = window.read(found.members[0].offset, found.members[0].size_bytes)
    assert found.notes == ()
    assert found.hardware == Requirements(
        minimum_cores=2,
        minimum_ram_mib=512,
        minimum_disk_bytes=16384,
        firmware=Firmware.UEFI,
        disk_bus=DiskBus.VIRTIO,
    )
    assert broken_rules(descriptor) == []


def test_the_same_disk_gives_the_same_bytes_also_where_it_has_to_be_copied(tmp_path, monkeypatch):
    first, second = make(tmp_path / "1"), make(tmp_path / "2")
    monkeypatch.setattr("coppice.conversion.ova_write._insert", cannot)
    copied = make(tmp_path / "3")
    digests = {hashlib.sha256(each.read_bytes()).hexdigest() for each in (first, second, copied)}
    assert len(digests) == 1


def test_a_disk_that_has_another_name_is_copied_and_stays_as_it_is_there(tmp_path):
    disk = tmp_path / "disk.vmdk"
    disk.write_bytes(DISK_BYTES)
    other = tmp_path / "kept.vmdk"
    other.hardlink_to(disk)
    write_ova(disk, tmp_path / "made.ova", requirements=WANTED, name="x", virtual_size_bytes=512)
    assert other.read_bytes() == DISK_BYTES
    assert not disk.exists()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000])
def test_a_disk_of_any_length_is_padded(tmp_path, monkeypatch, size):
    for way in (True, False):
        if not way:
            monkeypatch.setattr("coppice.conversion.ova_write._insert", cannot)
        disk, made = tmp_path / "disk.vmdk", tmp_path / "made.ova"
        disk.write_bytes(bytes(range(256)) * 300)
        os.truncate(disk, size)
        write_ova(disk, made, requirements=Requirements(), name="x" * 300, virtual_size_bytes=512)
        assert made.stat().st_size % 512 == 0
        with FileWindow(made) as window:
            assert ova_layout(window, LIMITS, "made.ova").size_bytes == size


def test_what_cannot_be_written_is_told_as_a_storage_error(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="writing"):
        write_ova(tmp_path / "none", tmp_path / "made.ova", requirements=WANTED, name="x", virtual_size_bytes=512)
    disk = tmp_path / "disk.vmdk"
    disk.write_bytes(DISK_BYTES)

    def full(handle: int, length: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coppice.conversion.ova_write._insert", full)
    with pytest.raises(NoSpaceError):
        write_ova(disk, tmp_path / "made.ova", requirements=WANTED, name="x", virtual_size_bytes=512)
    assert disk.read_bytes() == DISK_BYTES
