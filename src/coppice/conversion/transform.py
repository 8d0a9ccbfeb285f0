# SPDX-License-Identifier: Apache-2.0
"""Transform: write the disk of an opened image in another format, with qemu-img in the cage.

The disk was looked at before; it is read where it lies, also inside of an archive, and nothing is written twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.conversion.choose import is_taken_as_it_is
from coppice.conversion.qemu import QemuImg
from coppice.conversion.target import write_disk
from coppice.conversion.unpack import opened_disk
from coppice.errors import ConversionError, ImageRefusedError
from coppice.model.image import DiskFormat
from coppice.monitor import Unit

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits, Inspection
    from coppice.conversion.options import Options
    from coppice.conversion.unpack import OpenedDisk
    from coppice.monitor import Monitor

_SECTOR = 512
_ANY_EXPANSION = 2**62


def transform(
    disk: OpenedDisk,
    wanted: DiskFormat,
    destination: Path,
    *,
    options: Options,
    limits: ConversionLimits,
    monitor: Monitor,
) -> Inspection:
    """Write a disk in the format ``wanted``; return what was written, as it was found by its content.

    What has the format already is taken as it is: moved out of the spool, or copied out of its archive. An archive is
    held against its manifest before any tool reads it.

    Args:
        disk: An opened image.
        wanted: The format. An ISO image is made of nothing but an ISO image.
        destination: The new file, whose folder is there. What it holds is lost; after an error, it holds nothing good.
        options: How it is written.
        limits: Bounds on qemu-img.
        monitor: Where progress is told.

    Raises:
        ManifestError: The archive is not what its manifest says.
        ConversionError: qemu-img failed, or wrote what was not wanted.
        CageError: It cannot be shut in as the options demand.
        ToolMissingError: qemu-img is not installed.
        NoSpaceError: The result does not fit on the disk.
        StorageError: It cannot be written.
    """
    found = disk.inspection
    if wanted is DiskFormat.ISO and found.disk.format is not DiskFormat.ISO:
        raise ConversionError(
            f"a {found.disk.format} disk cannot be made an ISO image", resolution="Choose another format."
        )
    _verify_manifest(disk, monitor)
    if is_taken_as_it_is(found, wanted):
        disk.take(destination)
    else:
        label = f"converting {found.disk.format} to {wanted}"
        with monitor.task(label, total=found.virtual_size_bytes, unit=Unit.BYTES) as task:
            write_disk(disk, wanted, destination, options=options, tool=QemuImg(limits, options), task=task)
    return _checked(found, wanted, destination, limits)


def of_own_making(limits: ConversionLimits) -> ConversionLimits:
    """Return the bounds on what was made here: an empty disk compresses to nearly nothing, and is no bomb then."""
    return replace(limits, maximum_expansion=_ANY_EXPANSION)


def _verify_manifest(disk: OpenedDisk, monitor: Monitor) -> None:
    if disk.layout is None or not disk.layout.bytes_to_verify:
        return
    total = disk.layout.bytes_to_verify
    with monitor.task("verifying the manifest", total=total, unit=Unit.BYTES) as task:
        disk.verify_manifest(task)


def _checked(found: Inspection, wanted: DiskFormat, destination: Path, limits: ConversionLimits) -> Inspection:
    try:
        with opened_disk(destination, of_own_making(limits), spool=None) as disk:
            made = disk.inspection
    except ImageRefusedError as problem:
        raise ConversionError(
            "qemu-img said that it was done, and what it wrote is no good", details=problem.message
        ) from problem
    if made.format is not wanted or _sectors(made.virtual_size_bytes) != _sectors(found.virtual_size_bytes):
        raise ConversionError(
            f"qemu-img wrote a {made.format} disk of {made.virtual_size_bytes} bytes; "
            f"{wanted} with {found.virtual_size_bytes} was wanted"
        )
    return made


def _sectors(size_bytes: int) -> int:
    return -(-size_bytes // _SECTOR)
