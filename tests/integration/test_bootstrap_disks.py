# SPDX-License-Identifier: Apache-2.0
"""Disks of other kinds from the bootstrap builder: for arm64, for secure boot, in an OVA; packages from a stand-in."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.test_bootstrap_builds import BASE, DEFINITION, made, raw_of, stand_in, tree_of

from coppice.conversion.model import ConversionLimits
from coppice.conversion.ova import ova_layout, verify_manifest
from coppice.conversion.window import FileWindow
from coppice.definition.model import Boot
from coppice.errors import BuildError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.model import BuildOptions
from coppice.factory.verification import verify_build
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.monitor import SILENT, SILENT_TASK
from coppice.testing.ovf_rules import broken_rules

__all__ = ["stand_in"]

pytestmark = pytest.mark.integration

ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_FOR_ARM = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
FOR_ARM = replace(
    DEFINITION,
    name="arm",
    operating_system=replace(DEFINITION.operating_system, architecture="aarch64"),
    firmware=(Firmware.UEFI,),
)
SIGNED = replace(DEFINITION, name="signed", boot=Boot(secure_boot=True))
LAY_SIGNED = """\
mkdir -p "$root/usr/lib/shim" "$root/usr/lib/grub/x86_64-efi-signed"
echo {shim} > "$root/usr/lib/shim/shimx64.efi.signed"
echo keys > "$root/usr/lib/shim/mmx64.efi.signed"
echo grub > "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
"""


def arm_program() -> bytes:
    """Return a program for arm64 that writes "arm" and a line's end: an ELF header, one segment, nine words of code."""
    code = struct.pack(
        "<8I", 0xD2800020, 0x100000E1, 0xD2800082, 0xD2800808, 0xD4000001, 0xD2800000, 0xD2800BA8, 0xD4000001
    )
    code += b"arm\n"
    start, length = 0x400000, 120 + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, length, length, 0x1000) + code


def partitions_of(raw):
    said = json.loads(subprocess.check_output(["sfdisk", "--json", raw]))["partitiontable"]["partitions"]
    return {row["name"]: row for row in said}


def on_esp(raw, path):
    place = f"{raw}@@{disks.ESP_START_BYTES}"
    return subprocess.run(["mtype", "-i", place, f"::/{path}"], check=False, capture_output=True).stdout


def boot_code(raw):
    with raw.open("rb") as stream:
        return stream.read(440)


# What mmdebstrap does first: programs for this machine. Then the tree's hooks run, as in its own order.
EXTRACT = """\
mkdir -p "$root/lib/x86_64-linux-gnu" "$root/usr/lib/x86_64-linux-gnu" "$root/bin"
cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 "$root/lib/x86_64-linux-gnu/"
cp /usr/bin/dash /usr/bin/echo "$root/bin/"
"""
WITH_TWINS = """\
hooks() {
  for word; do
    case "$word" in "--$kind-hook="*twins*) sh -c "${word#*=}" exec "$root" || exit 1 ;; esac
  done
}
mkdir -p "$root/usr/lib"
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
cp "$root/usr/bin/arm" "$root/usr/bin/dash"
kind=essential
hooks "$@"
cp "$root/usr/bin/arm" "$root/usr/bin/echo"
chroot "$root" /bin/dash -c '/usr/bin/echo "$0"; /usr/bin/arm' > "$root/data/said"
kind=customize
hooks "$@"
chroot "$root" /bin/dash >> "$root/data/said"
"""


@pytest.fixture
def for_arm(stand_in, tmp_path):
    """A stand-in whose trees run a program for arm64 while they are made."""
    program = tmp_path / "arm-program"
    program.write_bytes(arm_program())
    program.chmod(0o755)
    place = "$root/boot/grub/arm64-efi"
    (stand_in / "base.sh").write_text(
        f'{BASE}cp {program} "$root/usr/bin/arm"\nmkdir -p "{place}"\n'
        f'chroot "$root" /usr/bin/arm > "{place}/core.efi"\n'
    )
    return program


def test_a_tree_for_arm_runs_its_own_programs_and_this_machine_is_as_before(tmp_path, for_arm):
    assert platform.machine() == "x86_64"
    known = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    result = made(tmp_path, FOR_ARM)
    raw = raw_of(result, tmp_path / "raw")
    # The program wrote it, in the tree, while it was made.
    assert on_esp(raw, "EFI/BOOT/BOOTAA64.EFI") == b"arm\n"
    assert Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() is known
    if not known:
        with pytest.raises(OSError, match="Exec format error"):
            subprocess.run([for_arm], check=False)
    found = partitions_of(raw)
    assert {name: row["type"] for name, row in found.items()} == {"esp": ESP_TYPE, "root": ROOT_FOR_ARM}
    # GRUB was told that the root is the third, and there is nothing that BIOS could start.
    assert found["root"]["node"].endswith("3")
    assert boot_code(raw) == bytes(440)
    options = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "caches")
    assert verify_build(result, options=options, monitor=SILENT).is_identical
    assert list((tmp_path / "work").iterdir()) == []


