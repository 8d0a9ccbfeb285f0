# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.conversion.choose import cheapest_to_read, choose, is_costly_to_open, is_taken_as_it_is
from coppice.conversion.model import Archive, Compression, Detection, Inspection, Packaging
from coppice.errors import ConversionError
from coppice.model.image import DiskFormat

pytestmark = pytest.mark.unit
F = DiskFormat
GIB = 1024**3


def found(disk, *, archive=None, compression=None, size=GIB, must_be_rewritten=False):
    packed = archive is not None or compression is not None
    is_ova = archive is Archive.OVA and compression is None
    return Inspection(
        format=F.OVA if is_ova else disk,
        size_bytes=1000,
        virtual_size_bytes=size,
        disk=Detection(format=disk, virtual_size_bytes=size, must_be_rewritten=must_be_rewritten),
        packaging=Packaging(archive=archive, compression=compression) if packed else None,
    )


@pytest.mark.parametrize("disk", sorted(set(F) - {F.OVA}))
def test_what_is_accepted_as_it_is_stays_so_wherever_it_stands_in_the_order(disk):
    assert choose(found(disk), (*(each for each in F if each is not disk), disk)) is disk


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ((F.RAW, F.QCOW2), F.QCOW2),
        ((F.VHD, F.RAW), F.RAW),
        ((F.VDI, F.VHDX, F.VMDK), F.VMDK),
        ((F.OVA, F.VHD), F.VHD),
        ((F.OVA, F.ISO), F.OVA),
    ],
)
def test_else_the_cheapest_of_what_is_accepted_is_made(accepted, wanted):
    source = next(each for each in (F.VDI, F.QCOW2) if each not in accepted)
    assert choose(found(source), accepted) is wanted


def test_an_ova_is_taken_whole_where_it_is_accepted_even_before_its_disk():
    assert choose(found(F.VMDK, archive=Archive.OVA), (F.VMDK, F.OVA)) is F.OVA


def test_the_disk_of_an_archive_is_taken_out_of_it_rather_than_converted():
    assert choose(found(F.VMDK, archive=Archive.OVA), (F.QCOW2, F.VMDK)) is F.VMDK
    assert choose(found(F.RAW, archive=Archive.TAR), (F.QCOW2, F.RAW)) is F.RAW


def test_what_is_compressed_is_unpacked_rather_than_converted():
    assert choose(found(F.RAW, compression=Compression.XZ), (F.QCOW2, F.RAW)) is F.RAW
    assert choose(found(F.VMDK, archive=Archive.OVA, compression=Compression.GZIP), (F.OVA, F.VMDK)) is F.VMDK


def test_what_is_packed_is_never_given_to_a_cloud_as_it_is():
    packed = found(F.QCOW2, compression=Compression.GZIP)
    assert not packed.is_usable_as_it_is
    assert is_taken_as_it_is(packed, choose(packed, (F.QCOW2,)))


def test_an_image_that_holds_more_than_its_disk_is_written_anew():
    snapshots = found(F.QCOW2, must_be_rewritten=True)
    assert not snapshots.is_usable_as_it_is
    assert choose(snapshots, (F.QCOW2,)) is F.QCOW2
    assert not is_taken_as_it_is(snapshots, F.QCOW2)
    assert choose(snapshots, (F.QCOW2, F.RAW)) is F.QCOW2


@pytest.mark.parametrize("compression", [None, Compression.XZ])
def test_an_iso_image_stays_one_and_is_made_of_nothing_else(compression):
    assert choose(found(F.ISO, compression=compression), (F.RAW, F.ISO)) is F.ISO
    with pytest.raises(ConversionError, match="cannot be brought"):
        choose(found(F.ISO, compression=compression), (F.RAW, F.QCOW2))
    with pytest.raises(ConversionError):
        choose(found(F.RAW), (F.ISO,))


def test_a_cloud_that_accepts_nothing_is_told_so():
    with pytest.raises(ConversionError, match="nothing"):
        choose(found(F.RAW), ())


def test_a_format_that_cannot_hold_the_disk_is_not_chosen():
    large = found(F.RAW, size=2041 * GIB)
    assert choose(large, (F.VHD, F.OVA)) is F.OVA
    with pytest.raises(ConversionError):
        choose(large, (F.VHD,))
    assert choose(found(F.RAW, size=2040 * GIB), (F.VHD, F.OVA)) is F.VHD


def test_what_was_unpacked_before_is_a_better_source_than_what_is_packed():
    assert is_costly_to_open(found(F.RAW, compression=Compression.XZ))
    assert is_costly_to_open(found(F.VMDK, archive=Archive.OVA))
    assert not is_costly_to_open(found(F.RAW, archive=Archive.TAR))
    assert not is_costly_to_open(found(F.QCOW2))
    assert cheapest_to_read([F.VMDK, F.QCOW2]) is F.QCOW2
    assert cheapest_to_read([F.QCOW2, F.RAW]) is F.RAW
    assert cheapest_to_read([F.OVA, F.ISO]) is None
