# SPDX-License-Identifier: Apache-2.0
"""VHD: the older disks of Hyper-V and Azure (Virtual Hard Disk Image Format Specification 1.0), dynamic and fixed.

QEMU calls them ``vpc``. How long the disk is has two answers in this format, its geometry and its current size, and
which of them a program takes depends on the program that made the image (``block/vpc.c``): of a disk that VirtualBox
made, QEMU on its own leaves out the end. Here the current size counts, and QEMU is told so (``force_size_calc``); an
image for which that makes a difference is written anew for whoever takes VHD.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, believe_size, read_exactly
from coppice.conversion.disks.tables import is_zero
from coppice.conversion.disks.vhd_blocks import VhdBlocks, read_blocks
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError, SeveralFormatsError, UnsupportedImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window

COOKIE = b"conectix"
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
CHECKSUM_OFFSET = 64
_KIND_OFFSET = 60
_GEOMETRY_OFFSET = 56
_SIZE_OFFSET = 48
_VERSION = 0x00010000
_KNOWN_FEATURES = 0b11
_SIZE_COUNTS_FOR = frozenset({b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"})
_LARGEST_GEOMETRY_SECTORS = 65535 * 16 * 255
_MOST_SECTORS = 0xFF000000
_CYLINDER_BYTES = 16 * 255 * SECTOR_BYTES
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdFooter:
    """What counts of a footer.

    Attributes:
        offset: Where the footer is that programs read first.
        kind: Which kind of image, as a number.
        header_offset: Where the header of a dynamic one is.
        virtual_size_bytes: Length of the disk by its current size, in whole sectors.
        current_size_bytes: The same as it is written.
        geometry_size_bytes: Length of the disk by its geometry; None: every program goes by the current size.
    """

    offset: int
    kind: int
    header_offset: int
    virtual_size_bytes: int
    current_size_bytes: int
    geometry_size_bytes: int | None


def checksum(content: bytes, offset: int) -> int:
    """Return the checksum of a footer or a header: the complement of the sum of all bytes but its own four."""
    return ~(sum(content) - sum(content[offset : offset + 4])) & 0xFFFFFFFF


def matches(window: Window) -> bool:
    """Tell whether it has a footer at its beginning or at its end."""
    return window.read(0, len(COOKIE)) == COOKIE or _tail(window).startswith(COOKIE)


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the image is, after its footers, its header and its whole allocation table were looked at.

    Args:
        window: Its bytes.
        limits: What a disk may have.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It has a parent, is of a kind that is not taken, is too large, or contradicts itself.
    """
    footer = _footer(window, name)
    believe_size(footer.virtual_size_bytes, limits, name=name, offset=footer.offset + _SIZE_OFFSET)
    if footer.virtual_size_bytes // SECTOR_BYTES > _MOST_SECTORS:
        raise refusal(
            UnsupportedImageError,
            name,
            f"its disk would have {footer.virtual_size_bytes} bytes",
            offset=footer.offset + _SIZE_OFFSET,
            why="a VHD has at most 2040 GiB",
        )
    blocks = None
    if footer.kind == DYNAMIC:
        blocks = read_blocks(window, footer.header_offset, footer.virtual_size_bytes, name)
    else:
        _refuse_wrong_length(window, footer, name)
    notes = _compared_sizes(window, footer, blocks, name)
    allocated = footer.virtual_size_bytes if blocks is None else blocks.allocated_bytes
    return Detection(
        format=DiskFormat.VHD,
        variant="fixed" if blocks is None else "dynamic",
        # Clouds that look for a header in front (OpenStack's among them) take a fixed one for something else, and
        # refuse it.
        must_be_rewritten=blocks is None or bool(notes),
        virtual_size_bytes=footer.virtual_size_bytes,
        allocated_bytes=min(allocated, footer.virtual_size_bytes),
        notes=notes,
    )


def _tail(window: Window) -> bytes:
    return window.read(max(0, window.size_bytes - SECTOR_BYTES), SECTOR_BYTES)


