# SPDX-License-Identifier: Apache-2.0
"""Stretches of a file that must not overlap: a disk whose blocks share bytes is larger than its file makes credible."""

from __future__ import annotations

import heapq
import operator
from array import array
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coppice.errors import ImageRefusedError

_LENGTH_BITS = 24
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_RUN_ENTRIES = 1 << 18
_MOST_BYTES = (1 << 64 - _LENGTH_BITS) * SECTOR_BYTES


class Stretches:
    """Where things lie in a file, in whole sectors of 512 bytes; eight bytes of memory for each.

    A stretch is one number, its start above its length, so that the order of numbers is the order in the file. They
    are kept in sorted runs: those of an image that was written from its beginning to its end follow each other.

    Args:
        name: Of the file, for refusals.
        what: The stretches are, for refusals: ``grains or tables``.
    """

    def __init__(self, name: str, what: str) -> None:
        self._name = name
        self._what = what
        self._pending = array("Q")
        self._lengths: set[int] = set()
        self._runs: list[_Run] = []

    def add(self, start_sectors: int, length_sectors: int) -> None:
        """Add one.

        Raises:
            UnsupportedImageError: It begins beyond 512 TiB.
        """
        self.add_all((start_sectors,), length_sectors)

    def add_bytes(self, start: int, length: int) -> None:
        """Add one that is told in bytes; a sector of which it has a part is wholly its own. Nothing is no stretch.

        Raises:
            UnsupportedImageError: It begins beyond 512 TiB.
        """
        first, end = start // SECTOR_BYTES, -(-(start + length) // SECTOR_BYTES)
        while first < end:
            piece = min(end - first, _LENGTH_MASK)
            self.add(first, piece)
            first += piece

    def add_all(self, starts_sectors: Iterable[int], length_sectors: int) -> None:
        """Add many of one length, which is less than 8 GiB.

        Raises:
            UnsupportedImageError: One begins beyond 512 TiB.
        """
        try:
            self._pending.extend(start << _LENGTH_BITS | length_sectors for start in starts_sectors)
        except OverflowError as problem:
            raise refusal(
                UnsupportedImageError,
                self._name,
                f"one of its {self._what} would lie beyond {_MOST_BYTES} bytes",
                why="files of that length are not taken",
            ) from problem
        self._lengths.add(length_sectors)
        if len(self._pending) >= _RUN_ENTRIES:
            self._close_run()

    def refuse_overlap(self) -> None:
        """See to it that no two of them share a sector.

        Raises:
            CorruptImageError: Two do.
        """
        runs = self._sorted_runs()
        if _are_in_order(runs):
            for run in runs:
                if not run.is_apart():
                    self._refuse_neighbours(run.entries)
            for first, second in pairwise(runs):
                self._refuse_neighbours((first.entries[-1], second.entries[0]))
        else:
            self._refuse_neighbours(heapq.merge(*(run.entries for run in runs)))

    def gaps(self, first_sector: int, end_sector: int) -> Iterator[tuple[int, int]]:
        """Yield where nothing lies of what was added, which does not overlap: first sector, and how many.

        Args:
            first_sector: From which on to look.
            end_sector: Up to which.
        """
        runs = self._sorted_runs()
        ordered = (run.entries for run in runs)
        entries = chain.from_iterable(ordered) if _are_in_order(runs) else heapq.merge(*ordered)
        at = first_sector
        for entry in entries:
            start = entry >> _LENGTH_BITS
            if start > at:
                yield at, start - at
            at = max(at, start + (entry & _LENGTH_MASK))
        if at < end_sector:
            yield at, end_sector - at

    def _sorted_runs(self) -> list[_Run]:
        if self._pending:
            self._close_run()
        return sorted(self._runs, key=lambda run: run.entries[0])

    def _refuse_neighbours(self, entries: Iterable[int]) -> None:
        for first, second in pairwise(entries):
            start = second >> _LENGTH_BITS
            if start - (first >> _LENGTH_BITS) < first & _LENGTH_MASK:
                raise self._overlap(start)

    def _overlap(self, start: int) -> ImageRefusedError:
        return refusal(
            CorruptImageError,
            self._name,
            f"two of its {self._what} overlap in the file",
            offset=start * SECTOR_BYTES,
            why="its tables contradict themselves, so that programs would read different disks",
        )

    def _close_run(self) -> None:
        length = self._lengths.pop() if len(self._lengths) == 1 else None
        self._runs.append(_Run(entries=array("Q", sorted(self._pending)), length=length))
        self._pending = array("Q")
        self._lengths = set()


def _are_in_order(runs: list[_Run]) -> bool:
    return all(first.entries[-1] <= second.entries[0] for first, second in pairwise(runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Some stretches in their order; ``length`` is that of each, None: they have several."""

    entries: array[int]
    length: int | None

    def is_apart(self) -> bool:
        """Whether they are known not to overlap: told at the speed of a subtraction, where all are of one length."""
        entries, length = self.entries, self.length
        if length is None:
            return False
        return min(map(operator.sub, entries[1:], entries), default=length << _LENGTH_BITS) >= length << _LENGTH_BITS
