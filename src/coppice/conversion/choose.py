# SPDX-License-Identifier: Apache-2.0
"""Which format an image is converted to: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import ConversionError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import Formats

CHEAPEST_FIRST = (
    DiskFormat.QCOW2,  # compressed: least to store and to move
    DiskFormat.RAW,  # nothing to compute, but every byte of the disk is moved
    DiskFormat.VMDK,
    DiskFormat.VHDX,
    DiskFormat.VDI,
    DiskFormat.VHD,
)
"""What a conversion may make, in the order of what it costs a site from here to the cloud."""


def choose(source: DiskFormat, accepted: Formats) -> DiskFormat:
    """Return ``source`` where it is accepted, else the cheapest accepted format that it can be converted to.

    Raises:
        ConversionError: There is none.
    """
    if source in accepted:
        return source
    if source is not DiskFormat.ISO:
        for candidate in CHEAPEST_FIRST:
            if candidate in accepted:
                return candidate
    names = ", ".join(accepted) or "nothing"
    raise ConversionError(
        f"an image in the format {source} cannot be brought into a format that is accepted ({names})",
        resolution="Add a format to `formats` of that cloud in the settings, or do not select this image for it.",
        context={"source": str(source), "accepted": [str(each) for each in accepted]},
    )
