# SPDX-License-Identifier: Apache-2.0
"""Recognise a file system by its first bytes, as libblkid does; nothing here raises, whatever they are."""

from __future__ import annotations

import struct
import unicodedata
import uuid
from typing import TYPE_CHECKING

from coppice.conversion.model import FileSystem, FileSystemKind

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKED_AT_BYTES = 72 * 1024
"""All that is needed of the beginning: btrfs has its superblock at 64 KiB, of 4 KiB."""
_EXT_AT = 1024
_EXT_JOURNAL = 0x4
_EXT_JOURNAL_DEVICE = 0x8
_EXT3_INCOMPATIBLE = 0x2 | 0x4 | 0x10
_EXT3_READ_ONLY = 0x1 | 0x2 | 0x4
_BTRFS_AT = 64 * 1024
_ISO_AT = 32 * 1024
_SWAP_PAGES = (4096, 8192, 16384, 65536)
_FAT_MEDIA = range(0xF0, 0x100)
_FAT_WITH_LABEL = 0x29
_FAT_SECTORS = frozenset({512, 1024, 2048, 4096})


def file_systems_of(read: Callable[[int, int], bytes]) -> tuple[FileSystem, ...]:
    """Return what the first bytes of a partition say that it is; more than one where they contradict each other.

    Args:
        read: Gives the partition's bytes by start and length; what it raises is raised.
    """
    # What is cut off is as if it were zero: no look below has to ask how long it is.
    head = read(0, LOOKED_AT_BYTES).ljust(LOOKED_AT_BYTES, b"\0")
    looks = (_ext, _xfs, _btrfs, _fat, _iso, _squashfs, _swap, _lvm, _luks)
    return tuple(found for look in looks if (found := look(head)) is not None)


def _ext(head: bytes) -> FileSystem | None:
    """The ext2/3/4 superblock: Linux, Documentation/filesystems/ext4/globals.rst."""
    block = head[_EXT_AT : _EXT_AT + 1024]
    if block[56:58] != b"\x53\xef":
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 92)
    if incompatible & _EXT_JOURNAL_DEVICE:
        return None
    kind = FileSystemKind.EXT4
    if not incompatible & ~_EXT3_INCOMPATIBLE and not read_only & ~_EXT3_READ_ONLY:
        kind = FileSystemKind.EXT3 if compatible & _EXT_JOURNAL else FileSystemKind.EXT2
    return FileSystem(kind=kind, label=_text(block[120:136]), uuid=_uuid(block[104:120]))


def _xfs(head: bytes) -> FileSystem | None:
    if head[:4] != b"XFSB":
        return None
    return FileSystem(kind=FileSystemKind.XFS, label=_text(head[108:120]), uuid=_uuid(head[32:48]))


def _btrfs(head: bytes) -> FileSystem | None:
    block = head[_BTRFS_AT : _BTRFS_AT + 4096]
    if block[64:72] != b"_BHRfS_M":
        return None
    return FileSystem(kind=FileSystemKind.BTRFS, label=_text(block[299:555]), uuid=_uuid(block[32:48]))


def _fat(head: bytes) -> FileSystem | None:
    """A FAT boot sector: ECMA-107 and the description of FAT32; all that the kernel's driver asks for has to fit."""
    if head[510:512] != b"\x55\xaa":
        return None
    sector_bytes, cluster, reserved, copies, roots, small, media, table = struct.unpack_from("<HBHBHHBH", head, 11)
    (large,) = struct.unpack_from("<I", head, 32)
    powers = sector_bytes in _FAT_SECTORS and cluster > 0 and cluster & (cluster - 1) == 0
    if not (powers and reserved and copies in {1, 2} and media in _FAT_MEDIA and (small or large)):
        return None
    if table:
        if not roots:
            return None
        at = 36
    elif not roots and struct.unpack_from("<I", head, 36)[0]:
        at = 64
    else:
        return None
    if head[at + 2] not in {0x28, _FAT_WITH_LABEL}:
        return FileSystem(kind=FileSystemKind.FAT)
    low, high = struct.unpack_from("<HH", head, at + 3)
    label = _text(head[at + 7 : at + 18]) if head[at + 2] == _FAT_WITH_LABEL else ""
    return FileSystem(kind=FileSystemKind.FAT, label="" if label == "NO NAME" else label, uuid=f"{high:04X}-{low:04X}")


def _iso(head: bytes) -> FileSystem | None:
    """The primary volume descriptor: ECMA-119, 8.4; the identifier is its date, as libblkid has it."""
    block = head[_ISO_AT : _ISO_AT + 2048]
    if block[:6] != b"\x01CD001":
        return None
    date = next((one for one in (block[830:846], block[813:829]) if one.isdigit() and one.strip(b"0")), b"").decode()
    parts = (date[0:4], date[4:6], date[6:8], date[8:10], date[10:12], date[12:14], date[14:16]) if date else ()
    return FileSystem(kind=FileSystemKind.ISO9660, label=_text(block[40:72]), uuid="-".join(parts))


def _squashfs(head: bytes) -> FileSystem | None:
    return FileSystem(kind=FileSystemKind.SQUASHFS) if head[:4] == b"hsqs" else None


def _swap(head: bytes) -> FileSystem | None:
    if not any(head[page - 10 : page] in {b"SWAPSPACE2", b"SWAP-SPACE"} for page in _SWAP_PAGES):
        return None
    return FileSystem(kind=FileSystemKind.SWAP, label=_text(head[1052:1068]), uuid=_uuid(head[1036:1052]))


def _lvm(head: bytes) -> FileSystem | None:
    for at in range(0, 2048, 512):
        label = head[at : at + 64]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            text = _text(label[32:64])
            sizes = (6, 4, 4, 4, 4, 4, 6)
            starts = [sum(sizes[:index]) for index in range(len(sizes))]
            parts = [text[start : start + size] for start, size in zip(starts, sizes, strict=True)]
            return FileSystem(kind=FileSystemKind.LVM, uuid="-".join(parts))
    return None


def _luks(head: bytes) -> FileSystem | None:
    if head[:6] != b"LUKS\xba\xbe":
        return None
    (version,) = struct.unpack_from(">H", head, 6)
    label = _text(head[24:72]) if version > 1 else ""
    return FileSystem(kind=FileSystemKind.LUKS, label=label, uuid=_text(head[168:208]))


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""


def _text(raw: bytes) -> str:
    text = raw.split(b"\0", 1)[0].decode("utf-8", errors="replace").rstrip(" ")
    return "".join(letter if unicodedata.category(letter)[0] not in "CZ" or letter == " " else "?" for letter in text)
