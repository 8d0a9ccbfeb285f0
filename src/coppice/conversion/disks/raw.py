# SPDX-License-Identifier: Apache-2.0
"""A raw disk: the bytes that a guest sees, without anything around them, and with or without a partition table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError
from coppice.formats.partitions import partition_table_of
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window


def matches(window: Window) -> bool:
    """Tell whether the file is a raw disk: never by itself, but because it is nothing else."""
    del window
    return False


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the disk is; whoever asks knows that it is of no other format.

    Raises:
        CorruptImageError: It is no whole number of sectors.
    """
    del limits
    if window.size_bytes % SECTOR_BYTES:
        raise refusal(
            CorruptImageError,
            name,
            f"it has {window.size_bytes} bytes, and no signature of any format",
            offset=window.size_bytes - window.size_bytes % SECTOR_BYTES,
            why="a raw disk is a whole number of sectors of 512 bytes: this one is cut off, or no disk",
        )
    table = partition_table_of(window.read, window.size_bytes)
    return Detection(
        format=DiskFormat.RAW,
        variant=f"{table} partitions" if table is not None else "no partitions",
        virtual_size_bytes=window.size_bytes,
        partition_table=table,
    )
