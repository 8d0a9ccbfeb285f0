# SPDX-License-Identifier: Apache-2.0
"""The head of a VHDX: two headers and two region tables, each with a checksum (MS-VHDX 2.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import read_exactly, within
from coppice.conversion.disks.stretches import Stretches
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, UnsupportedImageError
from coppice.formats.crc32c import crc32c

if TYPE_CHECKING:
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

KIB = 1024
MIB = 1024 * KIB
HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
HEADER_OFFSETS = (64 * KIB, 128 * KIB)
HEADER_BYTES = 4 * KIB
REGION_TABLE_OFFSETS = (192 * KIB, 256 * KIB)
REGION_TABLE_BYTES = 64 * KIB
REGION_TABLE = struct.Struct("<4sIII")
REGION = struct.Struct("<16sQII")
CHECKSUM_OFFSET = 4
TABLE_REGION = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")
METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_LOG_GUID_OFFSET = 48
_VERSIONS_OFFSET = 64
_LOG_LENGTH_OFFSET = 68
_MOST_REGIONS = 2047
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A stretch of the file that has a purpose, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What the head says of the file.

    Attributes:
        table: Where the block allocation table is.
        metadata: Where the metadata are.
        taken: All regions, known or not, and the log.
    """

    table: Region
    metadata: Region
    taken: tuple[Region, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    offset: int
    content: bytes
    sequence: int


def read_regions(window: Window, name: str) -> Regions:
    """Return the regions, after both headers and both tables were looked at.

    Args:
        window: The image's bytes.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: A copy is broken or says something else than the other; the image was not closed; it has a
            region that has to be known and is not.
    """
    headers = [_header(window, offset, name) for offset in HEADER_OFFSETS]
    if headers[0].sequence == headers[1].sequence and headers[0].content != headers[1].content:
        raise _corrupt(name, "its two headers have one sequence number and differ", HEADER_OFFSETS[1] + 8)
    current = max(headers, key=lambda header: header.sequence)
    log = _log(window, current, name)
    tables = [
        read_exactly(window, offset, REGION_TABLE_BYTES, name=name, what="its region table")
        for offset in REGION_TABLE_OFFSETS
    ]
    if tables[0] != tables[1]:
        raise _corrupt(name, "its two region tables differ", REGION_TABLE_OFFSETS[1])
    _refuse_wrong_checksum(tables[0], REGION_TABLE_OFFSETS[0], "region table", name)
    found = _region_table(window, tables[0], name)
    taken = (*found.taken, log) if log.length else found.taken
    stretches = Stretches(name, "regions")
    stretches.add_bytes(0, MIB)
    for region in taken:
        stretches.add_bytes(region.offset, region.length)
    stretches.refuse_overlap()
    return Regions(table=found.table, metadata=found.metadata, taken=taken)


def _header(window: Window, offset: int, name: str) -> _Header:
    content = read_exactly(window, offset, HEADER_BYTES, name=name, what="its header")
    signature, _, sequence, *_ = HEADER.unpack_from(content)
    if signature != b"head":
        raise _corrupt(name, "it has no header", offset)
    _refuse_wrong_checksum(content, offset, "header", name)
    return _Header(offset=offset, content=content, sequence=sequence)


def _log(window: Window, header: _Header, name: str) -> Region:
    """Return where the log is that the header in force names; it must be empty, as its identifier tells (2.3)."""
    *_, log_guid, log_version, version, log_length, log_offset = HEADER.unpack_from(header.content)
    if version != 1 or log_version != 0:
        raise refusal(
            UnsupportedImageError,
            name,
            f"it is a VHDX of the version {version} with a log of the version {log_version}",
            offset=header.offset + _VERSIONS_OFFSET,
            why="only version 1 with a log of version 0 is taken",
        )
    if any(log_guid):
        raise refusal(
            CorruptImageError,
            name,
            "its log is not empty",
            offset=header.offset + _LOG_GUID_OFFSET,
            why="the image was not closed, so that its tables are not those of the disk",
            resolution="No tool opened it. Whoever publishes it can attach it once and detach it, which plays the log.",
        )
    log = Region(offset=log_offset, length=log_length)
    if log_length:
        _refuse_misplaced(window, log, header.offset + _LOG_LENGTH_OFFSET, "log", name)
    return log


def _region_table(window: Window, content: bytes, name: str) -> Regions:
    start = REGION_TABLE_OFFSETS[0]
    signature, _, count, _ = REGION_TABLE.unpack_from(content)
    if signature != b"regi" or count > _MOST_REGIONS:
        raise _corrupt(name, "it has no region table", start)
    known: dict[bytes, Region] = {}
    taken = []
    for number in range(count):
        at = REGION_TABLE.size + number * REGION.size
        kind, offset, length, required = REGION.unpack_from(content, at)
        region = Region(offset=offset, length=length)
        _refuse_misplaced(window, region, start + at, "region", name)
        taken.append(region)
        if kind in known:
            raise _corrupt(name, "it has two regions of one kind", start + at)
        if kind not in {TABLE_REGION, METADATA_REGION} and required & 1:
            raise refusal(
                UnsupportedImageError,
                name,
                f"it has an unknown region ({kind.hex()})",
                offset=start + at,
                why="the image says that it cannot be read without that",
            )
        known[kind] = region
    for kind, what in ((TABLE_REGION, "block allocation table"), (METADATA_REGION, "metadata")):
        if kind not in known:
            raise _corrupt(name, f"it has no {what}", start)
    return Regions(table=known[TABLE_REGION], metadata=known[METADATA_REGION], taken=tuple(taken))


def _refuse_misplaced(window: Window, region: Region, offset: int, what: str, name: str) -> None:
    if region.offset % MIB or region.offset < MIB or region.length % MIB or region.length == 0:
        raise _corrupt(
            name, f"its {what} of {region.length} bytes would begin at byte {region.offset}, which is no MiB", offset
        )
    within(window, region.offset, region.length, name=name, what=f"its {what}")


def _refuse_wrong_checksum(content: bytes, offset: int, what: str, name: str) -> None:
    stated = int.from_bytes(content[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4], "little")
    if crc32c(content[:CHECKSUM_OFFSET] + bytes(4) + content[CHECKSUM_OFFSET + 4 :]) != stated:
        raise _corrupt(name, f"the checksum of its {what} is wrong", offset + CHECKSUM_OFFSET)


def _corrupt(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, found, offset=offset, why=_MISLEADING)
