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
def test_of_programs_that_go_by_the_current_size_the_geometry_does_not_matter(creator):
    seen = found(dynamic_vhd(creator=creator, cylinders=1))
    assert (seen.virtual_size_bytes, seen.notes, seen.must_be_rewritten) == (4 * MIB, (), False)


@pytest.mark.parametrize("creator", [b"vpc ", b"qemu", b"vbox"])
@pytest.mark.parametrize("make", [dynamic_vhd, fixed_vhd])
def test_of_other_programs_the_current_size_counts_and_an_image_that_hides_its_end_is_written_anew(make, creator):
    seen = found(make(creator=creator))
    assert seen.virtual_size_bytes == 4 * MIB
    assert seen.notes == (
        f"its current size of {4 * MIB} bytes counts; programs that go by its geometry see {GEOMETRY_BYTES}",
    )
    assert seen.must_be_rewritten


def test_the_largest_geometry_stands_for_a_disk_that_is_larger_than_it_can_tell():
    seen = found(dynamic_vhd(creator=b"vpc ", cylinders=65535, heads=16, sectors=255))
    assert (seen.virtual_size_bytes, seen.notes) == (4 * MIB, ())


def test_behind_its_current_size_a_disk_that_is_longer_by_its_geometry_has_zeros():
    rounded = {"creator": b"vpc ", "cylinders": 124}
    assert found(dynamic_vhd(**rounded)).virtual_size_bytes == 4 * MIB
    table = (0xFFFFFFFF, 0xFFFFFFFF, disks.VHD_FIRST_BLOCK // SECTOR)
    more = {"table": table, "header": {"entries": 3}, **rounded}
    behind = 124 * 4 * 17 * SECTOR - 4 * MIB
    assert found(dynamic_vhd(content=b"\0" * behind + b"x", **more)).virtual_size_bytes == 4 * MIB
    with pytest.raises(UnsupportedImageError, match="content between the two"):
        found(dynamic_vhd(content=b"\0" * (behind - 1) + b"x", **more))


def test_a_size_that_is_no_whole_sector_is_rounded_down_as_qemu_does():
    assert found(dynamic_vhd(current=4 * MIB - 1)).virtual_size_bytes == 4 * MIB - SECTOR


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
