# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest

from coppice.conversion.disks import vhdx as reader
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing import vhdx
from coppice.testing.vhdx import MIB

pytestmark = pytest.mark.unit


class Sparse:
    """An image of which all but some stretches are zeros."""

    def __init__(self, size_bytes: int, pieces: dict[int, bytes]) -> None:
        self.size_bytes = size_bytes
        self._pieces = pieces

    def read(self, start: int, length: int) -> bytes:
        content = bytearray(max(0, min(length, self.size_bytes - start)))
        for at, piece in self._pieces.items():
            begin, end = max(start, at), min(start + len(content), at + len(piece))
            if begin < end:
                content[begin - start : end - start] = piece[begin - at : end - at]
        return bytes(content)


def found(content: bytes):
    window = BytesWindow(content)
    assert reader.matches(window)
    return reader.look(window, ConversionLimits(), "disk.vhdx")


def test_a_dynamic_image_is_told_with_its_size_and_what_it_holds():
    seen = found(vhdx.vhdx())
    assert (seen.format, seen.variant, seen.virtual_size_bytes) == (DiskFormat.VHDX, "dynamic", 4 * MIB)
    assert seen.allocated_bytes == MIB


def test_an_image_whose_blocks_stay_is_fixed():
    items = vhdx.metadata({**vhdx.GOOD_ITEMS, vhdx.PARAMETERS: struct.pack("<II", MIB, 1)})
    bat = tuple(vhdx.DATA + number * MIB | 6 for number in (2, 0, 3, 1))
    seen = found(vhdx.vhdx(items=items, bat=bat, content=(b"x",) * 4))
    assert (seen.variant, seen.allocated_bytes) == ("fixed", 4 * MIB)


def test_the_header_with_the_higher_number_counts():
    dirty = vhdx.header(7, log=b"\x06" * 16)
    assert found(vhdx.vhdx(headers=(dirty, vhdx.header(8)))).virtual_size_bytes == 4 * MIB
    assert found(vhdx.vhdx(headers=(vhdx.header(9), vhdx.header(8, log=b"\x06" * 16)))).virtual_size_bytes == 4 * MIB
    with pytest.raises(CorruptImageError, match="its log is not empty"):
        found(vhdx.vhdx(headers=(dirty, vhdx.header(6))))


def test_two_headers_that_are_the_same_are_taken():
    assert found(vhdx.vhdx(headers=(vhdx.header(8), vhdx.header(8)))).virtual_size_bytes == 4 * MIB


def test_an_image_without_a_log_is_taken():
    headers = (vhdx.header(7), vhdx.header(8, log_length=0, log_offset=0))
    assert found(vhdx.vhdx(headers=headers)).virtual_size_bytes == 4 * MIB


def test_regions_and_items_that_need_not_be_known_are_passed_over():
    regions = (*vhdx.GOOD_REGIONS, (b"\x07" * 16, vhdx.DATA, MIB, 0))
    table = vhdx.region_table(regions)
    items = vhdx.metadata({**vhdx.GOOD_ITEMS, b"\x09" * 16: b"x"}, unknown_flags=0)
    bat = (vhdx.DATA + MIB | 6, 0, 0, 0)
    image = vhdx.vhdx(tables=(table, table), items=items, bat=bat, content=(b"x", b"y"))
    assert found(image).allocated_bytes == MIB


def test_a_block_does_not_lie_in_a_region_even_where_that_need_not_be_known():
    table = vhdx.region_table((*vhdx.GOOD_REGIONS, (b"\x07" * 16, vhdx.DATA, MIB, 0)))
    with pytest.raises(CorruptImageError, match="overlap"):
        found(vhdx.vhdx(tables=(table, table)))


@pytest.mark.threat("T58")
def test_after_each_chunk_of_blocks_comes_an_entry_for_a_bitmap_which_only_a_child_has():
    # Of blocks of 256 MiB, 16 make a chunk: the entry 16 of a disk of 5 GiB is the bitmap's.
    block, size = 256 * MIB, 20 * 256 * MIB
    items = vhdx.metadata(
        {
            **vhdx.GOOD_ITEMS,
            vhdx.PARAMETERS: struct.pack("<II", block, 0),
            vhdx.DISK_SIZE: struct.pack("<Q", size),
        }
    )

    def image(bat: list[int]) -> Sparse:
        whole = vhdx.vhdx(items=items, bat=tuple(bat), content=())
        return Sparse(vhdx.DATA + 2 * block, {0: whole})

    bat = [0] * 21
    bat[17] = vhdx.DATA | 6
    bat[20] = vhdx.DATA + block | 6
    assert reader.look(image(bat), ConversionLimits(), "x").allocated_bytes == 2 * block
    bat[16] = vhdx.DATA | 6
    with pytest.raises(OutsideReferenceError, match="a bitmap of what comes from a parent"):
        reader.look(image(bat), ConversionLimits(), "x")


@pytest.mark.threat("T63")
def test_an_allocation_table_that_is_too_short_for_its_disk_is_refused():
    size = struct.pack("<Q", (MIB // 8 + 1) * MIB)
    items = vhdx.metadata({**vhdx.GOOD_ITEMS, vhdx.DISK_SIZE: size})
    window = Sparse(400 * 1024 * MIB, {0: vhdx.vhdx(items=items)})
    with pytest.raises(CorruptImageError, match="its allocation table has 1048576 bytes"):
        reader.look(window, ConversionLimits(), "x")


@pytest.mark.threat("T63")
def test_a_block_in_a_file_of_exabytes_is_refused_and_no_number_overflows():
    window = Sparse(2**63 - 1, {0: vhdx.vhdx(bat=(2**62 | 6, 0, 0, 0))})
    with pytest.raises(UnsupportedImageError, match="would lie beyond"):
        reader.look(window, ConversionLimits(), "x")
