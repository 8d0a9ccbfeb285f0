# SPDX-License-Identifier: Apache-2.0
"""VMDK: the disks of VMware in one file (Virtual Disk Format 5.0): ``monolithicSparse`` and ``streamOptimized``.

The other kinds have their content in other files, and are refused with their names. Which descriptor, which header and
which directory a program goes by differs between programs; so all that are there have to say the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, believe_size, read_exactly
from coppice.conversion.disks.vmdk_descriptor import MOST_DESCRIPTOR_BYTES, QEMU_DESCRIPTOR_BYTES, read_descriptor
from coppice.conversion.disks.vmdk_grains import GrainLayout, check_grains
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, UnsupportedImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

MAGIC = b"KDMV"
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
MARKER = struct.Struct("<QII")
NEWLINES_FLAG, REDUNDANT_FLAG, ZEROED_FLAG, COMPRESSED_FLAG, MARKERS_FLAG = 1 << 0, 1 << 1, 1 << 2, 1 << 16, 1 << 17
AT_END = 2**64 - 1
END_OF_STREAM_MARKER, FOOTER_MARKER = 0, 3
FOOTER_BYTES = 3 * SECTOR_BYTES
"""Of a footer with the marker before it and the end of the stream behind."""
ENTRIES_OF_TABLE = 512
_KNOWN_FLAGS = NEWLINES_FLAG | REDUNDANT_FLAG | ZEROED_FLAG | COMPRESSED_FLAG | MARKERS_FLAG
_NEWLINES = b"\n \r\n"
_VERSIONS = frozenset({1, 2, 3})
_DEFLATE = 1
_SMALLEST_GRAIN_SECTORS, _LARGEST_GRAIN_SECTORS = 8, 2048
_MOST_SECTORS = 2**32
_OFFSETS = {"version": 4, "flags": 8, "capacity": 12, "grain": 20, "descriptor": 28, "entries": 44, "redundant": 48}
_OFFSETS |= {"directory": 56, "overhead": 64, "unclean": 72, "newlines": 73, "compression": 77}
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmdkHeader:
    """A header, or the footer that takes its place.

    Attributes:
        offset: Where it is.
        version: Of the format.
        flags: What it has.
        capacity_sectors: Length of the disk.
        grain_sectors: Length of a grain.
        descriptor_sector: Where the descriptor is; 0: nowhere.
        descriptor_sectors: How much room the descriptor has.
        entries_of_table: How many grains one grain table has.
        redundant_sector: Where the second grain directory is.
        directory_sector: Where the grain directory is; `AT_END`: the footer says it.
        overhead_sectors: What comes before the first grain.
        is_unclean: Whether the image was not closed.
        newlines: What a transfer as text would have changed.
        compression: Which.
    """

    offset: int
    version: int
    flags: int
    capacity_sectors: int
    grain_sectors: int
    descriptor_sector: int
    descriptor_sectors: int
    entries_of_table: int
    redundant_sector: int
    directory_sector: int
    overhead_sectors: int
    is_unclean: int
    newlines: bytes
    compression: int

    @property
    def is_compressed(self) -> bool:
        """Whether the grains are compressed, each after a marker."""
        return bool(self.flags & COMPRESSED_FLAG)

    def agreed(self) -> tuple[int, ...]:
        """Return what a footer has to have in common with its header."""
        return (
            self.version,
            self.flags & ~REDUNDANT_FLAG,
            self.capacity_sectors,
            self.grain_sectors,
            self.descriptor_sector,
            self.descriptor_sectors,
            self.entries_of_table,
            self.compression,
        )


def matches(window: Window) -> bool:
    """Tell whether it begins with the header of a sparse extent."""
    return window.read(0, len(MAGIC)) == MAGIC


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the image is, after its header, descriptor and all grain tables were looked at.

    Args:
        window: Its bytes.
        limits: What a disk may have.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It names other files, is of a kind or has a feature that is not taken, is too large, or
            contradicts itself.
    """
    header = _header(window, 0, name)
    _refuse_outside(header, name)
    believe_size(header.capacity_sectors * SECTOR_BYTES, limits, name=name, offset=_OFFSETS["capacity"])
    _refuse_unsupported(header, name)
    notes = _descriptor(window, header, name)
    if header.directory_sector == AT_END:
        header = _footer(window, header, name)
    grains = check_grains(window, _layout(window, header, name), name)
    virtual = header.capacity_sectors * SECTOR_BYTES
    if grains.has_others:
        notes = (*notes, "between its grains is something that no table names")
    return Detection(
        format=DiskFormat.VMDK,
        variant="streamOptimized" if header.is_compressed else "monolithicSparse",
        virtual_size_bytes=virtual,
        allocated_bytes=min(grains.count * header.grain_sectors * SECTOR_BYTES, virtual),
        notes=notes,
        must_be_rewritten=grains.has_others,
    )


