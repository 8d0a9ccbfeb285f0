# SPDX-License-Identifier: Apache-2.0
"""Facts about guests in real file systems, made by their own programs and never mounted."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from coppice.conversion.guest.facts import guest_facts
from coppice.conversion.guest.model import GuestFact, OsRelease
from coppice.conversion.model import ConversionLimits, FileSystemKind, PartitionTable
from coppice.conversion.unpack import opened_disk
from coppice.formats.file_systems import file_systems_of
from coppice.model.operating_system import Firmware
from coppice.testing import guests
from coppice.testing.encrypted import encrypted_disk
from coppice.testing.guests import BIOS_BOOT, ESP, MIB, Part

pytestmark = pytest.mark.integration
LIMITS = ConversionLimits(timeout_seconds=120)
DEBIAN = OsRelease(
    identifier="debian",
    version_id="12",
    name="Debian GNU/Linux",
    pretty_name="Debian GNU/Linux 12 (bookworm)",
)
GRUB = b"\xeb\x63\x90".ljust(0x180, b"\0") + b"GRUB \0Geom\0Hard Disk\0"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return guests.write_tree(tmp_path_factory.mktemp("tree"), guests.debian())


@pytest.fixture(scope="module")
def boot_tree(tmp_path_factory):
    files = {"EFI/BOOT/BOOTX64.EFI": b"MZ".ljust(4096, b"\0"), "EFI/debian/grubx64.efi": b"MZ"}
    return guests.write_tree(tmp_path_factory.mktemp("esp"), files)


@pytest.fixture(scope="module")
def esp(tmp_path_factory, boot_tree):
    return guests.file_system(tmp_path_factory.mktemp("systems") / "esp", "vfat", boot_tree)


def facts_of(path, tmp_path, **options):
    workplace = tmp_path / "workplace"
    with opened_disk(path, LIMITS, spool=tmp_path / "spool") as opened:
        found = guest_facts(opened, LIMITS, workplace=workplace, **options)
    assert list(workplace.iterdir()) == []
    return found


def converted(path, kind, *options):
    destination = path.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-O", kind, *options, path, destination], check=True)
    return destination


@pytest.mark.parametrize("kind", ["btrfs", "ext2", "ext3", "ext4", "xfs"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_guest_is_found_in_each_file_system(kind, form, tree, tmp_path):
    path = guests.disk(tmp_path / "disk.raw", [Part(content=guests.file_system(tmp_path / "root", kind, tree))])
    found = facts_of(path if form == "raw" else converted(path, form), tmp_path)
    assert found.unknown == ()
    assert found.partition_table is PartitionTable.GPT
    (part,) = found.partitions
    assert (part.number, part.start_bytes) == (1, MIB)
    assert (part.file_system.kind, part.file_system.label, part.file_system.uuid) == (kind, "guest", guests.UUID)
    assert found.operating_system == DEBIAN
    assert found.has_cloud_init is True
    assert [(one.path, one.architecture, one.version) for one in found.kernels] == [
        ("/boot/vmlinuz-6.1.0-18-amd64", "x86_64", "6.1.0-18-amd64")
    ]
    assert found.architecture == "x86_64"
    assert found.boot_ways == ()


@pytest.mark.parametrize(
    ("form", "options"),
    [("vmdk", ("-o", "subformat=streamOptimized")), ("vdi", ()), ("vpc", ("-o", "force_size=on")), ("vhdx", ())],
)
def test_a_guest_is_found_in_each_format_of_disks(form, options, tree, esp, tmp_path):
    parts = [Part(content=esp, kind=ESP), Part(content=guests.file_system(tmp_path / "root", "ext4", tree))]
    found = facts_of(converted(guests.disk(tmp_path / "disk.raw", parts), form, *options), tmp_path)
    assert found.unknown == ()
    assert found.operating_system == DEBIAN
    assert found.boot_ways == (Firmware.UEFI,)
    assert [part.file_system.kind for part in found.partitions] == ["fat", "ext4"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("ext2", ("-O", "^filetype,^dir_index", "-r", "1"), id="ext2 without types"),
        pytest.param("ext4", ("-O", "inline_data", "-I", "256"), id="ext4 with files in inodes"),
        pytest.param("ext4", ("-b", "1024", "-O", "bigalloc"), id="ext4 with clusters"),
        pytest.param("xfs", ("-m", "crc=0", "-n", "ftype=0"), id="XFS without types"),
        pytest.param("xfs", ("-b", "size=1024"), id="XFS with small blocks"),
        pytest.param("btrfs", ("-n", "4096", "-m", "single"), id="btrfs with small nodes"),
    ],
)
def test_a_guest_is_found_in_file_systems_made_otherwise(kind, options, tree, tmp_path):
    found = facts_of(guests.file_system(tmp_path / "disk.raw", kind, tree, options=options), tmp_path)
    assert (found.operating_system, found.has_cloud_init, found.unknown) == (DEBIAN, True, ())
    assert [one.version for one in found.kernels] == ["6.1.0-18-amd64"]


def test_a_guest_is_found_in_a_packed_disk(tree, tmp_path):
    path = guests.disk(tmp_path / "disk.raw", [Part(content=guests.file_system(tmp_path / "root", "ext4", tree))])
    subprocess.run(["gzip", "-1", path], check=True)
    assert facts_of(tmp_path / "disk.raw.gz", tmp_path).operating_system == DEBIAN


def test_a_guest_is_found_in_a_disk_without_partitions(tree, tmp_path):
    found = facts_of(guests.file_system(tmp_path / "disk.raw", "ext4", tree), tmp_path)
    assert (found.partition_table, found.operating_system, found.unknown) == (None, DEBIAN, ())
    assert [part.number for part in found.partitions] == [0]


def test_a_disk_that_starts_with_either_firmware_says_so(tree, esp, tmp_path):
    root = guests.file_system(tmp_path / "root", "ext4", tree)
    parts = [Part(kind=BIOS_BOOT), Part(content=esp, kind=ESP), Part(content=root)]
    found = facts_of(guests.disk(tmp_path / "disk.raw", parts, boot_code=GRUB), tmp_path)
    assert found.boot_ways == (Firmware.BIOS, Firmware.UEFI)
    assert found.unknown == ()


def test_a_partition_table_of_old_starts_with_its_active_partition(tree, tmp_path):
    root = guests.file_system(tmp_path / "root", "ext4", tree)
    with root.open("r+b") as file:
        file.write(b"\xeb".ljust(510, b"\0") + b"\x55\xaa")
    code = b"\xfa\xb8\x00\x10"
    for active, ways in ((True, (Firmware.BIOS,)), (False, ())):
        part = Part(content=root, kind="83", is_active=active)
        found = facts_of(guests.disk(tmp_path / "disk.raw", [part], table="dos", boot_code=code), tmp_path)
        assert (found.partition_table, found.boot_ways) == (PartitionTable.MBR, ways)


def test_kernels_in_a_partition_of_their_own_are_found(tree, tmp_path):
    boot = guests.write_tree(tmp_path / "boot", {"vmlinuz-5.14": guests.kernel(b"5.14"), "grub/x": b""})
    files = {name: content for name, content in guests.debian().items() if "vmlinuz" not in name}
    root = guests.file_system(tmp_path / "root", "xfs", guests.write_tree(tmp_path / "tree", files))
    parts = [Part(content=guests.file_system(tmp_path / "b", "ext4", boot)), Part(content=root)]
    found = facts_of(guests.disk(tmp_path / "disk.raw", parts), tmp_path)
    assert [one.path for one in found.kernels] == ["/vmlinuz-5.14"]
    assert (found.operating_system, found.unknown) == (DEBIAN, ())


@pytest.mark.parametrize("prefix", ["root", "@", "@rootfs"])
def test_the_directory_in_which_a_distribution_keeps_its_system_in_btrfs_is_known(prefix, tmp_path):
    files = {f"{prefix}/{name}": content for name, content in guests.debian().items()}
    folder = guests.write_tree(tmp_path / "tree", {**files, "home/x": b""})
    found = facts_of(guests.file_system(tmp_path / "disk.raw", "btrfs", folder), tmp_path)
    assert found.operating_system == DEBIAN
    assert found.kernels


def test_a_disk_whose_system_lies_where_nothing_looks_does_not_pass_for_an_empty_one(esp, tmp_path):
    lvm = tmp_path / "lvm"
    lvm.write_bytes((bytes(512) + b"LABELONE".ljust(24, b"\0") + b"LVM2 001" + b"a" * 32).ljust(4 * MIB, b"\0"))
    parts = [Part(content=esp, kind=ESP), Part(content=lvm)]
    found = facts_of(guests.disk(tmp_path / "disk.raw", parts), tmp_path)
    assert found.partitions[1].file_system.kind is FileSystemKind.LVM
    for fact in (GuestFact.OPERATING_SYSTEM, GuestFact.KERNELS, GuestFact.CLOUD_INIT):
        assert not found.is_known(fact)
    assert (found.operating_system, found.has_cloud_init) == (None, None)
    assert (found.boot_ways, found.architecture) == ((Firmware.UEFI,), "x86_64")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_in_a_file_system_that_nobody_knows_does_not_pass_for_an_empty_one(form, tmp_path):
    path = tmp_path / "disk.raw"
    # Some file systems have their mark far behind the beginning: ZFS and UFS do.
    path.write_bytes(bytes(64 * 1024) + b"of another system" + bytes(4 * MIB - 64 * 1024 - 17))
    found = facts_of(path if form == "raw" else converted(path, form), tmp_path)
    for fact in (GuestFact.OPERATING_SYSTEM, GuestFact.KERNELS, GuestFact.CLOUD_INIT):
        assert not found.is_known(fact)
    assert found.has_cloud_init is None


def test_an_empty_disk_has_nothing_and_that_is_known(tmp_path):
    (tmp_path / "disk.raw").write_bytes(bytes(4 * MIB))
    found = facts_of(tmp_path / "disk.raw", tmp_path)
    assert (found.partitions, found.boot_ways, found.kernels, found.operating_system) == ((), (), (), None)
    assert (found.has_cloud_init, found.unknown) == (False, ())


def test_a_disc_says_how_it_is_started(tmp_path):
    folder = guests.write_tree(tmp_path / "tree", {"isolinux/boot.bin": bytes(2048), "efi.img": bytes(1440 * 1024)})
    argv = ["genisoimage", "-quiet", "-V", "disc", "-b", "isolinux/boot.bin", "-no-emul-boot", "-c", "isolinux/cat"]
    argv += ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "-o", str(tmp_path / "disc.iso"), str(folder)]
    subprocess.run(argv, check=True, capture_output=True)
    found = facts_of(tmp_path / "disc.iso", tmp_path)
    assert Firmware.BIOS in found.boot_ways
    assert found.partitions[0].file_system.label == "disc"
    assert not found.is_known(GuestFact.OPERATING_SYSTEM)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext2", ()),
        ("ext3", ()),
        ("ext4", ()),
        ("ext4", ("-O", "^metadata_csum,^64bit,^huge_file")),
        ("xfs", ()),
        ("btrfs", ()),
        ("vfat", ("-F", "12")),
        ("vfat", ("-F", "16")),
        ("vfat", ("-F", "32")),
        ("swap", ()),
        ("iso", ()),
        ("luks", ()),
    ],
)
def test_file_systems_are_called_what_libblkid_calls_them(kind, options, tree, tmp_path):
    path = tmp_path / "system"
    if kind == "swap":
        path.write_bytes(bytes(4 * MIB))
        subprocess.run(["mkswap", "-q", "-L", "guest", path], check=True, capture_output=True)
    elif kind == "iso":
        subprocess.run(["genisoimage", "-quiet", "-V", "guest", "-o", path, tree], check=True, capture_output=True)
    elif kind == "luks":
        encrypted_disk(path, "luks", "4M")
    else:
        size = 4 * MIB if "12" in options or "16" in options else 0
        files = tmp_path / "empty" if kind == "vfat" else tree
        files.mkdir(exist_ok=True)
        guests.file_system(path, kind, files, options=options, size_bytes=16 * MIB if "16" in options else size)
    said = subprocess.check_output(["blkid", "-p", "-o", "export", path], text=True)
    theirs = dict(line.replace("\\ ", " ").split("=", 1) for line in said.splitlines())
    with path.open("rb") as file:
        (ours,) = file_systems_of(lambda start, length: os.pread(file.fileno(), length, start))
    name = {"vfat": "fat", "crypto_LUKS": "luks"}.get(theirs["TYPE"], theirs["TYPE"])
    assert ours.kind == name
    assert ours.label == theirs.get("LABEL", "")
    assert ours.uuid == theirs["UUID"]


def test_what_a_killed_look_left_is_removed_by_a_later_one(tmp_path):
    (tmp_path / "disk.raw").write_bytes(bytes(4 * MIB))
    old, young = tmp_path / "workplace" / "guest-old", tmp_path / "workplace" / "guest-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "part.raw").write_bytes(b"x")
    past = time.time() - 3600
    os.utime(old, (past, past))
    with opened_disk(tmp_path / "disk.raw", LIMITS, spool=tmp_path / "spool") as opened:
        guest_facts(opened, LIMITS, workplace=tmp_path / "workplace")
    assert [folder.name for folder in (tmp_path / "workplace").iterdir()] == ["guest-young"]
