# SPDX-License-Identifier: Apache-2.0
"""What a qcow2 file has beside its disk: internal snapshots and dirty bitmaps, which a conversion leaves behind.

QEMU's ``docs/interop/qcow2.txt``, "Snapshots" and "Bitmaps"; bounds as in ``block/qcow2.h``. A program that opens the
file reads both, so they are bounded here although nobody wants them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import read_exactly
from coppice.conversion.refusal import refusal
from coppice.errors import UnsupportedImageError

if TYPE_CHECKING:
    from coppice.conversion.disks.qcow2_header import Qcow2Header
    from coppice.conversion.disks.qcow2_tables import HostClusters
    from coppice.conversion.window import Window

MOST_SNAPSHOTS = 65536
MOST_BITMAPS = 1000
MOST_BITMAP_BYTES = 64 * 1024 * 1024
"""Of all bitmaps together, as a program that opens the file has them in memory."""
_SNAPSHOT = struct.Struct(">QIHHIIQII")
_MOST_EXTRA_BYTES = 1024
_MOST_L1_BYTES = 32 * 1024 * 1024
_BITMAPS = struct.Struct(">IIQQ")
_BITMAP = struct.Struct(">QIIBBHI")
_GRANULARITY_BITS = range(9, 32)
_MOST_DIRECTORY_BYTES = MOST_BITMAPS * 1024


def snapshots(window: Window, header: Qcow2Header, hosts: HostClusters, name: str) -> int:
    """Return how many internal snapshots there are, after a look at their table.

    Raises:
        CorruptImageError: The table, or the first-level table of one, is not where it can be.
        UnsupportedImageError: There are too many.
    """
    if header.snapshots > MOST_SNAPSHOTS:
        raise refusal(
            UnsupportedImageError,
            name,
            f"it has {header.snapshots} internal snapshots",
            offset=60,
            why=f"no program reads more than {MOST_SNAPSHOTS}",
        )
    if header.snapshots_offset % header.cluster_bytes or header.snapshots_offset > window.size_bytes:
        raise hosts.broken(f"its table of internal snapshots would begin at byte {header.snapshots_offset}", 64)
    if not header.snapshots:
        return 0
    at = header.snapshots_offset
    for _ in range(header.snapshots):
        fields = _SNAPSHOT.unpack(
            read_exactly(window, at, _SNAPSHOT.size, name=name, what="its table of internal snapshots")
        )
        l1_offset, l1_entries, identifier_bytes, name_bytes = fields[:4]
        extra_bytes = fields[8]
        if extra_bytes > _MOST_EXTRA_BYTES or l1_entries * 8 > _MOST_L1_BYTES:
            raise hosts.broken("the record of an internal snapshot is out of bounds", at)
        if l1_entries:
            hosts.take_metadata(l1_offset, l1_entries * 8, "the first-level table of an internal snapshot")
        at += -(-(_SNAPSHOT.size + extra_bytes + identifier_bytes + name_bytes) // 8) * 8
    length = at - header.snapshots_offset
    # The last record need not be padded to the end.
    hosts.take_metadata(
        header.snapshots_offset, min(length, window.size_bytes - header.snapshots_offset), "its table of snapshots"
    )
    return header.snapshots


def bitmaps(window: Window, header: Qcow2Header, hosts: HostClusters, name: str) -> int:
    """Return how many dirty bitmaps there are, after a look at their directory.

    Raises:
        CorruptImageError: The directory, or the table of one, is not where it can be.
        UnsupportedImageError: There are too many, or they would fill the memory of whoever opens the file.
    """
    if header.bitmaps is None:
        return 0
    at, content = header.bitmaps
    if len(content) < _BITMAPS.size:
        raise hosts.broken(f"its list of bitmaps has {len(content)} bytes", at)
    count, _, size, offset = _BITMAPS.unpack_from(content)
    if not 0 < count <= MOST_BITMAPS or size > _MOST_DIRECTORY_BYTES:
        raise refusal(
            UnsupportedImageError,
            name,
            f"it has {count} dirty bitmaps, in a directory of {size} bytes",
            offset=at,
            why=f"at most {MOST_BITMAPS} are taken: whoever opens the file has them in memory",
        )
    hosts.take_metadata(offset, size, "its directory of bitmaps")
    directory = read_exactly(window, offset, size, name=name, what="its directory of bitmaps")
    start, memory = 0, 0
    for _ in range(count):
        if start + _BITMAP.size > size:
            raise hosts.broken("its directory of bitmaps ends early", offset + start)
        table, entries, _, _, granularity, name_bytes, extra_bytes = _BITMAP.unpack_from(directory, start)
        if granularity not in _GRANULARITY_BITS:
            raise hosts.broken(f"a bitmap has a bit for each 2^{granularity} bytes", offset + start)
        memory += (header.virtual_size_bytes >> granularity) // 8
        if entries:
            hosts.take_metadata(table, entries * 8, "the table of a bitmap")
        start += -(-(_BITMAP.size + extra_bytes + name_bytes) // 8) * 8
    if memory > MOST_BITMAP_BYTES:
        raise refusal(
            UnsupportedImageError,
            name,
            f"its dirty bitmaps stand for {memory} bytes",
            offset=offset,
            why=f"at most {MOST_BITMAP_BYTES} are taken: whoever opens the file has them in memory",
        )
    return int(count)
