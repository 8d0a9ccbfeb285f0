# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.conversion.model import PartitionTable
from coppice.formats.partitions import partition_table_of, read_partitions
from coppice.formats.partitions_gpt import MOST_TABLE_BYTES
from coppice.formats.partitions_mbr import MOST_LOGICAL_PARTITIONS

pytestmark = pytest.mark.unit
SECTOR = 512
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
OWN = uuid.UUID("11111111-2222-3333-4444-555555555555")


def mbr(*entries, code=b""):
    sector = bytearray(code.ljust(446, b"\0"))
    for active, kind, start, count in entries:
        sector += struct.pack("<B3sB3sII", 0x80 if active else 0, b"", kind, b"", start, count)
    return bytes(sector.ljust(510, b"\0")) + b"\x55\xaa"


def put(disk, at, content):
    disk[at : at + len(content)] = content


def gpt_entry(first, last, kind=LINUX, name="root", attributes=0):
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, OWN.bytes_le, first, last, attributes, name.encode("utf-16-le"))


def header(own, other, entries_at, entries, *, count=128, entry_bytes=128, sectors=2048):
    fields = (
        b"EFI PART",
        0x10000,
        92,
        0,
        0,
        own,
        other,
        34,
        sectors - 34,
        OWN.bytes_le,
        entries_at,
        count,
        entry_bytes,
    )
    raw = struct.pack("<8sIIIIQQQQ16sQIII", *fields, zlib.crc32(entries))
    return raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]


