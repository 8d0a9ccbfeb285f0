# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import zlib

import pytest

from coppice.conversion.disks import vmdk
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, ImageRefusedError, OutsideReferenceError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing import disks
from coppice.testing.disks import MIB, SECTOR, patched, sparse_vmdk, stream_vmdk, vmdk_text

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()


def found(content: bytes, limits: ConversionLimits = LIMITS):
    window = BytesWindow(content)
    assert vmdk.matches(window)
    return vmdk.look(window, limits, "disk.vmdk")


def test_a_sparse_image_is_told_with_its_size_and_what_it_holds():
    seen = found(sparse_vmdk())
    assert (seen.format, seen.variant, seen.virtual_size_bytes) == (DiskFormat.VMDK, "monolithicSparse", MIB)
    assert seen.allocated_bytes == 2 * disks.GRAIN
    assert seen.notes == ()


def test_a_stream_is_told_with_its_size_and_what_it_holds():
    seen = found(stream_vmdk())
    assert (seen.format, seen.variant, seen.virtual_size_bytes) == (DiskFormat.VMDK, "streamOptimized", MIB)
    assert seen.allocated_bytes == 2 * disks.GRAIN


def test_an_image_without_content_is_taken():
    assert found(sparse_vmdk(grains={})).allocated_bytes == 0
    assert found(stream_vmdk(grains={})).allocated_bytes == 0


def test_grains_may_be_in_any_order_in_the_file():
    grains = {number: bytes([number + 1]) for number in (9, 3, 15, 0)}
    assert found(sparse_vmdk(grains=grains)).allocated_bytes == 4 * disks.GRAIN
    assert found(stream_vmdk(grains=grains)).allocated_bytes == 4 * disks.GRAIN


def test_of_the_last_grain_only_what_the_disk_has_need_be_in_the_file():
    text = vmdk_text(extents='RW 1921 SPARSE "disk.vmdk"')
    image = sparse_vmdk(grains={15: b"last"}, descriptor=text, capacity=1921)
    assert found(image[: -127 * SECTOR]).virtual_size_bytes == 1921 * SECTOR
    with pytest.raises(CorruptImageError, match="its grain 15 would lie"):
        found(image[: -127 * SECTOR - 1])


def test_a_grain_of_zeros_is_taken_where_the_header_says_that_there_are_such():
    zeroed = patched(sparse_vmdk(version=2, flags=0b111), disks.GT * SECTOR, "<I", 1)
    zeroed = patched(zeroed, disks.RGT * SECTOR, "<I", 1)
    assert found(zeroed).allocated_bytes == disks.GRAIN
    without = patched(patched(sparse_vmdk(), disks.GT * SECTOR, "<I", 1), disks.RGT * SECTOR, "<I", 1)
    with pytest.raises(CorruptImageError, match="overlap"):
        found(without)


def test_a_table_that_is_nowhere_stands_for_zeros():
    text = vmdk_text(extents='RW 131072 SPARSE "disk.vmdk"')
    assert found(sparse_vmdk(descriptor=text, capacity=131072)).virtual_size_bytes == 64 * MIB


def test_the_copies_of_a_table_count_only_where_the_header_says_that_there_are_copies():
    broken = patched(sparse_vmdk(flags=1), disks.RGT * SECTOR, "<I", 99)
    assert found(broken).variant == "monolithicSparse"


@pytest.mark.parametrize("access", ["RW", "RDONLY", "rdonly"])
def test_an_extent_may_be_read_only_as_streams_write_it(access):
    text = vmdk_text("streamOptimized", extents=f'{access} 2048 SPARSE "call-me-stream.vmdk"')
    assert found(stream_vmdk(descriptor=text)).variant == "streamOptimized"


@pytest.mark.parametrize(
    "text",
    [
        vmdk_text().replace(b"\n", b"\r\n")[: 20 * SECTOR],
        vmdk_text("MONOLITHICSPARSE"),
        vmdk_text().replace(b'createType="', b'createType = "').replace(b"CID=f", b"CID = F")[: 20 * SECTOR],
        vmdk_text(extents='RW 2048 SPARSE "Gr\xf6\xdfe (1) [x].vmdk"'),
        vmdk_text(more='ddb.uuid.parent="00000000-0000-0000-0000-000000000000"\nencoding="windows-1252"'),
    ],
    ids=["crlf", "capitals", "spaces", "odd name", "virtualbox"],
)
def test_descriptors_of_other_writers_are_taken(text):
    seen = found(sparse_vmdk(descriptor=text))
    assert (seen.virtual_size_bytes, seen.allocated_bytes) == (MIB, 2 * disks.GRAIN)


def test_a_capacity_in_whole_grains_is_taken_and_said():
    text = vmdk_text(extents='RW 2000 SPARSE "disk.vmdk"')
    assert found(sparse_vmdk(descriptor=text)).notes == (
        "the disk has 2048 sectors by its header, 2000 by its descriptor",
    )
    with pytest.raises(CorruptImageError, match="1920 sectors"):
        found(sparse_vmdk(descriptor=vmdk_text(extents='RW 1920 SPARSE "disk.vmdk"')))


