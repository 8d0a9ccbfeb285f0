# SPDX-License-Identifier: Apache-2.0
"""Which format an image is converted to, and from what: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.model import Archive
from coppice.conversion.options import MOST_BYTES
from coppice.errors import ConversionError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.conversion.model import Formats, Inspection

CHEAPEST_FIRST = (
    DiskFormat.QCOW2,  # compressed: least to store and to move
    DiskFormat.RAW,  # nothing to compute, but every byte of the disk is moved
    DiskFormat.VMDK,
    DiskFormat.VHDX,
    DiskFormat.VDI,
    DiskFormat.VHD,
    DiskFormat.OVA,  # a VMDK, and its digest as well
)
"""What a conversion may make, in the order of what it costs a site from here to the cloud."""

CHEAPEST_TO_READ = (
    DiskFormat.RAW,
    DiskFormat.VHDX,
    DiskFormat.VDI,
    DiskFormat.VHD,
    DiskFormat.QCOW2,
    DiskFormat.VMDK,
)
"""What a disk that is kept in several formats is read from: nothing to decompress comes first, zlib comes last."""


def choose(found: Inspection, accepted: Formats) -> DiskFormat:
    """Return the accepted format that costs least: the file as it is, the disk taken out of it, or a conversion.

    An ISO image is a disc and not a disk: it stays one.

    Raises:
        ConversionError: None of them can be made.
    """
    if found.is_usable_as_it_is and found.format in accepted:
        return found.format
    disk = found.disk.format
    if disk in accepted and is_taken_as_it_is(found, disk):
        return disk
    if disk is not DiskFormat.ISO:
        for candidate in CHEAPEST_FIRST:
            if candidate in accepted and found.virtual_size_bytes <= MOST_BYTES.get(
                candidate, found.virtual_size_bytes
            ):
                return candidate
    names = ", ".join(accepted) or "nothing"
    raise ConversionError(
        f"an image in the format {found.format} cannot be brought into a format that is accepted ({names})",
        resolution="Add a format to `formats` of that cloud in the settings, or do not select this image for it.",
        context={"source": str(found.format), "accepted": [str(each) for each in accepted]},
    )


def is_taken_as_it_is(found: Inspection, wanted: DiskFormat) -> bool:
    """Tell whether the disk itself, out of whatever it is packed in, is what is wanted: no byte of it is converted."""
    return found.disk.format is wanted and not found.disk.must_be_rewritten


def is_costly_to_open(found: Inspection) -> bool:
    """Tell whether a disk has to be unpacked, or is of a kind that is slow to read.

    Then what was made of it before, in any format, is the cheaper source.
    """
    packaging = found.packaging
    if packaging is not None and packaging.compression is not None:
        return True
    return packaging is not None and packaging.archive is Archive.OVA and found.disk.format is DiskFormat.VMDK


def cheapest_to_read(kept: Iterable[DiskFormat]) -> DiskFormat | None:
    """Return the one of several formats of the same disk that is read fastest; None: there is none."""
    there = frozenset(kept)
    return next((each for each in CHEAPEST_TO_READ if each in there), None)