def gpt(*entries, sector=SECTOR, sectors=2048, protective=True):
    disk = bytearray(sectors * sector)
    if protective:
        put(disk, 0, mbr((False, 0xEE, 1, sectors - 1)))
    table = b"".join(entries).ljust(128 * 128, b"\0")
    length = -(-len(table) // sector)
    put(disk, sector, header(1, sectors - 1, 2, table, sectors=sectors))
    put(disk, 2 * sector, table)
    put(disk, (sectors - 1) * sector, header(sectors - 1, 1, sectors - 1 - length, table, sectors=sectors))
    put(disk, (sectors - 1 - length) * sector, table)
    return disk


def layout(disk, size=None):
    content = bytes(disk)
    return read_partitions(lambda start, length: content[start : start + length], size or len(content))


def test_a_disk_of_zeros_has_no_table_and_no_problem():
    found = layout(bytes(4096))
    assert (found.table, found.partitions, found.problem, found.has_boot_code) == (None, (), None, False)


def test_primary_partitions_are_read_with_their_kind_and_flag():
    disk = bytearray(mbr((True, 0x83, 8, 16), (False, 0x82, 24, 8), code=b"\xfa\xb8")).ljust(64 * SECTOR, b"\0")
    found = layout(disk)
    assert found.table is PartitionTable.MBR
    assert [(p.number, p.start_bytes, p.size_bytes, p.kind, p.is_active) for p in found.partitions] == [
        (1, 4096, 8192, "0x83", True),
        (2, 12288, 4096, "0x82", False),
    ]
    assert found.has_boot_code
    assert found.notes == ()


def chain(*links, sectors=4096):
    """A disk whose extended partition begins at sector 100; each link: (at, partition from here, count, next or 0)."""
    disk = bytearray(sectors * SECTOR)
    put(disk, 0, mbr((False, 0x83, 8, 16), (False, 0x05, 100, 3000)))
    for at, start, count, following in links:
        entries = [(False, 0x83, start, count)]
        if following:
            entries.append((False, 0x05, following - 100, 100))
        put(disk, at * SECTOR, mbr(*entries))
    return disk


def test_logical_partitions_are_counted_from_five_and_lie_where_their_link_says():
    found = layout(chain((100, 8, 16, 200), (200, 8, 32, 0)))
    assert [(p.number, p.start_bytes // SECTOR, p.size_bytes // SECTOR) for p in found.partitions] == [
        (1, 8, 16),
        (5, 108, 16),
        (6, 208, 32),
    ]
    assert found.problem is None


@pytest.mark.parametrize(
    ("links", "words"),
    [
        pytest.param([(100, 8, 16, 200), (200, 8, 16, 100)], "leads back", id="a loop"),
        pytest.param([(100, 8, 16, 100)], "leads back", id="itself"),
        pytest.param([(100, 8, 16, 300)], "broken", id="no link there"),
        pytest.param([(100, 8, 16, 9000)], "broken", id="beyond the end"),
        pytest.param([], "broken", id="no first link"),
    ],
)
def test_a_chain_that_goes_wrong_is_a_problem_and_keeps_what_was_read(links, words):
    found = layout(chain(*links))
    assert words in found.problem
    assert found.partitions[0].number == 1


def test_a_chain_without_an_end_is_not_followed_for_ever():
    many = MOST_LOGICAL_PARTITIONS + 50
    links = [(100 + index, 1, 1, 101 + index) for index in range(many)]
    found = layout(chain(*links))
    assert str(MOST_LOGICAL_PARTITIONS) in found.problem
    assert len(found.partitions) == 1 + MOST_LOGICAL_PARTITIONS


@pytest.mark.parametrize(
    "sector",
    [
        pytest.param(mbr(), id="the signature alone"),
        pytest.param(mbr((False, 0x83, 0, 16)), id="a partition that begins at the sector itself"),
        pytest.param(mbr((False, 0x83, 1 << 30, 16)), id="a partition beyond the end"),
        pytest.param(b"\xeb\x3c\x90MSDOS5.0".ljust(446, b"\0") + b"not a table" * 5 + bytes(9) + b"\x55\xaa", id="FAT"),
    ],
)
def test_a_boot_signature_without_credible_entries_is_no_table(sector):
    assert layout(sector.ljust(8192, b"\0")).table is None


def test_partitions_that_overlap_or_leave_the_disk_are_told_and_kept():
    disk = mbr((False, 0x83, 8, 16), (False, 0x83, 20, 1 << 31)).ljust(64 * SECTOR, b"\0")
    found = layout(disk)
    assert [p.is_inside for p in found.partitions] == [True, False]
    assert found.notes == ("partition 2 reaches beyond the end of the disk", "partitions 1 and 2 overlap")


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_is_read_by_either_length_of_a_sector(sector):
    disk = gpt(gpt_entry(40, 99, ESP, "EFI", attributes=4), gpt_entry(100, 199), sector=sector)
    found = layout(disk)
    assert (found.table, found.sector_bytes, found.problem, found.notes) == (PartitionTable.GPT, sector, None, ())
    esp, root = found.partitions
    assert (esp.start_bytes, esp.size_bytes, esp.kind, esp.label) == (40 * sector, 60 * sector, str(ESP), "EFI")
    assert (esp.is_active, root.is_active, root.uuid, root.number) == (True, False, str(OWN), 2)


def test_where_the_first_gpt_is_damaged_its_backup_is_read_and_that_is_told():
    disk = gpt(gpt_entry(40, 99))
    disk[SECTOR + 40] ^= 1
    found = layout(disk)
    assert [p.start_bytes for p in found.partitions] == [40 * SECTOR]
    assert found.problem is None
    assert "the sum over the header at byte 512 is wrong" in found.notes[0]


def test_where_the_first_gpt_is_gone_its_backup_is_read():
    disk = gpt(gpt_entry(40, 99))
    put(disk, SECTOR, bytes(SECTOR))
    found = layout(disk)
    assert len(found.partitions) == 1
    assert found.notes


def test_where_both_are_damaged_it_is_a_gpt_of_which_nothing_is_known():
    disk = gpt(gpt_entry(40, 99))
    disk[SECTOR * 2] ^= 1
    disk[-SECTOR + 40] ^= 1
    found = layout(disk)
    assert (found.table, found.partitions) == (PartitionTable.GPT, ())
    assert "sum over its entries" in found.problem
    assert "end of the disk" in found.problem


def test_a_backup_that_says_something_else_is_told():
    disk = gpt(gpt_entry(40, 99))
    other = gpt(gpt_entry(40, 120))
    disk[-40 * SECTOR :] = other[-40 * SECTOR :]
    assert layout(disk).notes == ("the GPT and its backup do not agree",)


def test_a_disk_that_was_made_larger_has_its_table_and_a_note():
    found = layout(gpt(gpt_entry(40, 99)) + bytes(SECTOR * 10))
    assert len(found.partitions) == 1
    assert "made larger" in found.notes[0]


def test_a_gpt_that_no_mbr_announces_counts_for_nothing_and_is_told():
    found = layout(gpt(gpt_entry(40, 99), protective=False))
    assert found.table is None
    assert "without an MBR" in found.notes[0]
    disk = gpt(gpt_entry(40, 99), protective=False)
    put(disk, 0, mbr((False, 0x83, 8, 16)))
    found = layout(disk)
    assert (found.table, len(found.partitions)) == (PartitionTable.MBR, 1)
    assert "as well" in found.notes[0]


def test_a_hybrid_is_read_as_gpt_and_told():
    disk = gpt(gpt_entry(40, 99))
    put(disk, 0, mbr((False, 0xEE, 1, 39), (True, 0x83, 40, 60)))
    found = layout(disk)
    assert found.table is PartitionTable.GPT
    assert "beside the GPT" in found.notes[0]


@pytest.mark.parametrize(
    ("count", "entry_bytes"),
    [
        pytest.param(2**32 - 1, 128, id="four thousand million entries"),
        pytest.param(MOST_TABLE_BYTES // 128 + 1, 128, id="one too many"),
        pytest.param(1, 2**32 - 8, id="a huge entry"),
        pytest.param(128, 64, id="short entries"),
        pytest.param(0, 128, id="none"),
    ],
)
def test_entries_without_measure_are_not_read(count, entry_bytes):
    asked = []
    disk = gpt(gpt_entry(40, 99))
    for own, other in ((1, 2047), (2047, 1)):
        put(disk, own * SECTOR, header(own, other, 2, b"", count=count, entry_bytes=entry_bytes))

    def read(start, length):
        asked.append(length)
        return bytes(disk[start : start + length])

    found = read_partitions(read, len(disk))
    assert found.problem is not None
    assert max(asked) <= MOST_TABLE_BYTES


def test_a_label_cannot_steer_a_terminal():
    disk = gpt(gpt_entry(40, 99, name="a\x1b[2Jb\u202ec"))
    assert layout(disk).partitions[0].label == "a?[2Jb?c"


@given(st.binary(max_size=600), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_it_raise(noise, at):
    disk = gpt(gpt_entry(40, 99), gpt_entry(100, 199))
    put(disk, at, noise)
    found = layout(disk[: 2048 * SECTOR])
    assert found.table is partition_table_of(lambda start, length: bytes(disk[start : start + length]), len(disk))


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([0, 5, 15, 0x83, 0xEE]), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)
        ),
        max_size=4,
    ),
    st.binary(max_size=4096),
)
@settings(max_examples=60, deadline=None)
def test_no_entries_make_it_raise(entries, rest):
    layout(mbr(*entries) + rest)
