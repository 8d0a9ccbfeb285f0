# SPDX-License-Identifier: Apache-2.0
"""How much an image list may be: bounds on what comes from outside, each a setting."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
_VALUES_OF_AN_IMAGE = 100
_LEAST_VALUES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListLimits:
    """Bounds of one image list.

    Attributes:
        size_bytes: Longest document, and longest content of a signed message.
        images: Most images.
        depth: Deepest nesting of objects and arrays.
        text_bytes: Longest text, in UTF-8.
        title_bytes: Longest title.
    """

    size_bytes: int = 16 * MIB
    images: int = 10_000
    depth: int = 16
    text_bytes: int = 64 * 1024
    title_bytes: int = 4096

    @property
    def message_bytes(self) -> int:
        """Longest signed message: the list, once more by half for base64."""
        return self.size_bytes + self.size_bytes // 2

    @property
    def values(self) -> int:
        """Most values of objects and arrays together: memory goes with their number more than with their bytes."""
        return max(_LEAST_VALUES, self.images * _VALUES_OF_AN_IMAGE)


DEFAULT_LIMITS = ListLimits()
