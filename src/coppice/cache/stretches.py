# SPDX-License-Identifier: Apache-2.0
"""`Stretches`: which parts of a file are whole."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Stretches:
    """A set of positions of a file, kept as stretches from a start to behind an end, in order, that do not touch.

    Args:
        given: Stretches in any order.
    """

    def __init__(self, given: Iterable[tuple[int, int]] = ()) -> None:
        self._found: list[tuple[int, int]] = []
        for start, end in given:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._found)

    @property
    def prefix(self) -> int:
        """How far the file is whole from its beginning on."""
        return self._found[0][1] if self._found and self._found[0][0] == 0 else 0

    @property
    def total(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end in self._found)

    def add(self, start: int, end: int) -> None:
        """Add what lies from ``start`` to ``end``."""
        if start >= end:
            return
        first = bisect.bisect_left(self._found, start, key=lambda each: each[1])
        last = bisect.bisect_right(self._found, end, key=lambda each: each[0])
        joined = self._found[first:last]
        if joined:
            start, end = min(start, joined[0][0]), max(end, joined[-1][1])
        self._found[first:last] = [(start, end)]

    def clipped(self, size: int) -> Stretches:
        """Return what of it lies before ``size``."""
        return Stretches((start, min(end, size)) for start, end in self._found if start < size)

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """Return what is missing of a file of that size."""
        found, position = [], 0
        for start, end in self._found:
            if position < min(start, size):
                found.append((position, min(start, size)))
            position = max(position, end)
        if position < size:
            found.append((position, size))
        return found

    def covers(self, size: int) -> bool:
        """Whether a file of that size is whole."""
        return not self.gaps(size)
