# SPDX-License-Identifier: Apache-2.0
"""What an image file is: its wrapping and its disk, by content, before any tool opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.unpack import opened_disk
from coppice.monitor import SILENT

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits, Inspection
    from coppice.monitor import Monitor


def inspect(
    path: Path, limits: ConversionLimits, *, spool: Path | None = None, monitor: Monitor = SILENT
) -> Inspection:
    """Return what the file is.

    Args:
        path: A regular file; a symbolic link is refused.
        limits: What a disk may have, and what may be unpacked.
        spool: Directory for what has to be unpacked for it; None: what is compressed is refused. A disk that lies in an
            archive as it is needs none.
        monitor: Where progress is told.

    Raises:
        ImageRefusedError: It is no disk image, more than one thing at once, or dangerous; the message says what was
            found and why that matters.
        NoSpaceError: What is unpacked does not fit on the disk.
        StorageError: It cannot be read, or the spool not be written.
    """
    with opened_disk(path, limits, spool=spool, monitor=monitor) as disk:
        return disk.inspection
