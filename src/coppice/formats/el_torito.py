# SPDX-License-Identifier: Apache-2.0
"""Which firmware an ISO 9660 disc can be started with: El Torito 1.0, and UEFI 2.10, section 13.3.2.1; pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from collections.abc import Callable

_SECTOR_BYTES = 2048
_RECORD_SECTOR = 17
_RECORD = b"\x00CD001\x01EL TORITO SPECIFICATION"
_ENTRY_BYTES = 32
_BOOTABLE = 0x88
_MORE_HEADERS, _LAST_HEADER = 0x90, 0x91
_PLATFORMS = {0x00: Firmware.BIOS, 0xEF: Firmware.UEFI}
_KEY = b"\x55\xaa"


def boot_ways_of_disc(read: Callable[[int, int], bytes]) -> tuple[Firmware, ...] | None:
    """Return the firmware that a disc can be started with, none where it has no boot record; None: it cannot be read.

    Args:
        read: Gives the disc's bytes by start and length; what it raises is raised.
    """
    record = read(_RECORD_SECTOR * _SECTOR_BYTES, _SECTOR_BYTES)
    if not record.startswith(_RECORD):
        return ()
    (sector,) = struct.unpack_from("<I", record.ljust(_SECTOR_BYTES, b"\0"), 71)
    catalogue = read(sector * _SECTOR_BYTES, _SECTOR_BYTES)
    first = catalogue[:_ENTRY_BYTES]
    if len(catalogue) != _SECTOR_BYTES or first[0] != 1 or first[30:32] != _KEY:
        return None
    if sum(struct.unpack("<16H", first)) & 0xFFFF:
        return None
    ways = set()
    if catalogue[_ENTRY_BYTES] == _BOOTABLE:
        ways.add(_PLATFORMS.get(first[1]))
    at = 2 * _ENTRY_BYTES
    while at < _SECTOR_BYTES and catalogue[at] in {_MORE_HEADERS, _LAST_HEADER}:
        (count,) = struct.unpack_from("<H", catalogue, at + 2)
        entries = catalogue[at + _ENTRY_BYTES : at + _ENTRY_BYTES * (count + 1)][::_ENTRY_BYTES]
        if _BOOTABLE in entries:
            ways.add(_PLATFORMS.get(catalogue[at + 1]))
        if catalogue[at] == _LAST_HEADER:
            break
        at += _ENTRY_BYTES * (count + 1)
    return tuple(way for way in Firmware if way in ways)
