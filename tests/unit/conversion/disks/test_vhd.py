# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.conversion.disks import vhd
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing import disks
from coppice.testing.disks import MIB, SECTOR, dynamic_vhd, fixed_vhd

pytestmark = pytest.mark.unit
GEOMETRY_BYTES = 120 * 4 * 17 * SECTOR


def found(content: bytes):
    window = BytesWindow(content)
    assert vhd.matches(window)
    return vhd.look(window, ConversionLimits(), "disk.vhd")


def test_a_dynamic_image_is_told_with_its_size_and_what_it_holds():
    seen = found(dynamic_vhd())
    assert (seen.format, seen.variant, seen.virtual_size_bytes) == (DiskFormat.VHD, "dynamic", 4 * MIB)
    assert (seen.allocated_bytes, seen.notes) == (2 * MIB, ())


def test_a_fixed_image_is_known_by_its_end_and_holds_all_of_its_disk():
    seen = found(fixed_vhd())
    assert (seen.variant, seen.virtual_size_bytes, seen.allocated_bytes) == ("fixed", 4 * MIB, 4 * MIB)


@pytest.mark.parametrize("creator", [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"])
def test_the_current_size_counts_for_programs_that_go_by_it(creator):
    assert found(dynamic_vhd(creator=creator)).virtual_size_bytes == 4 * MIB


@pytest.mark.parametrize("creator", [b"vpc ", b"qemu", b"vbox"])
@pytest.mark.parametrize("make", [dynamic_vhd, fixed_vhd])
def test_the_geometry_counts_for_others_and_the_difference_is_said(make, creator):
    seen = found(make(creator=creator))
    assert seen.virtual_size_bytes == GEOMETRY_BYTES
    assert seen.notes == (
        f"the footer's current size is {4 * MIB} bytes, its geometry gives {GEOMETRY_BYTES}; between them are zeros",
    )


def test_the_largest_geometry_stands_for_a_disk_that_is_larger_than_it_can_tell():
    assert found(dynamic_vhd(creator=b"vpc ", cylinders=65535, heads=16, sectors=255)).virtual_size_bytes == 4 * MIB


@pytest.mark.parametrize("make", [dynamic_vhd, fixed_vhd])
def test_content_that_programs_which_go_by_the_geometry_would_lose_is_no_reason_to_lose_it(make):
    size = 2 * MIB if make is dynamic_vhd else 4 * MIB
    kept, lost = GEOMETRY_BYTES - (4 * MIB - size), size - 1
    assert found(make(creator=b"vpc ", content=b"\0" * (kept - 1) + b"x")).notes
    with pytest.raises(UnsupportedImageError, match="content between the two"):
        found(make(creator=b"vpc ", content=b"\0" * kept + b"x"))
    with pytest.raises(UnsupportedImageError, match="content between the two"):
        found(make(creator=b"vpc ", content=b"\0" * lost + b"x"))
    assert found(make(content=b"\0" * lost + b"x")).virtual_size_bytes == 4 * MIB


def test_sectors_that_a_bitmap_calls_unused_may_be_zeros():
    bitmap = b"\x80" + bytes(SECTOR - 1)
    assert found(dynamic_vhd(bitmap=bitmap, content=b"x" * SECTOR)).allocated_bytes == 2 * MIB
    with pytest.raises(CorruptImageError, match="calls unused has content") as caught:
        found(dynamic_vhd(bitmap=bitmap, content=b"x" * (SECTOR + 1)))
    assert caught.value.context["offset"] == disks.VHD_FIRST_BLOCK + 2 * SECTOR
    late = b"\0" * (2 * MIB - 1) + b"x"
    with pytest.raises(CorruptImageError, match="calls unused has content"):
        found(dynamic_vhd(bitmap=bitmap, content=late))


def test_a_table_may_have_room_for_a_disk_that_grows():
    table = (0xFFFFFFFF, disks.VHD_FIRST_BLOCK // SECTOR, *(0xFFFFFFFF,) * 60)
    assert found(dynamic_vhd(table=table, header={"entries": 62})).virtual_size_bytes == 4 * MIB


def test_a_checksum_is_the_complement_of_the_sum_of_all_other_bytes():
    assert vhd.checksum(b"\x01" * 8 + b"\xff" * 4 + b"\x02", 8) == 0xFFFFFFFF - 10
