# SPDX-License-Identifier: Apache-2.0
"""Disks are told apart by their content alone; what is known to be mistaken for something else is not."""

from __future__ import annotations

import random
import struct
from contextlib import suppress

import pytest

from coppice.conversion.detect import detect, formats_of
from coppice.conversion.disks.foreign import foreign_mark
from coppice.conversion.disks.frame import READERS
from coppice.conversion.model import ConversionLimits, PartitionTable
from coppice.conversion.window import BytesWindow
from coppice.errors import ImageRefusedError, OversizedImageError, SeveralFormatsError
from coppice.model.image import DiskFormat
from coppice.testing import disks, images, vhdx
from coppice.testing.qcow2 import TinyQcow2

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()
KIB = 1024


def found(content: bytes, limits: ConversionLimits = LIMITS):
    return detect(BytesWindow(content), limits, name="x", file_size_bytes=len(content))


def noise(size_bytes: int = 64 * KIB) -> bytes:
    return random.Random(5).randbytes(size_bytes)  # noqa: S311 - content for tests


def boot_sector(start: bytes, *, signature: bool = True) -> bytes:
    return start.ljust(510, b"\0") + (b"\x55\xaa" if signature else b"\0\0") + bytes(63 * KIB + 512)


def gpt_disk() -> bytes:
    disk = bytearray(64 * KIB)
    disk[446:462] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, 127)
    disk[510:512] = b"\x55\xaa"
    disk[512:520] = b"EFI PART"
    return bytes(disk)


FAT = b"\xeb\x3c\x90MSDOS5.0" + struct.pack("<HBHBHHB", 512, 4, 4, 2, 512, 128, 0xF8)
EXT = bytes(KIB + 56) + b"\x53\xef" + bytes(63 * KIB - 58)


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    ("content", "kind", "variant"),
    [
        (images.raw_disk(), DiskFormat.RAW, "mbr partitions"),
        (gpt_disk(), DiskFormat.RAW, "gpt partitions"),
        (images.superfloppy(), DiskFormat.RAW, "no partitions"),
        (bytes(512), DiskFormat.RAW, "no partitions"),
        (bytes(64 * KIB), DiskFormat.RAW, "no partitions"),
        (noise(), DiskFormat.RAW, "no partitions"),
        (boot_sector(FAT), DiskFormat.RAW, "no partitions"),
        (boot_sector(b"MZ\xea\7\0\xc0\7"), DiskFormat.RAW, "no partitions"),
        (EXT, DiskFormat.RAW, "no partitions"),
        (b"hsqs" + bytes(64 * KIB - 4), DiskFormat.RAW, "no partitions"),
        (b"a label".ljust(64 * KIB, b"\0"), DiskFormat.RAW, "no partitions"),
        (images.iso(), DiskFormat.ISO, "plain"),
        (images.iso(hybrid=True), DiskFormat.ISO, "hybrid"),
        (images.iso(system_area=b"ER\2\0".ljust(512, b"\0")), DiskFormat.ISO, "plain"),
        (images.iso(hybrid=True, system_area=bytes(512) + b"EFI PART"), DiskFormat.ISO, "hybrid"),
        (images.iso() + bytes(300), DiskFormat.ISO, "plain"),
        (TinyQcow2().content(), DiskFormat.QCOW2, "v3"),
    ],
    ids=[
        "mbr", "gpt", "superfloppy", "one-sector", "zeros", "noise", "fat", "boot-code-like-a-program", "ext",
        "squashfs", "label", "iso", "hybrid", "apple-hybrid", "gpt-hybrid", "odd-iso", "qcow2",
    ],
)  # fmt: skip
def test_good_disks_are_told_apart_by_their_content(content, kind, variant):
    disk = found(content)
    assert (disk.format, disk.variant) == (kind, variant)
    if kind is not DiskFormat.QCOW2:
        assert disk.virtual_size_bytes == len(content)


def test_the_partition_table_of_a_raw_disk_is_told():
    assert found(images.raw_disk()).partition_table is PartitionTable.MBR
    assert found(gpt_disk()).partition_table is PartitionTable.GPT
    assert found(images.superfloppy()).partition_table is None


@pytest.mark.threat("T62")
def test_no_two_formats_are_one():
    marks = {
        DiskFormat.QCOW2: (0, b"QFI\xfb"),
        DiskFormat.VMDK: (0, b"KDMV"),
        DiskFormat.VDI: (64, b"\x7f\x10\xda\xbe"),
        DiskFormat.VHD: (0, b"conectix"),
        DiskFormat.VHDX: (0, b"vhdxfile"),
        DiskFormat.ISO: (32769, b"CD001"),
    }
    pairs = [(one, other) for one in marks for other in marks if one < other and marks[one][0] != marks[other][0]]
    assert len(pairs) == 9  # four at the beginning with two elsewhere, and those two
    for one, other in pairs:
        content = bytearray(64 * KIB)
        for kind in (one, other):
            offset, mark = marks[kind]
            content[offset : offset + len(mark)] = mark
        assert set(formats_of(BytesWindow(bytes(content)))) == {one, other}
        with pytest.raises(SeveralFormatsError):
            found(bytes(content))


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    "head",
    [b"version=1\n", b"# x\nversion=2\r\n", b"\n\n  \nversion=3\n", b"#" * 300 + b"\nVERSION = 1\n",
     b"# Disk DescriptorFile\n\0\1\2"],
    ids=["bare", "windows", "blank-lines", "long-comment", "comment-alone"],
)  # fmt: skip
def test_a_descriptor_that_qemu_would_follow_is_seen_wherever_one_fits(head):
    assert foreign_mark(BytesWindow(head.ljust(KIB, b"\0"))).kind.code == "image-outside-reference"
    with pytest.raises(SeveralFormatsError, match="descriptor"):
        found(images.iso(system_area=head))


