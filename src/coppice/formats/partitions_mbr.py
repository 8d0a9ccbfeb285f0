# SPDX-License-Identifier: Apache-2.0
"""The MBR: four entries in the first sector, and a chain of further sectors for logical partitions."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.model import PartitionTable
from coppice.formats.partition_layout import BOOT_SIGNATURE, SECTOR_BYTES, Partition, PartitionLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_LOGICAL_PARTITIONS = 128
"""A chain with more is not followed further."""
FIRST_LOGICAL_NUMBER = 5
_TABLE_OFFSET = 446
_ENTRY = struct.Struct("<B3sB3sII")
_ACTIVE = 0x80
_PROTECTIVE_KIND = 0xEE
_EXTENDED_KINDS = frozenset({0x05, 0x0F, 0x85})


@dataclass(frozen=True, slots=True, kw_only=True)
class MbrEntry:
    """One of the four entries that is in use.

    Attributes:
        number: Its place, from 1 on.
        kind: The type byte.
        is_active: Whether it is marked to be started.
        start_bytes: Where it begins, from where its table counts.
        size_bytes: Its length.
    """

    number: int
    kind: int
    is_active: bool
    start_bytes: int
    size_bytes: int

    @property
    def is_protective(self) -> bool:
        """Return whether it announces a GPT."""
        return self.kind == _PROTECTIVE_KIND

    @property
    def is_extended(self) -> bool:
        """Return whether it holds logical partitions."""
        return self.kind in _EXTENDED_KINDS


def entries_of(sector: bytes, size_bytes: int) -> tuple[MbrEntry, ...] | None:
    """Return the entries in use of a disk's first sector; None: it is no partition table.

    A sector is one when its signature is there, each flag is 0 or 0x80, at least one entry is in use, and one of these
    begins inside of the disk and behind the sector. The boot sector of a FAT or NTFS file system has the signature as
    well, and text or code where the entries would be.
    """
    raw = _raw_entries(sector)
    if raw is None or not raw:
        return None
    if not any(SECTOR_BYTES <= entry.start_bytes < size_bytes for entry in raw):
        return None
    return raw


def _raw_entries(sector: bytes) -> tuple[MbrEntry, ...] | None:
    if len(sector) < SECTOR_BYTES or sector[510:512] != BOOT_SIGNATURE:
        return None
    entries = []
    for index in range(4):
        flag, _, kind, _, start, count = _ENTRY.unpack_from(sector, _TABLE_OFFSET + index * _ENTRY.size)
        if flag not in {0, _ACTIVE}:
            return None
        if kind == 0 or count == 0:
            continue
        entries.append(
            MbrEntry(
                number=index + 1,
                kind=kind,
                is_active=flag == _ACTIVE,
                start_bytes=start * SECTOR_BYTES,
                size_bytes=count * SECTOR_BYTES,
            )
        )
    return tuple(entries)


def mbr_layout(
    read: Callable[[int, int], bytes], size_bytes: int, entries: Sequence[MbrEntry], *, stray_gpt: bool
) -> PartitionLayout:
    """Return the layout of a disk with these entries; see `coppice.formats.partitions.read_partitions`.

    Args:
        read: Gives the disk's bytes.
        size_bytes: Length of the disk.
        entries: What `entries_of` gave.
        stray_gpt: Whether a GPT header is there as well.
    """
    partitions = [_partition(entry, entry.number, entry.start_bytes, size_bytes) for entry in entries]
    notes = ["there is a GPT header as well, which no MBR announces"] if stray_gpt else []
    problem = None
    for entry in entries:
        if entry.is_extended:
            number = FIRST_LOGICAL_NUMBER + sum(1 for one in partitions if one.number >= FIRST_LOGICAL_NUMBER)
            logical, fault = _logical(read, size_bytes, entry, number)
            partitions.extend(logical)
            problem = problem or fault
    kept = tuple(one for one in partitions if int(one.kind, 16) not in _EXTENDED_KINDS)
    return PartitionLayout(table=PartitionTable.MBR, partitions=kept, problem=problem, notes=tuple(notes))


def _logical(
    read: Callable[[int, int], bytes], size_bytes: int, extended: MbrEntry, number: int
) -> tuple[list[Partition], str | None]:
    found: list[Partition] = []
    seen: set[int] = set()
    at = extended.start_bytes
    while True:
        if at in seen:
            return found, f"the chain of logical partitions leads back to byte {at}"
        if number + len(found) >= FIRST_LOGICAL_NUMBER + MOST_LOGICAL_PARTITIONS:
            return found, f"there are more than {MOST_LOGICAL_PARTITIONS} logical partitions"
        seen.add(at)
        entries = _raw_entries(read(at, SECTOR_BYTES)) if at + SECTOR_BYTES <= size_bytes else None
        if entries is None:
            return found, f"the chain of logical partitions is broken at byte {at}"
        # The first entry is the partition and counts from here; the second, the next link, from the first link on.
        partition = next((entry for entry in entries if not entry.is_extended), None)
        if partition is not None:
            found.append(_partition(partition, number + len(found), at + partition.start_bytes, size_bytes))
        following = next((entry for entry in entries if entry.is_extended), None)
        if following is None:
            return found, None
        at = extended.start_bytes + following.start_bytes


def _partition(entry: MbrEntry, number: int, start: int, size_bytes: int) -> Partition:
    return Partition(
        number=number,
        start_bytes=start,
        size_bytes=entry.size_bytes,
        kind=f"0x{entry.kind:02x}",
        is_active=entry.is_active,
        is_inside=start + entry.size_bytes <= size_bytes,
    )
