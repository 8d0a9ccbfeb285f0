# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.conversion.model import FileSystemKind
from coppice.formats.el_torito import boot_ways_of_disc
from coppice.formats.file_systems import LOOKED_AT_BYTES, file_systems_of
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit


def reader(content, asked=None):
    def read(start, length):
        if asked is not None:
            asked.append(start + length)
        return bytes(content[start : start + length])

    return read


def at(offset, content, size=LOOKED_AT_BYTES):
    return bytes(offset) + content + bytes(max(0, size - offset - len(content)))


def ext(compatible=0, incompatible=0x2, read_only=0x3):
    block = bytearray(1024)
    block[56:58] = b"\x53\xef"
    struct.pack_into("<III", block, 92, compatible, incompatible, read_only)
    block[104:120] = bytes(range(16))
    block[120:125] = b"label"
    return at(1024, bytes(block))


def fat(*, sector_bytes=512, cluster=4, reserved=1, copies=2, roots=512, small=20480, media=0xF8, table=20, large=0):
    sector = bytearray(512)
    sector[:3] = b"\xeb\x3c\x90"
    struct.pack_into("<HBHBHHBH", sector, 11, sector_bytes, cluster, reserved, copies, roots, small, media, table)
    struct.pack_into("<I", sector, 32, large)
    sector[38] = 0x29
    struct.pack_into("<I", sector, 39, 0x1234ABCD)
    sector[43:54] = b"LABEL      "
    sector[510:512] = b"\x55\xaa"
    return at(0, bytes(sector))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(ext(), FileSystemKind.EXT2, id="ext2"),
        pytest.param(ext(compatible=4), FileSystemKind.EXT3, id="ext3"),
        pytest.param(ext(compatible=4, incompatible=0x42), FileSystemKind.EXT4, id="ext4 by extents"),
        pytest.param(ext(compatible=4, read_only=0x400), FileSystemKind.EXT4, id="ext4 by sums"),
        pytest.param(fat(), FileSystemKind.FAT, id="fat"),
        pytest.param(at(0, b"hsqs"), FileSystemKind.SQUASHFS, id="squashfs"),
        pytest.param(at(4086, b"SWAPSPACE2"), FileSystemKind.SWAP, id="swap"),
        pytest.param(at(65526, b"SWAPSPACE2"), FileSystemKind.SWAP, id="swap of large pages"),
        pytest.param(at(512, b"LABELONE".ljust(24, b"\0") + b"LVM2 001"), FileSystemKind.LVM, id="lvm"),
    ],
)
def test_a_file_system_is_recognised(content, kind):
    assert [found.kind for found in file_systems_of(reader(content))] == [kind]