def test_what_is_the_same_on_all_processors_is_not_emulated_and_nothing_of_it_is_left(tmp_path, for_arm, stand_in):
    text = (stand_in / "mmdebstrap").read_text()
    extracts = 'case "$word" in --variant=extract) kind=extract ;; esac'
    text = text.replace("for word; do\n", f"for word; do\n  {extracts}\n", 1)
    text = text.replace("*/space/root)", "*/space/root | */space/twins.extracted)")
    (stand_in / "mmdebstrap").write_text(text)
    (stand_in / "extract.sh").write_text(EXTRACT)
    with (stand_in / "base.sh").open("a") as script:
        script.write(WITH_TWINS)
    result = made(tmp_path, FOR_ARM)
    found, disk = tree_of(result, tmp_path)
    # echo was the tree's own when the shell called it: it came after the hook. The shell was not, until the other hook.
    assert disk.content(found["/data/said"]) == b"arm\narm\narm\n"
    assert {disk.content(found[f"/usr/bin/{name}"]) for name in ("arm", "dash", "echo")} == {arm_program()}
    assert [path for path in found if "x86_64-linux-gnu" in path or "twins" in path] == []


def test_for_secure_boot_the_firmware_starts_what_is_signed_and_that_finds_the_menu(tmp_path, stand_in):
    with (stand_in / "child.sh").open("a") as script:
        script.write(LAY_SIGNED.format(shim="shim"))
    raw = raw_of(made(tmp_path, SIGNED), tmp_path / "raw")
    assert on_esp(raw, "EFI/BOOT/BOOTX64.EFI") == b"shim\n"
    assert on_esp(raw, "EFI/BOOT/grubx64.efi") == b"grub\n"
    assert on_esp(raw, "EFI/BOOT/mmx64.efi") == b"keys\n"
    menu = on_esp(raw, "EFI/debian/grub.cfg").decode()
    root = subprocess.check_output(["blkid", "-p", "-O", str(disks.ROOT_START_BYTES), "-s", "UUID", "-o", "value", raw])
    assert f"--set=root {root.decode().strip()}\n" in menu
    assert menu.endswith("configfile $prefix/grub.cfg\n")
    # BIOS is started as ever.
    assert boot_code(raw) != bytes(440)


def test_a_child_that_starts_otherwise_than_its_parent_has_another_loader(tmp_path, stand_in):
    lays = LAY_SIGNED.format(shim="shim")
    with (stand_in / "child.sh").open("a") as script:
        script.write(lays)
    parent = made(tmp_path)
    assert on_esp(raw_of(parent, tmp_path / "raw"), "EFI/BOOT/BOOTX64.EFI") == b"y" * 4096
    child = made(tmp_path, replace(SIGNED, parent="base"), "two", ancestors=(parent,))
    assert on_esp(raw_of(child, tmp_path / "raw"), "EFI/BOOT/BOOTX64.EFI") == b"shim\n"
    (stand_in / "child.sh").write_text(LAY_SIGNED.format(shim="newer"))
    grandchild = made(tmp_path, replace(SIGNED, parent="signed"), "three", ancestors=(child, parent))
    assert on_esp(raw_of(grandchild, tmp_path / "raw"), "EFI/BOOT/BOOTX64.EFI") == b"newer\n"
    (stand_in / "child.sh").write_text("true\n")
    usual = made(tmp_path, replace(DEFINITION, name="usual", parent="signed"), "four", ancestors=(child, parent))
    raw = raw_of(usual, tmp_path / "raw")
    assert on_esp(raw, "EFI/BOOT/BOOTX64.EFI") == b"y" * 4096
    assert on_esp(raw, "EFI/BOOT/grubx64.efi") == b""


def test_a_tree_without_what_is_signed_makes_no_disk(tmp_path, stand_in):
    with pytest.raises(BuildError, match=r"the tree lacks .*shimx64\.efi\.signed"):
        made(tmp_path, SIGNED)


def test_an_ova_has_the_same_disk_and_says_what_machine_it_is_for(tmp_path, stand_in):
    wanted = Requirements(minimum_cores=1, recommended_cores=3, minimum_ram_mib=512, recommended_ram_mib=768)
    kinds = (DiskFormat.RAW, DiskFormat.OVA)
    result = made(tmp_path, replace(DEFINITION, formats=kinds, firmware=(Firmware.UEFI,), requirements=wanted))
    raw, ova = (built.path for built in result.images)
    assert [built.image.virtual_size_bytes for built in result.images] == [DEFINITION.disk_size_bytes] * 2
    with FileWindow(ova) as window:
        found = ova_layout(window, ConversionLimits(), ova.name)
        verify_manifest(found, window, SILENT_TASK)
        descriptor = window.read(found.members[0].offset, found.members[0].size_bytes)
    assert broken_rules(descriptor) == []
    assert found.hardware is not None
    assert (found.hardware.minimum_cores, found.hardware.minimum_ram_mib) == (3, 768)
    assert (found.hardware.firmware, found.hardware.disk_bus) == (Firmware.UEFI, DiskBus.IDE)
    # A kernel for clouds has no driver of a real network adapter.
    assert b"<rasd:ResourceSubType>VmxNet3<" in descriptor
    with tarfile.open(ova) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (disk,) = (tmp_path / "unpacked").glob("*.vmdk")
    assert subprocess.run(["qemu-img", "compare", "-q", raw, disk], check=False).returncode == 0
    assert sorted(path.name for path in result.directory.glob("base*")) == ["base.ova", "base.raw"]
