# SPDX-License-Identifier: Apache-2.0
"""Tiny VHDX images, written byte by byte from MS-VHDX, and never by a tool."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.formats.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB = 1024
MIB = 1024 * KIB
HEADERS = (64 * KIB, 128 * KIB)
TABLES = (192 * KIB, 256 * KIB)
LOG, BAT, METADATA, DATA = MIB, 2 * MIB, 3 * MIB, 4 * MIB
"""Where things are."""
TABLE_REGION = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")
METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
DISK_ID = bytes.fromhex("ab12cabee6b2234593efc309e000c746")
LOGICAL = bytes.fromhex("1dbf41816fa90947ba47f233a8faab5f")
PHYSICAL = bytes.fromhex("c748a3cd5d4471449cc9e9885251c556")
PARENT = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
REQUIRED = 0b100
GOOD_REGIONS = ((TABLE_REGION, BAT, MIB, 1), (METADATA_REGION, METADATA, MIB, 1))
GOOD_ITEMS: Mapping[bytes, bytes] = {
    PARAMETERS: struct.pack("<II", MIB, 0),
    DISK_SIZE: struct.pack("<Q", 4 * MIB),
    DISK_ID: b"\x03" * 16,
    LOGICAL: struct.pack("<I", 512),
    PHYSICAL: struct.pack("<I", 4096),
}


def sealed(content: bytes) -> bytes:
    """Return a header or a region table with its right checksum."""
    clean = content[:4] + bytes(4) + content[8:]
    return content[:4] + struct.pack("<I", crc32c(clean)) + content[8:]


def header(
    sequence: int,
    *,
    log: bytes = b"",
    version: int = 1,
    log_version: int = 0,
    log_length: int = MIB,
    log_offset: int = LOG,
) -> bytes:
    """Return one of the two headers."""
    fields = (b"head", 0, sequence, b"\x01" * 16, b"\x02" * 16, log, log_version, version, log_length, log_offset)
    return sealed(struct.pack("<4sIQ16s16s16sHHIQ", *fields).ljust(4 * KIB, b"\0"))


def region_table(regions: tuple[tuple[bytes, int, int, int], ...] = GOOD_REGIONS, *, count: int | None = None) -> bytes:
    """Return a region table: of each its kind, its place, its length, and whether it has to be known."""
    head = struct.pack("<4sIII", b"regi", 0, len(regions) if count is None else count, 0)
    return sealed((head + b"".join(struct.pack("<16sQII", *each) for each in regions)).ljust(64 * KIB, b"\0"))


def metadata(items: Mapping[bytes, bytes] = GOOD_ITEMS, *, unknown_flags: int = REQUIRED) -> bytes:
    """Return the metadata: what each item contains; one that is not known gets the flags that are told."""
    entries, values = b"", b""
    for kind, value in items.items():
        flags = REQUIRED if kind in GOOD_ITEMS else unknown_flags
        entries += struct.pack("<16sIIII", kind, 64 * KIB + len(values), len(value), flags, 0)
        values += value
    table = struct.pack("<8sHH20x", b"metadata", 0, len(items)) + entries
    return table.ljust(64 * KIB, b"\0") + values


def vhdx(
    *,
    headers: tuple[bytes, bytes] | None = None,
    tables: tuple[bytes, bytes] | None = None,
    items: bytes | None = None,
    bat: tuple[int, ...] = (DATA | 6, 0, 2, 3),
    content: tuple[bytes, ...] = (b"first",),
) -> bytes:
    """Return a dynamic VHDX of 4 MiB that has its first block.

    Args:
        headers: Others.
        tables: Other region tables.
        items: Other metadata.
        bat: The entries of the block allocation table.
        content: Of the blocks, in the order of the file.
    """
    image = bytearray(DATA)
    image[:8] = b"vhdxfile"
    pieces = dict(zip(HEADERS, (header(7), header(8)) if headers is None else headers, strict=True))
    pieces |= dict(zip(TABLES, (region_table(), region_table()) if tables is None else tables, strict=True))
    pieces[BAT] = struct.pack(f"<{len(bat)}Q", *bat)
    pieces[METADATA] = metadata() if items is None else items
    for start, piece in pieces.items():
        image[start : start + len(piece)] = piece
    return bytes(image) + b"".join(each.ljust(MIB, b"\0") for each in content)
