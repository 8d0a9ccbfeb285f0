# SPDX-License-Identifier: Apache-2.0
"""`Buffers`: the memory that images are unpacked into, used again and again.

A mebibyte that is asked for anew comes from the kernel, which clears it page by page; for a whole image this takes as
long as writing it. Therefore what is written is given back to be unpacked into once more.
"""

from __future__ import annotations

from typing import Protocol

BUFFER_BYTES = 1024 * 1024


class Buffers(Protocol):
    """Lends memory."""

    def take(self) -> bytearray:
        """Return `BUFFER_BYTES` of memory that nobody else uses; may wait for it. What it holds is of no meaning."""
        ...

    def give_back(self, buffer: bytearray) -> None:
        """Tell that whoever was to see what is in the buffer was handed it; it may still be reading."""
        ...


class FreshBuffers:
    """Lends each buffer once: whoever is handed one may keep it."""

    def take(self) -> bytearray:
        """Return new memory."""
        return bytearray(BUFFER_BYTES)

    def give_back(self, buffer: bytearray) -> None:
        """Leave it to whoever has it."""
