# SPDX-License-Identifier: Apache-2.0
"""ISO 9660: what a disc's volume descriptors say (ECMA-119, 4th edition, clauses 8 and 9).

The first 32 KiB of a disc (the system area, clause 7.2.1) belong to nobody: a boot loader's MBR, or a GPT, may be there
("hybrid"), and so may the header of another format. The former is fine; `detect` refuses the latter.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import read_exactly, within
from coppice.conversion.model import Detection
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window

_SYSTEM_AREA_BYTES = 32768
_DESCRIPTOR_BYTES = 2048
_MOST_DESCRIPTORS = 64
_IDENTIFIERS = frozenset({b"CD001", b"NSR02", b"NSR03"})
_STANDARD = b"CD001"
_PRIMARY, _TERMINATOR = 1, 255
_BLOCKS = frozenset({512, 1024, 2048})
_PADDING_BYTES = 150 * _DESCRIPTOR_BYTES
"""Of a track: what a writer of discs adds, and some file lacks."""
_WHY = "each tool would read another disc"


def matches(window: Window) -> bool:
    """Tell whether the file bears the mark of a disc where ISO 9660 and UDF have it."""
    return window.read(_SYSTEM_AREA_BYTES + 1, 5) in _IDENTIFIERS


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the disc is.

    Raises:
        CorruptImageError: It has no primary volume, says two things about it, or is cut off.
    """
    del limits
    at = _primary(window, name)
    descriptor = read_exactly(window, at, _DESCRIPTOR_BYTES, name=name, what="its primary volume descriptor")
    little, big = struct.unpack_from("<I", descriptor, 80)[0], struct.unpack_from(">I", descriptor, 84)[0]
    block_little, block_big = struct.unpack_from("<H", descriptor, 128)[0], struct.unpack_from(">H", descriptor, 130)[0]
    if (little, block_little) != (big, block_big):
        raise refusal(
            CorruptImageError,
            name,
            f"its volume has {little} blocks of {block_little} bytes, and {big} of {block_big} in the other byte order",
            offset=at + 80,
            why=_WHY,
        )
    if block_little not in _BLOCKS or little == 0:
        raise refusal(
            CorruptImageError,
            name,
            f"its volume would have {little} blocks of {block_little} bytes",
            offset=at + 80,
            why=_WHY,
        )
    within(window, 0, max(0, little * block_little - _PADDING_BYTES), name=name, what="its volume")
    hybrid = window.read(510, 2) == b"\x55\xaa"
    return Detection(
        format=DiskFormat.ISO, variant="hybrid" if hybrid else "plain", virtual_size_bytes=window.size_bytes
    )


def _primary(window: Window, name: str) -> int:
    """Return where the primary volume descriptor is (clause 8.4); the set ends with a terminator (8.3)."""
    at = _SYSTEM_AREA_BYTES
    for _ in range(_MOST_DESCRIPTORS):
        head = window.read(at, 7)
        if len(head) < 7 or head[1:6] != _STANDARD or head[0] == _TERMINATOR:  # noqa: PLR2004 - type, mark, version
            break
        if head[0] == _PRIMARY and at + _DESCRIPTOR_BYTES <= window.size_bytes:
            return at
        at += _DESCRIPTOR_BYTES
    raise refusal(
        CorruptImageError,
        name,
        "it has the mark of an ISO 9660 disc and no primary volume",
        offset=_SYSTEM_AREA_BYTES,
        why=_WHY,
    )
