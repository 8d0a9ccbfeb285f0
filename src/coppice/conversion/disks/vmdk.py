# SPDX-License-Identifier: Apache-2.0
"""VMDK: sparse extents with their descriptor inside (Virtual Disk Format 5.0)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import believe_size, read_exactly
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OutsideReferenceError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window

_AT_END = 2**64 - 1


def matches(window: Window) -> bool:
    """Tell whether the file begins like a sparse extent."""
    return window.read(0, 4) == b"KDMV"


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the disk is.

    Raises:
        ImageRefusedError: It is broken, or takes content from elsewhere.
    """
    head = read_exactly(window, 0, min(65536, window.size_bytes), name=name, what="its header")
    capacity = struct.unpack_from("<Q", head, 12)[0]
    if capacity == 0:
        raise refusal(
            OutsideReferenceError,
            name,
            "its header leaves its size to a descriptor that can name other files",
            offset=12,
            why="the content would come from other files of this machine",
        )
    believe_size(capacity * 512, limits, name=name, offset=12)
    streamed = struct.unpack_from("<Q", head, 56)[0] == _AT_END
    end = window.read(max(0, window.size_bytes - 1024), 1024)
    if streamed and (not end.startswith(b"KDMV") or struct.unpack_from("<Q", end, 12)[0] != capacity):
        raise refusal(
            CorruptImageError,
            name,
            "the header at its end states another size than the one at its beginning",
            offset=window.size_bytes - 1024,
            why="each tool would read another disk",
        )
    if b"parentfilenamehint" in head[512:].split(b"\0", 1)[0].lower():
        raise refusal(
            OutsideReferenceError,
            name,
            "it names a parent image",
            offset=512,
            why="the content would come from other files of this machine",
        )
    variant = "streamOptimized" if streamed else "monolithicSparse"
    return Detection(format=DiskFormat.VMDK, variant=variant, virtual_size_bytes=capacity * 512)
