# SPDX-License-Identifier: Apache-2.0
"""The grains of a VMDK: its directory, its tables, and where they say that content is (Virtual Disk Format 5.0).

All of it is looked at, in memory that grows by eight bytes with each grain that the file has. The marker of a
compressed grain has to name the place on the disk from which the tables led to it.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, read_exactly, within
from coppice.conversion.disks.stretches import Stretches
from coppice.conversion.disks.tables import is_zero, little_endian
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

ENTRIES_OF_TABLE = 512
TABLE_BYTES = ENTRIES_OF_TABLE * 4
GRAIN_MARKER = struct.Struct("<QI")
_ZEROED = 1
_STEP_TABLES = 256
_STEP_SECTORS = 2048
_DIFFERENT = "programs would read different disks"
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrainLayout:
    """Where the tables are.

    Attributes:
        capacity_sectors: Length of the disk.
        grain_sectors: Length of a grain.
        directory_sector: Where the grain directory is.
        redundant_sector: Where the second one is; None: nowhere.
        overhead_sectors: Where the first grain of a stream is.
        metadata_sectors: What the header and the descriptor take at the beginning.
        footer_offset: Where the footer of a stream begins with its marker, in bytes; None: it has none.
        has_zeroed: Whether the entry 1 stands for a grain of zeros.
        is_compressed: Whether each grain is compressed, after a marker.
    """

    capacity_sectors: int
    grain_sectors: int
    directory_sector: int
    redundant_sector: int | None
    overhead_sectors: int
    metadata_sectors: int
    footer_offset: int | None
    has_zeroed: bool
    is_compressed: bool

    @property
    def tables(self) -> int:
        """How many grain tables the disk has."""
        return -(-self.capacity_sectors // (ENTRIES_OF_TABLE * self.grain_sectors))

    @property
    def grains(self) -> int:
        """How many grains the disk has."""
        return -(-self.capacity_sectors // self.grain_sectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grains:
    """What the tables say of the grains.

    Attributes:
        count: How many the file has.
        has_others: Whether a stream has something between them that may be a grain which no table names: a program
            that reads it from its beginning to its end would see that.
    """

    count: int
    has_others: bool


def check_grains(window: Window, layout: GrainLayout, name: str) -> Grains:
    """Look at every table and at every place where a grain is said to be.

    Args:
        window: The image's bytes.
        layout: Where the tables are; the length of the disk is within the limits.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: A table or a grain is not inside of the file, two overlap, two copies differ, or the marker
            of a grain says something else than its table.
    """
    look = _Look(window, layout, name)
    count = look.count()
    return Grains(count=count, has_others=layout.is_compressed and look.has_others())


class _Look:
    """One look at all tables of an image."""

    def __init__(self, window: Window, layout: GrainLayout, name: str) -> None:
        self._window = window
        self._layout = layout
        self._name = name
        self._stretches = Stretches(name, "grains or tables")

    def count(self) -> int:
        layout = self._layout
        self._stretches.add(0, layout.metadata_sectors)
        if layout.footer_offset is not None:
            self._stretches.add_bytes(layout.footer_offset, self._window.size_bytes - layout.footer_offset)
        copies = [layout.directory_sector]
        if layout.redundant_sector is not None:
            copies.append(layout.redundant_sector)
        directories = [self._directory(sector) for sector in copies]
        # Before the tables are read: a directory that names one table many times is no reason to read it many times.
        self._stretches.refuse_overlap()
        count = 0
        for first in range(0, layout.tables, _STEP_TABLES):
            parts = [directory[first : first + _STEP_TABLES] for directory in directories]
            entries = self._entries(parts[0])
            if len(parts) > 1 and self._entries(parts[1]) != entries:
                raise self._corrupt("its two sets of grain tables differ")
            count += self._grains(entries, first * ENTRIES_OF_TABLE)
        self._stretches.refuse_overlap()
        return count

    def has_others(self) -> bool:
        """Look at what lies between grains and tables: zeros, and markers of tables, which have no size."""
        end = self._window.size_bytes // SECTOR_BYTES
        for sector, count in self._stretches.gaps(self._layout.overhead_sectors, end):
            is_marker = count == 1 and not GRAIN_MARKER.unpack(self._sectors(sector, 1)[: GRAIN_MARKER.size])[1]
            if not is_marker and not self._are_zeros(sector, count):
                return True
        return False

    def _are_zeros(self, sector: int, count: int) -> bool:
        steps = range(sector, sector + count, _STEP_SECTORS)
        return all(is_zero(self._sectors(at, min(_STEP_SECTORS, sector + count - at))) for at in steps)

    def _sectors(self, sector: int, count: int) -> bytes:
        return self._read(sector * SECTOR_BYTES, count * SECTOR_BYTES, "what is between its grains")

    def _directory(self, sector: int) -> array[int]:
        """Return in which sector each table is; 0: in none, so that it stands for zeros."""
        start, length = sector * SECTOR_BYTES, self._layout.tables * 4
        entries = little_endian("I", self._read(start, length, "its grain directory"))
        self._stretches.add_bytes(start, length)
        held = [entry for entry in entries if entry]
        if held:
            within(self._window, max(held) * SECTOR_BYTES, TABLE_BYTES, name=self._name, what="a grain table")
        self._stretches.add_all(held, TABLE_BYTES // SECTOR_BYTES)
        return entries

    def _entries(self, tables: array[int]) -> array[int]:
        """Return the entries of some tables; those that follow each other in the file are read in one go."""
        entries: array[int] = array("I")
        for sector, count in _in_a_row(tables):
            length = count * TABLE_BYTES
            content = self._read(sector * SECTOR_BYTES, length, "a grain table") if sector else bytes(length)
            entries.extend(little_endian("I", content))
        return entries

    def _grains(self, entries: array[int], first: int) -> int:
        """Look at the grains of some tables, the first of which is that of the grain ``first``; return how many."""
        layout = self._layout
        if any(entries[layout.grains - first :]):
            raise self._corrupt("a grain table has a grain beyond the end of the disk")
        empty = {0, _ZEROED} if layout.has_zeroed else {0}
        if layout.is_compressed:
            held = [(number, sector) for number, sector in enumerate(entries, first) if sector not in empty]
            for number, sector in held:
                self._compressed_grain(number, sector)
            return len(held)
        starts = [sector for sector in entries if sector not in empty]
        if starts:
            self._refuse_beyond(max(starts), entries, first)
            self._stretches.add_all(starts, layout.grain_sectors)
        return len(starts)

    def _refuse_beyond(self, highest: int, entries: array[int], first: int) -> None:
        # Of the last grain, the file may end where the disk does.
        layout = self._layout
        number = first + entries.index(highest)
        wanted = min(layout.grain_sectors, layout.capacity_sectors - number * layout.grain_sectors)
        start, length = highest * SECTOR_BYTES, wanted * SECTOR_BYTES
        within(self._window, start, length, name=self._name, what=f"its grain {number}")

    def _compressed_grain(self, number: int, sector: int) -> None:
        grain_sectors = self._layout.grain_sectors
        start, what = sector * SECTOR_BYTES, f"its grain {number}"
        place, length = GRAIN_MARKER.unpack(self._read(start, GRAIN_MARKER.size, what))
        if place != number * grain_sectors:
            found = f"the grain of sector {number * grain_sectors} has the marker of sector {place}"
            raise refusal(CorruptImageError, self._name, found, offset=start, why=_DIFFERENT)
        # QEMU takes no more of a grain either; deflated data is hardly ever longer than what it stands for.
        if not 0 < length <= 2 * grain_sectors * SECTOR_BYTES:
            found = f"{what} would have {length} bytes"
            raise refusal(CorruptImageError, self._name, found, offset=start, why=_MISLEADING)
        within(self._window, start, GRAIN_MARKER.size + length, name=self._name, what=what)
        self._stretches.add_bytes(start, GRAIN_MARKER.size + length)

    def _read(self, start: int, length: int, what: str) -> bytes:
        return read_exactly(self._window, start, length, name=self._name, what=what)

    def _corrupt(self, found: str) -> ImageRefusedError:
        offset = self._layout.directory_sector * SECTOR_BYTES
        return refusal(CorruptImageError, self._name, found, offset=offset, why=_DIFFERENT)


def _in_a_row(tables: array[int]) -> Iterator[tuple[int, int]]:
    """Yield where tables begin that follow each other, and how many they are; so for those that are nowhere."""
    first = count = 0
    for sector in tables:
        step = TABLE_BYTES // SECTOR_BYTES if first else 0
        if count and sector == first + count * step:
            count += 1
            continue
        if count:
            yield first, count
        first, count = sector, 1
    if count:
        yield first, count
