# SPDX-License-Identifier: Apache-2.0
"""What every look at a disk is held to: bytes that are there, and a size that may be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, OversizedImageError

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window

SECTOR_BYTES = 512


class SteadyWindow:
    """Bytes of a file that keeps its length: a reading that gives fewer than are there is a refusal, and no surprise.

    Args:
        window: The bytes.
        name: Of the file, for the refusal.
    """

    def __init__(self, window: Window, name: str) -> None:
        self._window = window
        self._name = name
        self.size_bytes = window.size_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return bytes; see `Window.read`.

        Raises:
            CorruptImageError: The file became shorter.
            OSError: It cannot be read.
        """
        content = self._window.read(start, length)
        if len(content) < min(length, self.size_bytes - start):
            raise refusal(
                CorruptImageError,
                self._name,
                f"it had {self.size_bytes} bytes, and became shorter while it was looked at",
                offset=start + len(content),
                why="somebody else changes it",
                resolution="Run again when nobody does.",
            )
        return content


def read_exactly(window: Window, start: int, length: int, *, name: str, what: str) -> bytes:
    """Return ``length`` bytes from ``start`` on.

    Args:
        window: The disk's bytes.
        start: Where they begin.
        length: How many; the caller has bounded it.
        name: Of the file, for the refusal.
        what: What lies there, for the refusal: ``its first-level table``.

    Raises:
        CorruptImageError: The file ends before.
    """
    within(window, start, length, name=name, what=what)
    return window.read(start, length)


def within(window: Window, start: int, length: int, *, name: str, what: str) -> None:
    """See to it that a stretch is inside of the file.

    Raises:
        CorruptImageError: It is not.
    """
    if start < 0 or length < 0 or start + length > window.size_bytes:
        raise refusal(
            CorruptImageError,
            name,
            f"{what} would lie from byte {start} to {start + length}, the file has {window.size_bytes}",
            offset=start,
            why="the image is cut off or was made to mislead",
        )


def believe_size(virtual_size_bytes: int, limits: ConversionLimits, *, name: str, offset: int | None = None) -> None:
    """See to it that a disk may be as long as it says.

    Args:
        virtual_size_bytes: Length of the disk that a guest sees.
        limits: Its `maximum_virtual_size_bytes` is what a file of this length may hold: `detect` narrows it down.
        name: Of the file, for the refusal.
        offset: Where the length is written.

    Raises:
        OversizedImageError: It is longer than is taken.
        CorruptImageError: It has no length.
    """
    if virtual_size_bytes <= 0:
        raise refusal(
            CorruptImageError, name, "its disk has no bytes", offset=offset, why="no guest could start from it"
        )
    if virtual_size_bytes > limits.maximum_virtual_size_bytes:
        raise refusal(
            OversizedImageError,
            name,
            f"its disk would have {virtual_size_bytes} bytes",
            offset=offset,
            why=f"from a file of this length at most {limits.maximum_virtual_size_bytes} are taken",
            resolution="No tool opened it. If such disks are wanted, raise conversion.maximum_virtual_size_bytes or, "
            "where the file is very small for its disk, conversion.maximum_expansion.",
        )