def _header(window: Window, offset: int, name: str) -> VmdkHeader:
    content = read_exactly(window, offset, SECTOR_BYTES, name=name, what="its header")
    fields = HEADER.unpack_from(content)
    _, version, flags, capacity, grain, at, room, entries, redundant, directory, overhead, unclean, ends, packed = (
        fields
    )
    return VmdkHeader(
        offset=offset,
        version=version,
        flags=flags,
        capacity_sectors=capacity,
        grain_sectors=grain,
        descriptor_sector=at,
        descriptor_sectors=room,
        entries_of_table=entries,
        redundant_sector=redundant,
        directory_sector=directory,
        overhead_sectors=overhead,
        is_unclean=unclean,
        newlines=ends,
        compression=packed,
    )


def _refuse_outside(header: VmdkHeader, name: str) -> None:
    """See to it that no program takes the file for a descriptor of other files, or for a part of a split image."""
    why = "the content would come from other files"
    if header.capacity_sectors == 0:
        found = "its header has no size and leaves everything to a descriptor"
        raise refusal(OutsideReferenceError, name, found, offset=header.offset + _OFFSETS["capacity"], why=why)
    if header.descriptor_sector == 0 or header.descriptor_sectors == 0:
        found = "it has no descriptor: it is a part of an image of several files"
        raise refusal(OutsideReferenceError, name, found, offset=header.offset + _OFFSETS["descriptor"], why=why)


def _refuse_unsupported(header: VmdkHeader, name: str) -> None:
    grain = header.grain_sectors
    compressed = header.is_compressed
    is_stream = compressed and header.flags & MARKERS_FLAG and header.compression == _DEFLATE
    unknown = header.flags & ~_KNOWN_FLAGS
    is_power = grain & (grain - 1) == 0
    wrong: tuple[tuple[bool, str, str], ...] = (
        (header.version not in _VERSIONS, f"a VMDK of the version {header.version}", "version"),
        (bool(unknown), f"a VMDK with unknown flags ({unknown:#x})", "flags"),
        (
            bool(compressed or header.flags & MARKERS_FLAG or header.compression) and not is_stream,
            f"compressed in an unknown way ({header.compression}, flags {header.flags:#x})",
            "compression",
        ),
        (
            not is_power or not _SMALLEST_GRAIN_SECTORS <= grain <= _LARGEST_GRAIN_SECTORS,
            f"a VMDK with grains of {grain} sectors",
            "grain",
        ),
        (
            header.entries_of_table != ENTRIES_OF_TABLE,
            f"a VMDK with tables of {header.entries_of_table} grains",
            "entries",
        ),
        (header.capacity_sectors > _MOST_SECTORS, f"a VMDK of {header.capacity_sectors} sectors", "capacity"),
    )
    for is_wrong, words, where in wrong:
        if is_wrong:
            raise refusal(
                UnsupportedImageError,
                name,
                f"it is {words}",
                offset=header.offset + _OFFSETS[where],
                why="monolithicSparse and streamOptimized of the versions 1 to 3 are taken, up to 2 TiB",
            )
    if header.flags & NEWLINES_FLAG and header.newlines != _NEWLINES:
        raise _corrupt(
            name, "its line ends were changed, as a transfer of text does", header.offset + _OFFSETS["newlines"]
        )
    if header.is_unclean:
        raise _corrupt(
            name, "it was not closed: its tables may be older than its grains", header.offset + _OFFSETS["unclean"]
        )


