# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.conversion.disks import vdi
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError
from coppice.model.image import DiskFormat
from coppice.testing import disks
from coppice.testing.disks import MIB, SECTOR

pytestmark = pytest.mark.unit


def found(content: bytes):
    window = BytesWindow(content)
    assert vdi.matches(window)
    return vdi.look(window, ConversionLimits(), "disk.vdi")


def test_a_dynamic_image_is_told_with_its_size_and_what_it_holds():
    seen = found(disks.vdi())
    assert (seen.format, seen.variant, seen.virtual_size_bytes) == (DiskFormat.VDI, "dynamic", 4 * MIB)
    assert seen.allocated_bytes == 2 * MIB


def test_a_static_image_has_all_its_blocks():
    seen = found(disks.vdi(content=dict.fromkeys(range(4), b"x"), kind=2))
    assert (seen.variant, seen.allocated_bytes) == ("static", 4 * MIB)


def test_blocks_that_were_never_written_and_such_as_were_discarded_are_nowhere():
    assert found(disks.vdi(entries={1: 0xFFFFFFFE, 3: 0xFFFFFFFF})).allocated_bytes == 2 * MIB


def test_a_size_that_is_no_whole_sector_is_rounded_up_as_qemu_does():
    assert found(disks.vdi(size=4 * MIB - 700)).virtual_size_bytes == 4 * MIB - SECTOR


@pytest.mark.threat("T63")
def test_a_block_that_is_used_twice_is_told_with_the_place_of_the_second():
    with pytest.raises(CorruptImageError) as caught:
        found(disks.vdi(entries={3: 1}))
    assert caught.value.context["offset"] == SECTOR + 3 * 4
    assert "block 1 is used twice" in caught.value.message