def test_every_format_of_a_disk_has_a_reader():
    assert set(READERS) == set(DiskFormat) - {DiskFormat.OVA}


class FailingWindow(BytesWindow):
    """From some reading on the file is shorter: somebody cut it off meanwhile."""

    def __init__(self, content: bytes, calls: int, left: int) -> None:
        super().__init__(content)
        self._calls = calls
        self._left = left

    def read(self, start: int, length: int) -> bytes:
        self._calls -= 1
        piece = super().read(start, length)
        return piece if self._calls >= 0 else piece[: max(0, self._left - start)]


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    "content",
    [
        images.raw_disk(64 * KIB), gpt_disk(), images.iso(hybrid=True), TinyQcow2().content(),
        disks.sparse_vmdk(), disks.stream_vmdk(), disks.vdi(), disks.dynamic_vhd(), disks.fixed_vhd(), vhdx.vhdx(),
    ],
    ids=["raw", "gpt", "iso", "qcow2", "vmdk", "stream", "vdi", "dynamic-vhd", "fixed-vhd", "vhdx"],
)  # fmt: skip
@pytest.mark.parametrize("left", [3, 66_000])
def test_a_file_that_is_cut_off_while_it_is_looked_at_breaks_nothing(content, left):
    for calls in (*range(14), 20, 30, 60):
        window = FailingWindow(content, calls, left)
        with suppress(ImageRefusedError):
            detect(window, LIMITS, name="x", file_size_bytes=len(content))


@pytest.mark.threat("T62")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("caf\u00e9 \u2014 ".encode() * 100, "text"),
        (b"\xef\xbb\xbf" + b"sha256  disk.raw\r\n" * 60, "text"),
        (("text " * 200).encode("utf-16"), "text"),
        (("text " * 200).encode("utf-16-be"), None),
        (b"\xfe\xff" + ("text " * 200).encode("utf-16-be"), "text"),
        (b"\x1b[31mred\x1b[0m " * 50, "text"),
        (b"x" * 511 + b"\xc3\xa9" * 300, "text"),
        (b"x" * 600 + bytes(40), "text"),
        (b"x" * 100 + b"\x01" + b"x" * 600, None),
        (b"  \r\n<HTML>" + bytes(600), "HTML"),
        (b"\xff\xfe" + bytes(700), None),
        (b"MZ" + bytes(58) + struct.pack("<I", 2**32 - 4) + bytes(700), None),
    ],
)
def test_text_is_no_disk_and_binary_data_is_no_text(content, words):
    mark = foreign_mark(BytesWindow(content))
    assert (mark is None) if words is None else (words in mark.words)


@pytest.mark.threat("T62")
@pytest.mark.parametrize("length", [0, 1, 4, 200, 511])
def test_what_is_shorter_than_a_sector_is_no_disk(length):
    with pytest.raises(ImageRefusedError, match=f"{length} bytes") as caught:
        found(TinyQcow2().content()[:length])
    assert caught.value.code == "image-none"


@pytest.mark.threat("T63")
def test_a_raw_disk_may_be_as_long_as_is_taken_and_no_longer():
    limits = ConversionLimits(maximum_virtual_size_bytes=64 * KIB)
    assert found(bytes(64 * KIB), limits).virtual_size_bytes == 64 * KIB
    with pytest.raises(OversizedImageError):
        found(bytes(64 * KIB + 512), limits)


@pytest.mark.threat("T63")
def test_how_long_a_disk_may_be_depends_on_the_file_that_was_published():
    content = TinyQcow2(fields={"virtual_size": 2**40, "cluster_bits": 12}, cluster_bits=12).content()
    with pytest.raises(OversizedImageError):
        detect(BytesWindow(content), LIMITS, name="x", file_size_bytes=len(content))
    with pytest.raises(ImageRefusedError) as caught:
        detect(BytesWindow(content), LIMITS, name="x", file_size_bytes=2**31)
    assert caught.value.code != "image-oversized"


@pytest.mark.threat("T62")
def test_every_first_sector_of_noise_is_taken_or_refused_and_nothing_else():
    source = random.Random(7)  # noqa: S311 - content for tests
    for _ in range(300):
        content = bytearray(source.randbytes(2048))
        mark = source.choice([b"QFI\xfb", b"KDMV", b"conectix", b"vhdxfile", b"COWD", b"# Disk DescriptorFile\n"])
        content[: len(mark)] = mark
        with pytest.raises(ImageRefusedError):
            found(bytes(content))