def test_label_and_identifier_are_those_of_the_superblock():
    (found,) = file_systems_of(reader(ext()))
    assert (found.label, found.uuid) == ("label", "00010203-0405-0607-0809-0a0b0c0d0e0f")
    (found,) = file_systems_of(reader(fat()))
    assert (found.label, found.uuid) == ("LABEL", "1234-ABCD")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bytes(LOOKED_AT_BYTES), id="zeros"),
        pytest.param(ext(incompatible=0x8), id="a journal on a device of its own"),
        pytest.param(fat(sector_bytes=513), id="FAT: sectors of 513 bytes"),
        pytest.param(fat(cluster=3), id="FAT: three sectors a cluster"),
        pytest.param(fat(reserved=0), id="FAT: no reserved sector"),
        pytest.param(fat(copies=0), id="FAT: no table, as in NTFS"),
        pytest.param(fat(small=0), id="FAT: no length"),
        pytest.param(fat(table=0), id="FAT: a table of no length"),
        pytest.param(fat()[:500], id="FAT: cut off"),
        pytest.param(b"XFS", id="XFS: cut off"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_file_system_is_none(content):
    assert file_systems_of(reader(content)) == ()


def test_two_in_one_place_are_both_told():
    both = bytearray(ext())
    both[:4] = b"hsqs"
    assert [found.kind for found in file_systems_of(reader(both))] == [FileSystemKind.EXT2, FileSystemKind.SQUASHFS]


def test_a_label_cannot_steer_a_terminal():
    content = bytearray(ext())
    content[1024 + 120 : 1024 + 136] = b"\x1b[2J\xff\xc2\x9b31m".ljust(16, b"\0")
    (found,) = file_systems_of(reader(content))
    assert found.label == "?[2J\ufffd?31m"


SIGNATURES = (
    (0, b"XFSB"),
    (0, b"hsqs"),
    (0, b"LUKS\xba\xbe"),
    (510, b"\x55\xaa"),
    (512, b"LABELONE"),
    (536, b"LVM2 001"),
    (1080, b"\x53\xef"),
    (4086, b"SWAPSPACE2"),
    (32768, b"\x01CD001"),
    (65600, b"_BHRfS_M"),
)


@given(st.lists(st.sampled_from(SIGNATURES), max_size=4), st.integers(0, 2**32), st.integers(0, LOOKED_AT_BYTES))
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_it_raise(signatures, seed, length):
    content = bytearray(random.Random(seed).randbytes(LOOKED_AT_BYTES))  # noqa: S311 - content for tests
    for start, mark in signatures:
        content[start : start + len(mark)] = mark
    asked = []
    file_systems_of(reader(content[:length], asked))
    boot_ways_of_disc(reader(content[:length]))
    assert max(asked) <= LOOKED_AT_BYTES


def disc(*sections, first=(0x00, 0x88), sector=20, whole=True):
    content = bytearray(64 * 2048)
    content[17 * 2048 : 17 * 2048 + 30] = b"\x00CD001\x01EL TORITO SPECIFICATION"
    struct.pack_into("<I", content, 17 * 2048 + 71, sector)
    validation = bytearray(struct.pack("<BBH24sHBB", 1, first[0], 0, b"", 0, 0x55, 0xAA))
    struct.pack_into("<H", validation, 28, -sum(struct.unpack("<16H", validation)) & 0xFFFF)
    catalogue = bytes(validation) + bytes([first[1]]).ljust(32, b"\0")
    for number, (platform, *entries) in enumerate(sections, 1):
        mark = 0x91 if number == len(sections) else 0x90
        catalogue += struct.pack("<BBH", mark, platform, len(entries)).ljust(32, b"\0")
        catalogue += b"".join(bytes([entry]).ljust(32, b"\0") for entry in entries)
    content[20 * 2048 : 20 * 2048 + len(catalogue)] = catalogue if whole else bytes(len(catalogue))
    return content


@pytest.mark.parametrize(
    ("content", "ways"),
    [
        pytest.param(disc(), (Firmware.BIOS,), id="BIOS"),
        pytest.param(disc((0xEF, 0x88)), (Firmware.BIOS, Firmware.UEFI), id="both"),
        pytest.param(disc((0xEF, 0x00)), (Firmware.BIOS,), id="an entry that is not to be started"),
        pytest.param(disc((0x01, 0x88), (0xEF, 0x00, 0x88)), (Firmware.BIOS, Firmware.UEFI), id="the third section"),
        pytest.param(disc(first=(0xEF, 0x88)), (Firmware.UEFI,), id="UEFI alone"),
        pytest.param(disc(first=(0x00, 0x00)), (), id="nothing to start"),
        pytest.param(bytes(64 * 2048), (), id="no record"),
        pytest.param(disc(whole=False), None, id="an empty catalogue"),
        pytest.param(disc(sector=2**32 - 1), None, id="a catalogue beyond the end"),
        pytest.param(disc()[: 18 * 2048], None, id="cut off"),
    ],
)
def test_a_disc_is_started_as_its_catalogue_says(content, ways):
    assert boot_ways_of_disc(reader(content)) == ways


def test_a_catalogue_with_a_wrong_sum_cannot_be_read():
    content = disc()
    content[20 * 2048 + 4] ^= 1
    assert boot_ways_of_disc(reader(content)) is None
