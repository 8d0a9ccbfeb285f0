# SPDX-License-Identifier: Apache-2.0
"""What is taken of VMDK, VDI, VHD and VHDX, held against what QEMU makes and reads of them."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter

import pytest

from coppice.conversion.detect import detect
from coppice.conversion.model import ConversionLimits
from coppice.conversion.options import Options
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.conversion.window import FileWindow
from coppice.errors import ImageRefusedError
from coppice.model.image import DiskFormat
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.testing import disks, vhdx
from coppice.testing.disks import MIB, SECTOR, write_sparsely
from coppice.testing.hostile import disks as hostile

pytestmark = pytest.mark.integration
LIMITS = ConversionLimits()
MADE = [
    ("vmdk", "", "monolithicSparse"),
    ("vmdk", "compat6=on", "monolithicSparse"),
    ("vmdk", "zeroed_grain=on", "monolithicSparse"),
    ("vmdk", "subformat=streamOptimized", "streamOptimized"),
    ("vdi", "", "dynamic"),
    ("vdi", "static=on", "static"),
    ("vpc", "", "dynamic"),
    ("vpc", "force_size=on", "dynamic"),
    ("vpc", "subformat=fixed", "fixed"),
    ("vpc", "subformat=fixed,force_size=on", "fixed"),
    ("vhdx", "", "dynamic"),
    ("vhdx", "block_size=32M,log_size=2M", "dynamic"),
    ("vhdx", "subformat=fixed", "fixed"),
]
OWN = {
    "sparse.vmdk": ("vmdk", disks.sparse_vmdk, {0: b"first", 5 * disks.GRAIN: b"second"}),
    "stream.vmdk": ("vmdk", disks.stream_vmdk, {0: b"first", 5 * disks.GRAIN: b"second"}),
    "dynamic.vdi": ("vdi", disks.vdi, {2 * MIB: b"first", 0: b"second"}),
    "dynamic.vhd": ("vpc", disks.dynamic_vhd, {2 * MIB: b"first"}),
    "fixed.vhd": ("vpc", disks.fixed_vhd, {0: b"first"}),
    "dynamic.vhdx": ("vhdx", vhdx.vhdx, {0: b"first"}),
}
SPOTS = {
    "sparse.vmdk": ((0, 80), (SECTOR, 200), (disks.GD * SECTOR, 80), (disks.GT * SECTOR, 80)),
    "stream.vmdk": ((0, 80), (SECTOR, 200), (disks.OVERHEAD * SECTOR, 12), (-3 * SECTOR, 3 * SECTOR)),
    "dynamic.vdi": ((64, 8), (76, 8), (340, 116), (SECTOR, 24)),
    "dynamic.vhd": ((0, 88), (SECTOR, 64), (SECTOR + 576, 40), (disks.VHD_TABLE, 12)),
    "fixed.vhd": ((-SECTOR, 88),),
    "dynamic.vhdx": (
        (64 * 1024, 80),
        (192 * 1024, 80),
        (vhdx.BAT, 40),
        (vhdx.METADATA, 200),
        (vhdx.METADATA + 65536, 40),
    ),
}
NUMBERS = (0, 1, 2, 3, 6, 7, 0x80, 0xFF, 0x200, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


def qemu_img(*arguments, check=True):
    return subprocess.run(["qemu-img", *arguments], check=check, capture_output=True, text=True)


def named(path, kind):
    """Return how a disk is named to QEMU: of a VHD, the current size counts."""
    more = {"force_size_calc": "current_size"} if kind == "vpc" else {}
    return f"json:{json.dumps({'driver': kind, 'file': {'driver': 'file', 'filename': str(path)}, **more})}"


def size_by_qemu(path, kind):
    return json.loads(qemu_img("info", "--output=json", named(path, kind)).stdout)["virtual-size"]


def found(path):
    with FileWindow(path) as window:
        return detect(window, LIMITS, name=path.name, file_size_bytes=window.size_bytes)


def disk_with_content(path, size_bytes):
    noise = random.Random(size_bytes)  # noqa: S311 - content for tests
    with path.open("wb") as stream:
        stream.truncate(size_bytes)
        for start in (0, size_bytes // 3 // SECTOR * SECTOR, size_bytes - SECTOR):
            stream.seek(start)
            stream.write(noise.randbytes(min(70_000, size_bytes - start)))


@pytest.mark.parametrize("size_bytes", [SECTOR, 5 * MIB + 3 * SECTOR, 37 * MIB], ids=["tiny", "odd", "even"])
@pytest.mark.parametrize(("kind", "options", "variant"), MADE)
def test_what_qemu_makes_is_taken_as_what_qemu_reads(tmp_path, kind, options, variant, size_bytes):
    raw, image = tmp_path / "raw", tmp_path / "image"
    disk_with_content(raw, size_bytes)
    arguments = ["-o", options] if options else []
    qemu_img("convert", "-f", "raw", "-O", kind, *arguments, raw, image)
    seen = found(image)
    assert (seen.variant, seen.virtual_size_bytes) == (variant, size_by_qemu(image, kind))
    assert seen.notes == ()
    assert seen.must_be_rewritten == (variant == "fixed" and kind == "vpc")
    assert 0 < seen.allocated_bytes <= seen.virtual_size_bytes
    qemu_img("create", "-f", kind, *arguments, image, str(size_bytes))
    assert found(image).virtual_size_bytes == size_by_qemu(image, kind)


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_images_that_tests_make_are_what_qemu_reads(tmp_path, name):
    kind, make, content = OWN[name]
    path, raw = tmp_path / name, tmp_path / "raw"
    write_sparsely(path, make())
    qemu_img("convert", "-O", "raw", named(path, kind), raw)
    disk = raw.read_bytes()
    assert len(disk) == found(path).virtual_size_bytes == size_by_qemu(path, kind)
    assert sum(map(len, content.values())) == len(disk) - disk.count(0)
    for start, piece in content.items():
        assert disk[start : start + len(piece)] == piece


def test_of_a_disk_of_virtualbox_qemu_alone_would_leave_out_the_end(tmp_path):
    path, raw = tmp_path / "x.vhd", tmp_path / "raw"
    write_sparsely(path, disks.fixed_vhd(content=b"\0" * (4 * MIB - 4) + b"last", creator=b"vbox"))
    qemu_img("convert", "-f", "vpc", "-O", "raw", path, raw)
    assert b"last" not in raw.read_bytes()
    qemu_img("convert", "-O", "raw", named(path, "vpc"), raw)
    assert raw.read_bytes().endswith(b"last")
    assert raw.stat().st_size == found(path).virtual_size_bytes


@pytest.mark.parametrize("wanted", [DiskFormat.RAW, DiskFormat.QCOW2, DiskFormat.VHD])
@pytest.mark.parametrize(("make", "held"), [(disks.fixed_vhd, 4 * MIB), (disks.dynamic_vhd, 2 * MIB)])
def test_the_end_of_a_disk_of_virtualbox_is_in_what_is_made_of_it(tmp_path, make, held, wanted):
    path, made, raw = tmp_path / "x.vhd", tmp_path / "made", tmp_path / "raw"
    write_sparsely(path, make(content=b"\0" * (held - 4) + b"last", creator=b"vbox"))
    with opened_disk(path, LIMITS, spool=tmp_path) as disk:
        options = Options(name="x", requirements=Requirements())
        transform(disk, wanted, made, options=options, limits=LIMITS, monitor=SILENT)
    kind = {DiskFormat.RAW: "raw", DiskFormat.QCOW2: "qcow2", DiskFormat.VHD: "vpc"}[wanted]
    qemu_img("convert", "-f", kind, "-O", "raw", made, raw)
    assert raw.stat().st_size == 4 * MIB
    assert raw.read_bytes().endswith(b"last")


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    ("name", "kind"), [("vmdk-stream-two-footers.vmdk", "vmdk"), ("vhd-fixed-two-footers.vhd", "vpc")]
)
def test_a_file_that_ends_within_a_sector_has_another_footer_for_qemu_and_is_refused(tmp_path, name, kind):
    case = next(case for case in hostile.cases() if case.name == name)
    path = tmp_path / name
    case.make(path)
    assert size_by_qemu(path, kind) > 32 * MIB
    with pytest.raises(ImageRefusedError, match="no whole sectors"):
        found(path)


@pytest.mark.threat("T63")
@pytest.mark.parametrize("compared", [pytest.param(8, id="8"), pytest.param(80, id="80", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", sorted(OWN))
def test_a_changed_image_that_is_still_taken_is_the_disk_that_qemu_reads(tmp_path, name, compared):
    kind, make, _ = OWN[name]
    good, path, raw = make(), tmp_path / name, tmp_path / "raw"
    choice = random.Random(name)  # noqa: S311 - the same changes each time
    outcomes = Counter()
    for _ in range(80):
        write_sparsely(path, resealed(name, changed(good, SPOTS[name], choice)))
        try:
            seen = found(path)
        except ImageRefusedError as error:
            outcomes[error.code] += 1
            continue
        if seen.format is DiskFormat.RAW:
            outcomes["no longer of that format"] += 1
            continue
        outcomes["taken"] += 1
        if outcomes["taken"] <= compared:
            info = json.loads(qemu_img("info", "--output=json", named(path, kind)).stdout)
            assert info["virtual-size"] == seen.virtual_size_bytes
            assert "backing-filename" not in info
            qemu_img("convert", "-O", "raw", named(path, kind), raw, check=name != "stream.vmdk")
    assert outcomes["taken"] > 0
    assert len(outcomes) > 2, outcomes


def changed(content, spots, choice):
    for _ in range(choice.choice((1, 1, 2))):
        start, length = choice.choice(spots)
        width = choice.choice((1, 2, 4, 8))
        at = (len(content) if start < 0 else 0) + start + choice.randrange(length) // width * width
        number = choice.choice((*NUMBERS, choice.getrandbits(64))) % 2 ** (8 * width)
        piece = number.to_bytes(width, choice.choice(("little", "big")))
        content = (content[:at] + piece + content[at + width :])[: len(content)]
    return content


def resealed(name, content):
    """Set the checksums right, so that what was changed is looked at."""
    if name == "fixed.vhd":
        return content[:-SECTOR] + disks.resealed_vhd(content[-SECTOR:], 64)
    if name == "dynamic.vhd":
        footer, header = disks.resealed_vhd(content[:SECTOR], 64), disks.resealed_vhd(content[SECTOR : 3 * SECTOR], 36)
        return footer + header + content[3 * SECTOR : -SECTOR] + footer
    if name == "dynamic.vhdx":
        for start, length in ((vhdx.HEADERS[0], 4096), (vhdx.HEADERS[1], 4096), (vhdx.TABLES[0], 65536)):
            content = content[:start] + vhdx.sealed(content[start : start + length]) + content[start + length :]
        first, second = vhdx.TABLES
        return content[:second] + content[first:second] + content[second + 65536 :]
    return content
