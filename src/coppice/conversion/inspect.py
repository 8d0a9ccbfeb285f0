# SPDX-License-Identifier: Apache-2.0
"""What an image file is: its wrapping and its disk, by content, before any tool opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.detect import detect
from coppice.conversion.model import Inspection
from coppice.conversion.window import FileWindow

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits


def inspect(path: Path, limits: ConversionLimits) -> Inspection:
    """Return what the file is.

    Args:
        path: A regular file; a symbolic link is refused.
        limits: What a disk may have.

    Raises:
        ImageRefusedError: It is no disk image, more than one thing at once, or dangerous; the message says what was
            found and why that matters.
        StorageError: It cannot be read.
    """
    with FileWindow(path) as window, atomic.storage_errors("reading", path):
        size = window.size_bytes
        disk = detect(window, limits, name=path.name, file_size_bytes=size)
    return Inspection(format=disk.format, size_bytes=size, virtual_size_bytes=disk.virtual_size_bytes, disk=disk)