def _descriptor(window: Window, header: VmdkHeader, name: str) -> tuple[str, ...]:
    """Look at the descriptor; QEMU reads 20 sectors from the second one on, whatever the header says."""
    start = header.descriptor_sector * SECTOR_BYTES
    length = header.descriptor_sectors * SECTOR_BYTES
    if start != SECTOR_BYTES or length > MOST_DESCRIPTOR_BYTES:
        raise refusal(
            UnsupportedImageError,
            name,
            f"its descriptor would have {length} bytes",
            offset=min(start, window.size_bytes),
            why=f"programs look for it at byte {SECTOR_BYTES}, and up to {MOST_DESCRIPTOR_BYTES} are taken",
        )
    content = read_exactly(window, start, length, name=name, what="its descriptor")
    beyond = window.read(start + length, max(0, QEMU_DESCRIPTOR_BYTES - length))
    descriptor = read_descriptor(content, beyond, start, name)
    wanted = "streamOptimized" if header.is_compressed else "monolithicSparse"
    if descriptor.create_type.lower() != wanted.lower():
        raise _corrupt(name, f"its descriptor says {descriptor.create_type!r}, its header {wanted}", start)
    # VirtualBox rounds the capacity up to whole grains, and leaves the extent as it was asked for.
    if not 0 <= header.capacity_sectors - descriptor.extent_sectors < header.grain_sectors:
        raise _corrupt(
            name,
            f"its descriptor has {descriptor.extent_sectors} sectors, its header {header.capacity_sectors}",
            start,
        )
    if header.capacity_sectors == descriptor.extent_sectors:
        return ()
    return (
        f"the disk has {header.capacity_sectors} sectors by its header, {descriptor.extent_sectors} by its descriptor",
    )


def _footer(window: Window, header: VmdkHeader, name: str) -> VmdkHeader:
    """Return the footer of a stream, which counts before the header, after both were compared.

    QEMU counts back from the next whole sector, so that a file which ends elsewhere could have two footers.
    """
    if window.size_bytes % SECTOR_BYTES:
        found = f"its {window.size_bytes} bytes are no whole sectors"
        raise refusal(CorruptImageError, name, found, why="programs would look for its footer in different places")
    start = window.size_bytes - FOOTER_BYTES
    content = read_exactly(window, start, FOOTER_BYTES, name=name, what="its footer")
    sectors, size, kind = MARKER.unpack_from(content)
    end = MARKER.unpack_from(content, 2 * SECTOR_BYTES)
    if not header.is_compressed:
        raise _corrupt(
            name, "its header leaves its directory to a footer, which only a stream has", _OFFSETS["directory"]
        )
    if (sectors, size, kind) != (1, 0, FOOTER_MARKER) or content[SECTOR_BYTES : SECTOR_BYTES + len(MAGIC)] != MAGIC:
        raise _corrupt(name, "its header leaves its directory to a footer, and none is at its end", start)
    if end != (0, 0, END_OF_STREAM_MARKER):
        raise _corrupt(name, "its stream does not end at its end", start + 2 * SECTOR_BYTES)
    footer = _header(window, start + SECTOR_BYTES, name)
    if footer.agreed() != header.agreed():
        raise _corrupt(name, "its header and its footer differ", footer.offset)
    if footer.directory_sector == AT_END:
        raise _corrupt(name, "its footer does not say where its directory is", footer.offset + _OFFSETS["directory"])
    _refuse_unsupported(footer, name)
    return footer


def _layout(window: Window, header: VmdkHeader, name: str) -> GrainLayout:
    if header.overhead_sectors * SECTOR_BYTES > window.size_bytes:
        raise _corrupt(
            name, f"its first grain would be at sector {header.overhead_sectors}", header.offset + _OFFSETS["overhead"]
        )
    is_redundant = bool(header.flags & REDUNDANT_FLAG)
    return GrainLayout(
        capacity_sectors=header.capacity_sectors,
        grain_sectors=header.grain_sectors,
        directory_sector=header.directory_sector,
        redundant_sector=header.redundant_sector if is_redundant else None,
        overhead_sectors=header.overhead_sectors,
        metadata_sectors=1 + header.descriptor_sectors,
        footer_offset=None if header.offset == 0 else header.offset - SECTOR_BYTES,
        has_zeroed=bool(header.flags & ZEROED_FLAG),
        is_compressed=header.is_compressed,
    )


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