def _footer(window: Window, name: str) -> VhdFooter:
    # QEMU counts back from the next whole sector, so that a file which ends elsewhere could have two footers.
    if window.size_bytes % SECTOR_BYTES:
        found = f"its {window.size_bytes} bytes are no whole sectors"
        raise refusal(CorruptImageError, name, found, why="programs would look for its footer in different places")
    head = read_exactly(window, 0, SECTOR_BYTES, name=name, what="its first sector")
    tail = _tail(window)
    at_end = window.size_bytes - SECTOR_BYTES
    if not head.startswith(COOKIE):
        footer = _taken_apart(tail, at_end, name)
        if footer.kind != FIXED:
            raise refusal(
                CorruptImageError,
                name,
                "it is a dynamic VHD without the footer's copy at its beginning",
                offset=0,
                why=_MISLEADING,
            )
        return footer
    footer = _taken_apart(head, 0, name)
    if footer.kind != DYNAMIC:
        raise refusal(
            SeveralFormatsError,
            name,
            "it is a fixed VHD with a footer at its beginning as well",
            offset=0,
            why="programs would read different disks",
        )
    if tail != head:
        raise refusal(
            CorruptImageError,
            name,
            "the footer at its end is not the same as the copy at its beginning"
            if tail.startswith(COOKIE)
            else "it has no footer at its end",
            offset=at_end,
            why="the image is cut off, or programs would read different disks",
        )
    return footer


def _taken_apart(content: bytes, offset: int, name: str) -> VhdFooter:
    fields = FOOTER.unpack_from(content)
    _, features, version, header_offset, _, creator, _, _, _, current, cylinders, heads, sectors, kind, stated = fields[
        :15
    ]
    if checksum(content, CHECKSUM_OFFSET) != stated:
        raise refusal(
            CorruptImageError,
            name,
            "the checksum of its footer is wrong",
            offset=offset + CHECKSUM_OFFSET,
            why=_MISLEADING,
        )
    if kind == DIFFERENCING:
        raise refusal(
            OutsideReferenceError,
            name,
            "it is a differencing VHD",
            offset=offset + _KIND_OFFSET,
            why="a part of its content would come from another file",
        )
    wrong = (
        (kind not in {FIXED, DYNAMIC}, f"a VHD of the kind {kind}", _KIND_OFFSET),
        (version != _VERSION, f"a VHD of the version {version:#x}", 12),
        (features & ~_KNOWN_FEATURES, f"a VHD with unknown features ({features:#x})", 8),
        (fields[16], "the disk of a machine that was suspended", 84),
    )
    for is_wrong, words, where in wrong:
        if is_wrong:
            raise refusal(
                UnsupportedImageError,
                name,
                f"it is {words}",
                offset=offset + where,
                why="only fixed and dynamic ones of version 1 are taken",
            )
    geometry = cylinders * heads * sectors
    by_size = creator in _SIZE_COUNTS_FOR or geometry == _LARGEST_GEOMETRY_SECTORS
    return VhdFooter(
        offset=offset,
        kind=kind,
        header_offset=header_offset,
        virtual_size_bytes=current // SECTOR_BYTES * SECTOR_BYTES,
        current_size_bytes=current,
        geometry_size_bytes=None if by_size else geometry * SECTOR_BYTES,
    )


def _refuse_wrong_length(window: Window, footer: VhdFooter, name: str) -> None:
    data = window.size_bytes - SECTOR_BYTES
    stated = max(footer.current_size_bytes, footer.geometry_size_bytes or 0)
    if footer.current_size_bytes != data or stated > data:
        raise refusal(
            CorruptImageError,
            name,
            f"its footer states a disk of {stated} bytes, the file holds {data}",
            offset=footer.offset + _SIZE_OFFSET,
            why="the image is cut off or was made to mislead",
        )


def _compared_sizes(window: Window, footer: VhdFooter, blocks: VhdBlocks | None, name: str) -> tuple[str, ...]:
    """Compare the two sizes; return what is worth saying of them.

    They differ by less than a cylinder where the image was made by a program that rounds. What a longer disk by the
    geometry has behind the shorter one by the current size must be zeros.
    """
    geometry, size = footer.geometry_size_bytes, footer.virtual_size_bytes
    if geometry is None or geometry == size:
        return ()
    offset = footer.offset + _GEOMETRY_OFFSET
    if abs(geometry - size) > _CYLINDER_BYTES:
        raise refusal(
            CorruptImageError,
            name,
            f"its geometry gives a disk of {geometry} bytes, its current size {size}",
            offset=offset,
            why="programs would read different disks",
        )
    if blocks is not None and not _is_zero_between(window, blocks, size, geometry):
        raise refusal(
            UnsupportedImageError,
            name,
            f"its geometry gives a disk of {geometry} bytes, its current size {size}, "
            "and there is content between the two",
            offset=offset,
            why="programs that go by the current size would lose it",
            resolution="No tool opened it. Whoever publishes it can make it anew as VHDX or qcow2.",
        )
    return (f"its current size of {size} bytes counts; programs that go by its geometry see {geometry}",)


def _is_zero_between(window: Window, blocks: VhdBlocks, start: int, end: int) -> bool:
    while start < end:
        length = min(end - start, blocks.block_bytes - start % blocks.block_bytes)
        if not is_zero(blocks.read(window, start, length)):
            return False
        start += length
    return True
