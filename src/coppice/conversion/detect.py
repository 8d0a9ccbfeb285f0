# SPDX-License-Identifier: Apache-2.0
"""Find out what a disk is, by its content alone, before any tool opens it; refuse what is dangerous.

A file's name and what a list says of it count for nothing. Exactly one format may match. Own readers of the formats
judge; the inspectors of oslo.utils are asked afterwards, and may only find more to refuse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.conversion.disks import opinion
from coppice.conversion.disks.bounds import SECTOR_BYTES, SteadyWindow, believe_size
from coppice.conversion.disks.foreign import foreign_mark
from coppice.conversion.disks.frame import READERS
from coppice.conversion.refusal import refusal
from coppice.errors import NotAnImageError, SeveralFormatsError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits, Detection
    from coppice.conversion.window import Window

SMALLEST_IMAGE_BYTES = SECTOR_BYTES
_WITH_BOOT_SECTOR = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose file begins with what a machine would boot from."""
_SEVERAL = "each tool would read another disk"


def detect(window: Window, limits: ConversionLimits, *, name: str, file_size_bytes: int) -> Detection:
    """Return what a disk is; what is compressed or archived is no disk.

    Args:
        window: The disk's bytes, wherever they lie.
        limits: What a disk may have.
        name: Of the file, for refusals.
        file_size_bytes: Length of the file that was published, of which the disk may be a part, or unpacked: it says
            how large a disk is credible.

    Raises:
        NotAnImageError: It is no disk.
        SeveralFormatsError: It is more than one format at once.
        OversizedImageError: Its disk is larger than is taken.
        ImageRefusedError: It is broken, dangerous, or of a kind that is not taken; the class says which.
        OSError: It cannot be read.
    """
    if window.size_bytes < SMALLEST_IMAGE_BYTES:
        raise refusal(
            NotAnImageError,
            name,
            f"it has {window.size_bytes} bytes" if window.size_bytes else "it is empty (0 bytes)",
            why=f"no disk has fewer than {SMALLEST_IMAGE_BYTES}",
        )
    window = SteadyWindow(window, name)
    narrowed = replace(limits, maximum_virtual_size_bytes=limits.most_bytes_of(file_size_bytes))
    kind = _one_format(window, name)
    found = READERS[kind].look(window, narrowed, name)
    believe_size(found.virtual_size_bytes, narrowed, name=name)
    opinion.ask(window, found, name)
    return found


def formats_of(window: Window) -> tuple[DiskFormat, ...]:
    """Return all formats whose signature the file bears; none: it may be raw."""
    return tuple(kind for kind, reader in READERS.items() if reader.matches(window))


def _one_format(window: Window, name: str) -> DiskFormat:
    found = formats_of(window)
    foreign = foreign_mark(window)
    words = [str(each) for each in found]
    if foreign is not None:
        words.append(foreign.words)
    if len(words) > 1:
        raise refusal(SeveralFormatsError, name, f"it is several formats at once ({', '.join(words)})", why=_SEVERAL)
    if foreign is not None:
        raise refusal(foreign.kind, name, f"it is {foreign.words}", offset=foreign.offset, why=foreign.why)
    kind = found[0] if found else DiskFormat.RAW
    if kind not in _WITH_BOOT_SECTOR:
        _no_boot_sector(window, kind, name)
    return kind


def _no_boot_sector(window: Window, kind: DiskFormat, name: str) -> None:
    """Refuse a header of a format in the boot sector of a partitioned disk: what is the disk?"""
    begins_here = kind is not DiskFormat.VHD or window.read(0, 8) == b"conectix"
    for offset, mark, words in ((510, b"\x55\xaa", "a boot sector"), (512, b"EFI PART", "a GPT")):
        if begins_here and window.read(offset, len(mark)) == mark:
            raise refusal(
                SeveralFormatsError, name, f"it is {kind} and has {words} as well", offset=offset, why=_SEVERAL
            )
