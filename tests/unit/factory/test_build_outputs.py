# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import Boot, FileSystemKind
from coppice.definition.read import read_definition
from coppice.errors import BuildError
from coppice.factory.bootstrap.supported import check_supported
from coppice.factory.build_log import BuildLog
from coppice.factory.model import BuildOptions
from coppice.factory.outputs import settled_descriptor, settled_footer
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

DEFINITION = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
FOR_ARM = replace(DEFINITION.operating_system, architecture="aarch64")


def test_what_the_builder_does_is_not_refused():
    check_supported(DEFINITION, BuildOptions())
    every = (DiskFormat.QCOW2, DiskFormat.RAW, DiskFormat.VMDK, DiskFormat.VDI, DiskFormat.VHD, DiskFormat.OVA)
    check_supported(replace(DEFINITION, formats=every), BuildOptions())
    check_supported(replace(DEFINITION, file_system=FileSystemKind.BTRFS), BuildOptions())
    check_supported(replace(DEFINITION, boot=Boot(secure_boot=True)), BuildOptions())
    check_supported(replace(DEFINITION, operating_system=FOR_ARM, firmware=(Firmware.UEFI,)), BuildOptions())
    snapshots = BuildOptions(mirror="http://mirror.example/{snapshot}/debian")
    check_supported(replace(DEFINITION, snapshot="20260131T000000Z"), snapshots)


@pytest.mark.parametrize(
    ("change", "said", "key"),
    [
        ({"file_system": FileSystemKind.XFS}, "no root of xfs: mkfs.xfs would lose", "ext4 or btrfs"),
        ({"is_encrypted": True}, "no encrypted root", "build.encrypted"),
        ({"platforms": {"qemu": {"cpu": "host"}}}, r"hypervisors \(qemu\)", "platform"),
        ({"formats": (DiskFormat.OVA, DiskFormat.QCOW2)}, "begins with ova", "before it"),
        ({"formats": (DiskFormat.ISO,)}, "does not write iso", "build.formats"),
        ({"suite": "noble", "boot": Boot(secure_boot=True)}, "secure boot of Debian", "secure-boot"),
        ({"firmware": (Firmware.BIOS,), "boot": Boot(secure_boot=True)}, "is UEFI's", "build.firmware"),
        ({"disk_size_bytes": 1024**3}, "too small", "disk-size"),
        ({"suite": "woody"}, "does not know the suite", "suite"),
        ({"parent": "base"}, "no tree that is kept", "coppice build base"),
        ({"operating_system": FOR_ARM}, "do not start by BIOS", "build.firmware"),
        ({"operating_system": FOR_ARM, "suite": "noble"}, "Ubuntu for aarch64", "architecture"),
        (
            {"operating_system": FOR_ARM, "firmware": (Firmware.UEFI,), "boot": Boot(secure_boot=True)},
            "secure boot of Debian for x86_64",
            "secure-boot",
        ),
        (
            {"operating_system": replace(DEFINITION.operating_system, architecture="riscv64")},
            "does not build for 'riscv64'",
            "aarch64, x86_64",
        ),
    ],
)
def test_what_the_builder_does_not_do_is_refused_with_what_where_and_what_to_do(change, said, key):
    with pytest.raises(BuildError, match=said) as caught:
        check_supported(replace(DEFINITION, **change), BuildOptions())
    assert key in (caught.value.resolution or "")


def test_the_footer_of_a_vhd_has_no_time_and_a_sum_that_is_right():
    footer = settled_footer(b"conectix" + bytes(range(252)) * 2, b"\x11" * 32)
    assert len(footer) == 512
    assert footer[24:28] == bytes(4)
    assert footer[68:84] == b"\x11" * 16
    without = footer[:64] + bytes(4) + footer[68:]
    assert struct.unpack(">I", footer[64:68])[0] == ~sum(without) & 0xFFFFFFFF


@pytest.mark.parametrize("drawn", [b"9", b"01234567"])
def test_the_descriptor_of_a_vmdk_is_the_same_whatever_was_drawn(drawn):
    descriptor = (b"version=1\nCID=" + drawn + b"\nparentCID=ffffffff\n").ljust(1024, b"\0")
    settled = settled_descriptor(descriptor, b"\xab" * 32)
    assert settled == b"version=1\nCID=abababab\nparentCID=ffffffff\n".ljust(1024, b"\0")


def test_progress_comes_by_line_and_bars_by_their_last_state(tmp_path):
    told: list[str] = []
    with BuildLog(tmp_path / "log", told.append) as log:
        for piece in ("I: one\nI: t", "wo\n", "1%\r50%\r100%\r\n", "\n", "rest"):
            log.write(piece)
    assert told == ["I: one", "I: two", "100%"]
    assert (tmp_path / "log").read_bytes() == b"I: one\nI: two\n1%\r50%\r100%\r\n\nrest"


def test_a_mirrors_password_is_neither_kept_nor_told_however_it_comes(tmp_path):
    told: list[str] = []
    with BuildLog(tmp_path / "log", told.append) as log:
        for piece in ("E: Status code: 401 for https://user:sec", "ret@mirror.example/x\nhttps://user:secret@mirror"):
            log.write(piece)
    kept = (tmp_path / "log").read_text()
    assert "mirror.example/x\n" in kept
    assert kept.endswith("@mirror")
    assert "secret" not in kept
    assert len(told) == 1
    assert "secret" not in told[0]


def test_a_log_that_is_flooded_is_kept_up_to_its_limit_and_says_so(tmp_path):
    told: list[str] = []
    with BuildLog(tmp_path / "log", told.append, most_bytes=100) as log:
        for number in range(1000):
            log.write(f"line {number}\n")
    kept = (tmp_path / "log").read_text()
    assert len(kept) < 200
    assert kept.endswith("(what came after this was not kept)\n")
    assert told[-1] == "line 999"
