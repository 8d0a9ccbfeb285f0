# SPDX-License-Identifier: Apache-2.0
"""The GUID partition table (UEFI 2.10, section 5.3): a header and its entries, each with a CRC, twice."""

from __future__ import annotations

import struct
import unicodedata
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.model import PartitionTable
from coppice.formats.partition_layout import SECTOR_BYTES, Partition, PartitionLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]

SECTOR_SIZES = (SECTOR_BYTES, 4096)
"""Lengths of a sector by which a table may count."""
MOST_TABLE_BYTES = 1024 * 1024
"""Of all entries; the usual table has 16 KiB."""
_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_LEGACY_BOOT = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    backup_sector: int
    first_usable: int
    last_usable: int
    entries_sector: int
    entry_count: int
    entry_bytes: int
    entries_crc: int


class _DamagedError(Exception):
    """A header or its entries cannot be believed; the text says why."""


def has_gpt_signature(read: Read) -> bool:
    """Return whether a GPT header seems to lie where the first one does."""
    return any(read(sector, len(_SIGNATURE)) == _SIGNATURE for sector in SECTOR_SIZES)


def gpt_layout(read: Read, size_bytes: int, *, hybrid: bool) -> PartitionLayout:
    """Return the layout of a disk whose MBR announces a GPT.

    The first header is believed when it is whole; the one at the end of the disk otherwise, which is noted, as it is
    when the two do not agree.

    Args:
        read: Gives the disk's bytes.
        size_bytes: Length of the disk.
        hybrid: Whether the MBR has partitions of its own beside.
    """
    notes = ["the MBR has partitions of its own beside the GPT"] if hybrid else []
    sector = next((one for one in SECTOR_SIZES if read(one, len(_SIGNATURE)) == _SIGNATURE), None)
    sizes = SECTOR_SIZES if sector is None else (sector,)
    faults = []
    for sector_bytes in sizes:
        last = size_bytes // sector_bytes - 1
        if sector is not None:
            try:
                header, partitions = _table(read, size_bytes, sector_bytes, 1)
            except _DamagedError as problem:
                faults.append(f"the first GPT is damaged: {problem}")
            else:
                notes += _backup_notes(read, size_bytes, sector_bytes, header)
                return _layout(partitions, sector_bytes, notes)
        try:
            _, partitions = _table(read, size_bytes, sector_bytes, last)
        except _DamagedError as problem:
            faults.append(f"no GPT at the end of the disk: {problem}")
        else:
            return _layout(partitions, sector_bytes, [*notes, *(faults or ["the first GPT is missing"])])
    return PartitionLayout(table=PartitionTable.GPT, problem="; ".join(dict.fromkeys(faults)), notes=tuple(notes))


def _layout(partitions: tuple[Partition, ...], sector_bytes: int, notes: list[str]) -> PartitionLayout:
    return PartitionLayout(
        table=PartitionTable.GPT, partitions=partitions, sector_bytes=sector_bytes, notes=tuple(notes)
    )


def _backup_notes(read: Read, size_bytes: int, sector_bytes: int, header: _Header) -> list[str]:
    if header.backup_sector != size_bytes // sector_bytes - 1:
        return ["the backup of the GPT is not said to be at the end of the disk: it was cut or made larger"]
    try:
        backup, _ = _table(read, size_bytes, sector_bytes, header.backup_sector)
    except _DamagedError as problem:
        return [f"the backup of the GPT is damaged: {problem}"]
    return [] if backup.entries_crc == header.entries_crc else ["the GPT and its backup do not agree"]


def _table(read: Read, size_bytes: int, sector_bytes: int, sector: int) -> tuple[_Header, tuple[Partition, ...]]:
    """Return a header and its partitions.

    Raises:
        _DamagedError: It is none, its sums are wrong, or it says what cannot be.
    """
    header = _header(read, size_bytes, sector_bytes, sector)
    length = header.entry_count * header.entry_bytes
    if length > MOST_TABLE_BYTES:
        raise _DamagedError(f"its entries would take {length} bytes, and {MOST_TABLE_BYTES} are taken at most")
    start = header.entries_sector * sector_bytes
    if start < 2 * sector_bytes or start + length > size_bytes:
        raise _DamagedError(f"its entries would lie at byte {start}, outside of where they may be")
    entries = read(start, length)
    if len(entries) != length or zlib.crc32(entries) != header.entries_crc:
        raise _DamagedError(f"the sum over its entries at byte {start} is wrong")
    found = []
    for index in range(header.entry_count):
        at = index * header.entry_bytes
        partition = _partition(entries[at : at + _ENTRY.size], index + 1, size_bytes, sector_bytes)
        if partition is not None:
            found.append(partition)
    return header, tuple(found)


def _header(read: Read, size_bytes: int, sector_bytes: int, at: int) -> _Header:
    if at < 1 or (at + 1) * sector_bytes > size_bytes:
        raise _DamagedError("the disk ends before it")
    sector = read(at * sector_bytes, sector_bytes)
    if len(sector) != sector_bytes or sector[: len(_SIGNATURE)] != _SIGNATURE:
        raise _DamagedError(f"there is no header at byte {at * sector_bytes}")
    (_, revision, length, crc, _, own, backup, first, last, _, entries, count, entry_bytes, entries_crc) = (
        _HEADER.unpack_from(sector)
    )
    if not _HEADER.size <= length <= sector_bytes:
        raise _DamagedError(f"its header would have {length} bytes")
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:length]) != crc:
        raise _DamagedError(f"the sum over the header at byte {at * sector_bytes} is wrong")
    if revision >> 16 != 1 or own != at:
        raise _DamagedError(f"the header at byte {at * sector_bytes} is of another version, or of another place")
    if entry_bytes < _ENTRY.size or entry_bytes % 8 or not count:
        raise _DamagedError(f"it would have {count} entries of {entry_bytes} bytes")
    return _Header(
        backup_sector=backup,
        first_usable=first,
        last_usable=last,
        entries_sector=entries,
        entry_count=count,
        entry_bytes=entry_bytes,
        entries_crc=entries_crc,
    )


def _partition(entry: bytes, number: int, size_bytes: int, sector_bytes: int) -> Partition | None:
    kind, own, first, last, attributes, label = _ENTRY.unpack(entry)
    if not any(kind) or last < first:
        return None
    start, length = first * sector_bytes, (last - first + 1) * sector_bytes
    return Partition(
        number=number,
        start_bytes=start,
        size_bytes=length,
        kind=str(uuid.UUID(bytes_le=kind)),
        label=_printable(label.decode("utf-16-le", errors="replace").split("\0", 1)[0]),
        uuid=str(uuid.UUID(bytes_le=own)),
        is_active=bool(attributes & _LEGACY_BOOT),
        is_inside=start + length <= size_bytes,
    )


def _printable(text: str) -> str:
    return "".join(letter if unicodedata.category(letter)[0] not in "CZ" or letter == " " else "?" for letter in text)
