# SPDX-License-Identifier: Apache-2.0
"""How images are written: the options of qemu-img for each format, found by measuring, and what a site may choose."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.model.requirements import Requirements

RECIPE = 1
"""Rises when what is made of the same source is to be made anew: part of the key under which results are kept."""
QEMU_NAMES = {
    DiskFormat.RAW: "raw",
    DiskFormat.ISO: "raw",
    DiskFormat.QCOW2: "qcow2",
    DiskFormat.VMDK: "vmdk",
    DiskFormat.VDI: "vdi",
    DiskFormat.VHD: "vpc",
    DiskFormat.VHDX: "vhdx",
}
"""What QEMU calls the formats of disks."""
_MANY_AT_ONCE = ("-W", "-m", "16")
"""Sixteen pieces are worked on at once and written as they are done: compression takes all processors. Where in the
file a cluster lies then depends on chance, so that two conversions of one image differ, and only their guests' bytes
are equal; the digest of each is recorded."""
_GIB = 1024**3
GUEST_FORMATS = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose file is what a guest sees, byte for byte."""
MOST_BYTES = {DiskFormat.VHD: 2040 * _GIB, DiskFormat.VHDX: 64 * 1024 * _GIB}
"""The largest disk that a format holds, where that is little: 2040 GiB for a VHD (Virtual Hard Disk Image Format
Specification, 2006), 64 TiB for a VHDX (MS-VHDX, 2.6.2.1)."""


class Qcow2Compression(StrEnum):
    """How qcow2 images are compressed."""

    ZSTD = "zstd"
    ZLIB = "zlib"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be chosen about a conversion.

    Attributes:
        qcow2_compression: Of qcow2 images.
        name: Of an OVA, as its descriptor has it.
        requirements: Of an OVA; None: what the source's own descriptor says.
        require_cage: Whether nothing is converted where qemu-img cannot be shut in fully.
    """

    qcow2_compression: Qcow2Compression = Qcow2Compression.ZSTD
    name: str = "appliance"
    requirements: Requirements | None = None
    require_cage: bool = False


def joined(told: Requirements | None, wished: Requirements | None) -> Requirements | None:
    """Return what an image needs, as its own descriptor told it, and above that what is wished."""
    if told is None or wished is None:
        return wished or told
    given = {each.name: value for each in fields(wished) if (value := getattr(wished, each.name)) is not None}
    return replace(told, **given)


def arguments(wanted: DiskFormat, options: Options) -> tuple[str, ...]:
    """Return the arguments of ``qemu-img convert`` with which a disk of that format is written."""
    if wanted is DiskFormat.QCOW2 and options.qcow2_compression is not Qcow2Compression.NONE:
        return (*_MANY_AT_ONCE, "-c", "-o", f"compat=1.1,compression_type={options.qcow2_compression}")
    return _ARGUMENTS[wanted]


def identity(wanted: DiskFormat, options: Options) -> tuple[str, ...]:
    """Return all that decides what is made of the same source by the same qemu-img."""
    of_ova = (options.name, repr(options.requirements)) if wanted is DiskFormat.OVA else ()
    return (str(RECIPE), str(wanted), *arguments(wanted, options), *of_ova)


def is_compressed(wanted: DiskFormat, options: Options) -> bool:
    """Tell whether what is written is mostly smaller than the disk's data."""
    if wanted is DiskFormat.QCOW2:
        return options.qcow2_compression is not Qcow2Compression.NONE
    return wanted in {DiskFormat.VMDK, DiskFormat.OVA}


_STREAM_OPTIMIZED = ("-m", "16", "-o", "subformat=streamOptimized")
_ARGUMENTS: dict[DiskFormat, tuple[str, ...]] = {
    DiskFormat.RAW: _MANY_AT_ONCE,
    # Nothing is converted to an ISO image; one that lies in something else is kept like a result.
    DiskFormat.ISO: (),
    DiskFormat.QCOW2: (*_MANY_AT_ONCE, "-o", "compat=1.1"),
    DiskFormat.VMDK: _STREAM_OPTIMIZED,
    DiskFormat.OVA: _STREAM_OPTIMIZED,
    DiskFormat.VDI: _MANY_AT_ONCE,
    DiskFormat.VHD: (*_MANY_AT_ONCE, "-o", "subformat=dynamic,force_size=on"),
    DiskFormat.VHDX: (*_MANY_AT_ONCE, "-o", "subformat=dynamic"),
}


def result_algorithm(wanted: DiskFormat) -> str:
    """Return by what checksum a converted file is known.

    A raw disk serves deltas, whose lists say sha512. All else is our own affair, and BLAKE3 takes a sixth of the time.
    """
    return "sha512" if wanted in GUEST_FORMATS else "blake3"