@pytest.mark.threat("T60")
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "a/b.vmdk", "..", ".", "", "c:\\x.vmdk", "nbd:host:1", "json:{}", "a\x01b"]
)
def test_an_extent_that_is_not_named_as_a_file_beside_is_refused(name):
    text = vmdk_text(extents=f'RW 2048 SPARSE "{name}"')
    with pytest.raises(ImageRefusedError) as caught:
        found(sparse_vmdk(descriptor=text))
    assert isinstance(caught.value, OutsideReferenceError | CorruptImageError)


@pytest.mark.threat("T60")
@pytest.mark.parametrize("extents", ['NOACCESS 2048 SPARSE "a"', "RW 2048 ZERO", 'RW 2048 SPARSE "a" 5'])
def test_an_extent_of_another_kind_is_refused(extents):
    with pytest.raises(UnsupportedImageError, match="has the extent"):
        found(sparse_vmdk(descriptor=vmdk_text(extents=extents)))


@pytest.mark.threat("T60")
def test_a_parent_is_found_where_qemu_reads_on_behind_a_descriptor_that_fills_its_room():
    hint = b'parentFileNameHint="/etc/passwd"'
    text = vmdk_text().rstrip(b"\0")
    ended = text.ljust(SECTOR - 1, b"\n") + b"\0" + hint
    assert found(sparse_vmdk(descriptor=ended.ljust(20 * SECTOR, b"\0"), room=1)).virtual_size_bytes == MIB
    endless = text.ljust(SECTOR, b"\n") + hint
    with pytest.raises(OutsideReferenceError, match="names a parent"):
        found(sparse_vmdk(descriptor=endless.ljust(20 * SECTOR, b"\0"), room=1))


@pytest.mark.threat("T63")
def test_a_directory_that_names_one_table_very_often_is_refused_before_the_table_is_read():
    class Counting(BytesWindow):
        reads = 0

        def read(self, start: int, length: int) -> bytes:
            self.reads += 1
            return super().read(start, length)

    sectors = 2**31
    text = vmdk_text(extents=f'RW {sectors} SPARSE "disk.vmdk"')
    tables = sectors // (512 * 128)
    image = sparse_vmdk(descriptor=text, capacity=sectors, flags=1, directory=2048)
    image = image.ljust(2048 * SECTOR, b"\0") + struct.pack("<I", disks.GT) * tables
    window = Counting(image)
    with pytest.raises(CorruptImageError, match="overlap"):
        vmdk.look(window, LIMITS, "disk.vmdk")
    assert window.reads < 10


@pytest.mark.threat("T63")
def test_a_marker_counts_for_the_place_from_which_the_tables_led_to_it():
    image = stream_vmdk(grains={0: b"a", 1: b"b"})
    first, second = (image.index(struct.pack("<Q", place), disks.OVERHEAD * SECTOR) for place in (0, 128))
    swapped = patched(patched(image, first, "<Q", 128), second, "<Q", 0)
    with pytest.raises(CorruptImageError, match="has the marker of sector"):
        found(swapped)


def test_a_stream_with_a_grain_that_no_table_names_is_written_anew_for_whoever_takes_vmdk():
    image = stream_vmdk(grains={0: b"a", 1: b"b"})
    assert not found(image).must_be_rewritten
    table = image.index(struct.pack("<II", disks.OVERHEAD, disks.OVERHEAD + 1), disks.OVERHEAD * SECTOR)
    seen = found(patched(image, table + 4, "<I", 0))
    assert seen.must_be_rewritten
    assert seen.notes == ("between its grains is something that no table names",)
    assert seen.allocated_bytes == disks.GRAIN
    assert not found(sparse_vmdk(grains={0: b"a"}) + b"x" * disks.GRAIN).must_be_rewritten


def test_zeros_between_the_grains_of_a_stream_are_what_qemu_leaves_there():
    own = {"directory": disks.GD, "overhead": disks.OVERHEAD, "version": 3, "flags": disks.STREAM_FLAGS}
    packed = zlib.compress(b"b".ljust(disks.GRAIN, b"\0"))
    grain = struct.pack("<QI", 5 * 128, len(packed)) + packed
    image = sparse_vmdk(descriptor=vmdk_text("streamOptimized"), grains={5: grain}, compression=1, **own)
    place = disks.OVERHEAD + 100
    moved = image[: disks.OVERHEAD * SECTOR] + bytes(100 * SECTOR) + grain.ljust(SECTOR, b"\0")
    moved = patched(moved, disks.GT * SECTOR + 5 * 4, "<I", place)
    assert not found(moved).must_be_rewritten
    assert found(patched(moved, (place - 1) * SECTOR + 100, "B", 1)).must_be_rewritten


def test_what_lies_in_the_footer_of_a_stream_is_no_grain():
    image = stream_vmdk()
    place = (len(image) - 3 * SECTOR) // SECTOR
    table = image.index(struct.pack("<I", disks.OVERHEAD) + bytes(8), disks.OVERHEAD * SECTOR)
    forged = patched(image, len(image) - 3 * SECTOR, "<QII", 128, 16, 3)
    with pytest.raises(CorruptImageError):
        found(patched(forged, table + 4, "<I", place))


def test_the_size_is_held_against_the_limit_before_anything_is_read_of_the_tables():
    small = ConversionLimits(maximum_virtual_size_bytes=MIB - 1)
    with pytest.raises(ImageRefusedError) as caught:
        found(sparse_vmdk(directory=2**60), small)
    assert caught.value.code == "image-oversized"
