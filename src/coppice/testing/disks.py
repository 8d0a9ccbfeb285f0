# SPDX-License-Identifier: Apache-2.0
"""Tiny VMDK, VDI and VHD images, written byte by byte from their specifications, and never by a tool.

Each is a good one of 1 MiB with a little content, unless it is told otherwise; `patched` and the ``resealed`` functions
make broken ones of them.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTOR = 512
KIB = 1024
MIB = 1024 * KIB
GRAIN = 128 * SECTOR
AT_END = 2**64 - 1
SPARSE_FLAGS = 0b11
STREAM_FLAGS = 1 << 17 | 1 << 16 | 1
RGD, RGT, GD, GT, OVERHEAD = 21, 22, 26, 27, 128
"""Sectors of the tables of `sparse_vmdk`."""
VHD_HEADER = 512
VHD_TABLE = 1536
VHD_BLOCK = 2 * MIB
VHD_FIRST_BLOCK = 2048
_HOLE = 64 * KIB


def patched(content: bytes, offset: int, form: str, *values: Any) -> bytes:
    """Return bytes in which some were replaced by values in the form of `struct`."""
    piece = struct.pack(form, *values)
    at = offset if offset >= 0 else len(content) + offset
    return content[:at] + piece + content[at + len(piece) :]


def write_sparsely(path: Path, content: bytes) -> None:
    """Write a file in which zeros take no room."""
    with path.open("wb") as stream:
        for start in range(0, len(content), _HOLE):
            piece = content[start : start + _HOLE]
            if piece.count(0) < len(piece):
                stream.seek(start)
                stream.write(piece)
        stream.truncate(len(content))


def vmdk_text(
    kind: str = "monolithicSparse",
    *,
    extents: str = 'RW 2048 SPARSE "disk.vmdk"',
    parent: str = "ffffffff",
    more: str = "",
) -> bytes:
    """Return the descriptor of a VMDK, in its room of 20 sectors."""
    text = (
        f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={parent}\ncreateType="{kind}"\n{more}\n'
        f'# Extent description\n{extents}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "ide"\n'
    )
    return text.encode("latin-1").ljust(20 * SECTOR, b"\0")


def vmdk_header(**fields: Any) -> bytes:
    """Return the header of a VMDK of 1 MiB in grains of 64 KiB; each field may be told otherwise."""
    values: dict[str, Any] = {
        "magic": b"KDMV",
        "version": 1,
        "flags": SPARSE_FLAGS,
        "capacity": 2048,
        "grain": 128,
        "descriptor_sector": 1,
        "room": 20,
        "entries": 512,
        "redundant": RGD,
        "directory": GD,
        "overhead": OVERHEAD,
        "unclean": 0,
        "newlines": b"\n \r\n",
        "compression": 0,
    }
    unknown = sorted(set(fields) - set(values))
    if unknown:
        message = f"a VMDK's header has no {unknown}"
        raise ValueError(message)
    return struct.pack("<4sIIQQQQIQQQB4sH", *(values | fields).values()).ljust(SECTOR, b"\0")


def sparse_vmdk(
    *,
    grains: Mapping[int, bytes] | None = None,
    descriptor: bytes | None = None,
    **fields: Any,
) -> bytes:
    """Return a ``monolithicSparse`` VMDK.

    Args:
        grains: Content by the number of its grain.
        descriptor: Another one.
        fields: Of the header, see `vmdk_header`.
    """
    held = {0: b"first", 5: b"second"} if grains is None else grains
    table = [0] * 512
    for place, number in enumerate(held):
        table[number] = OVERHEAD + place * 128
    packed = struct.pack("<512I", *table)
    head = vmdk_header(**fields) + (vmdk_text() if descriptor is None else descriptor)
    head += struct.pack("<I", RGT).ljust(SECTOR, b"\0") + packed
    head += struct.pack("<I", GT).ljust(SECTOR, b"\0") + packed
    return head.ljust(OVERHEAD * SECTOR, b"\0") + b"".join(each.ljust(GRAIN, b"\0") for each in held.values())


def stream_vmdk(
    *,
    grains: Mapping[int, bytes] | None = None,
    descriptor: bytes | None = None,
    footer: Mapping[str, Any] | None = None,
    **fields: Any,
) -> bytes:
    """Return a ``streamOptimized`` VMDK as VMware and VirtualBox write them, with its directory at its end.

    Args:
        grains: Content by the number of its grain.
        descriptor: Another one.
        footer: Fields that the footer has otherwise than the header.
        fields: Of the header, see `vmdk_header`.
    """
    common = {"version": 3, "flags": STREAM_FLAGS, "redundant": 0, "compression": 1} | fields
    text = vmdk_text("streamOptimized") if descriptor is None else descriptor
    body = (vmdk_header(**{"directory": AT_END} | common) + text).ljust(OVERHEAD * SECTOR, b"\0")
    table = [0] * 512
    for number, content in ({0: b"first", 5: b"second"} if grains is None else grains).items():
        table[number] = len(body) // SECTOR
        packed = zlib.compress(content.ljust(GRAIN, b"\0"))
        body += _whole_sectors(struct.pack("<QI", number * 128, len(packed)) + packed)
    body += _marker(4, 1) + struct.pack("<512I", *table)
    directory = struct.pack("<I", len(body) // SECTOR - 4)
    body += _marker(1, 2) + _whole_sectors(directory)
    own = common | {"directory": len(body) // SECTOR - 1} | dict(footer or {})
    return body + _marker(1, 3) + vmdk_header(**own) + _marker(0, 0)


def vdi(
    *, content: Mapping[int, bytes] | None = None, entries: Mapping[int, int] | None = None, **fields: Any
) -> bytes:
    """Return a dynamic VDI of 4 MiB.

    Args:
        content: Content by the number of its block.
        entries: Of the block map, that are otherwise.
        fields: Of the header, that are otherwise.
    """
    held = {2: b"first", 0: b"second"} if content is None else content
    values: dict[str, Any] = {
        "text": b"<<< Virtual Disk Image >>>\n",
        "signature": b"\x7f\x10\xda\xbe",
        "version": 0x00010001,
        "header": 400,
        "kind": 1,
        "flags": 0,
        "description": b"",
        "map": SECTOR,
        "data": 2 * SECTOR,
        "cylinders": 0,
        "heads": 0,
        "sectors": 0,
        "sector": SECTOR,
        "unused": 0,
        "size": 4 * MIB,
        "block": MIB,
        "extra": 0,
        "blocks": 4,
        "allocated": len(held),
        "own": b"\x01" * 16,
        "snapshot": b"\x02" * 16,
        "link": b"",
        "parent": b"",
    } | fields
    table = [0xFFFFFFFF] * (SECTOR // 4)
    for place, number in enumerate(held):
        table[number] = place
    for number, place in (entries or {}).items():
        table[number] = place
    header = struct.pack("<64s4sIIII256sIIIIIIIQIIII16s16s16s16s", *values.values()).ljust(SECTOR, b"\0")
    return header + struct.pack("<128I", *table) + b"".join(each.ljust(MIB, b"\0") for each in held.values())


def vhd_footer(**fields: Any) -> bytes:
    """Return the footer of a dynamic VHD of 4 MiB; each field may be told otherwise."""
    values: dict[str, Any] = {
        "cookie": b"conectix",
        "features": 2,
        "version": 0x00010000,
        "header_offset": VHD_HEADER,
        "time": 0,
        "creator": b"win ",
        "creator_version": 0x00060001,
        "system": b"Wi2k",
        "original": 4 * MIB,
        "current": 4 * MIB,
        "cylinders": 120,
        "heads": 4,
        "sectors": 17,
        "kind": 3,
        "checksum": 0,
        "identifier": b"\x01" * 16,
        "saved": 0,
    } | fields
    return resealed_vhd(struct.pack(">8sIIQI4sI4sQQHBBII16sB", *values.values()).ljust(SECTOR, b"\0"), 64)


def vhd_header(**fields: Any) -> bytes:
    """Return the header of a dynamic VHD of two blocks; each field may be told otherwise."""
    values: dict[str, Any] = {
        "cookie": b"cxsparse",
        "next": AT_END,
        "table": VHD_TABLE,
        "version": 0x00010000,
        "entries": 2,
        "block": VHD_BLOCK,
        "checksum": 0,
        "parent": b"",
        "time": 0,
        "reserved": b"",
        "parent_name": b"",
        "locators": b"",
    } | fields
    return resealed_vhd(struct.pack(">8sQQIIII16sI4s512s192s256x", *values.values()), 36)


def resealed_vhd(content: bytes, checksum_offset: int) -> bytes:
    """Return a footer or a header with its right checksum."""
    clean = patched(content, checksum_offset, ">I", 0)
    return patched(clean, checksum_offset, ">I", ~sum(clean) & 0xFFFFFFFF)


def dynamic_vhd(
    *,
    table: tuple[int, ...] = (0xFFFFFFFF, VHD_FIRST_BLOCK // SECTOR),
    bitmap: bytes = b"\xff" * SECTOR,
    content: bytes = b"first",
    header: Mapping[str, Any] | None = None,
    end: bytes | None = None,
    **fields: Any,
) -> bytes:
    """Return a dynamic VHD that has its second block of two.

    Args:
        table: The block allocation table.
        bitmap: Of the block.
        content: Of the block, from its beginning.
        header: Fields of the header that are otherwise.
        end: Another footer than the copy at the beginning.
        fields: Of the footer, see `vhd_footer`.
    """
    footer = vhd_footer(**fields)
    head = footer + vhd_header(**dict(header or {})) + struct.pack(f">{len(table)}I", *table)
    block = bitmap + content.ljust(VHD_BLOCK, b"\0")
    return head.ljust(VHD_FIRST_BLOCK, b"\xff") + block + (footer if end is None else end)


def fixed_vhd(*, content: bytes = b"first", size_bytes: int = 4 * MIB, **fields: Any) -> bytes:
    """Return a fixed VHD: the disk, and its footer behind it."""
    return content.ljust(size_bytes, b"\0") + vhd_footer(**{"kind": 2, "header_offset": AT_END} | fields)


def _whole_sectors(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0")


def _marker(sectors: int, kind: int) -> bytes:
    return struct.pack("<QII", sectors, 0, kind).ljust(SECTOR, b"\0")
