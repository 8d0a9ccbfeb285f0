# SPDX-License-Identifier: Apache-2.0
"""Packed files made piece by piece, with whatever is to be wrong in them: gzip, xz, zstd, zip, by their formats."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from dataclasses import dataclass, field

from coppice.testing import images

DISK = images.raw_disk(128 * images.KIB)
"""A small raw disk."""
_XZ_STREAM_HEADER_BYTES = 12
_XZ_DICTIONARY = 4
"""Where in the block's header the size of the dictionary is, for a file with LZMA2 alone."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_RLE = 1
_ZSTD_BLOCK_BYTES = 128 * 1024
_MIB = 1024 * 1024


def gzip_member(content: bytes, *, extra: bytes = b"") -> bytes:
    """Return one gzip member (RFC 1952), without a time."""
    flags = 4 if extra else 0
    field_ = struct.pack("<H", len(extra)) + extra if extra else b""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\x02\xff" + field_
    return head + deflated(content) + struct.pack("<2I", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def deflated(content: bytes) -> bytes:
    """Return a bare deflate stream (RFC 1951)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def bzip2_stream(content: bytes) -> bytes:
    """Return one bzip2 stream."""
    return bz2.compress(content)


def xz_stream(content: bytes, *, dictionary: int | None = None) -> bytes:
    """Return one xz stream.

    Args:
        content: What it holds.
        dictionary: The byte that states the size of the dictionary; None: what fits.
    """
    made = bytearray(lzma.compress(content, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=1))
    if dictionary is not None:
        start = _XZ_STREAM_HEADER_BYTES
        end = start + (made[start] + 1) * 4
        made[start + _XZ_DICTIONARY] = dictionary
        made[end - 4 : end] = struct.pack("<I", zlib.crc32(made[start : end - 4]))
    return bytes(made)


def zstd_frame(*blocks: bytes, window: int = 0x38, descriptor: int = 0, fields: bytes = b"") -> bytes:
    """Return one frame (RFC 8878, section 3.1.1), without a checksum.

    Args:
        blocks: From `zstd_block`; the last is marked as such here.
        window: The byte that states the window: 128 KiB.
        descriptor: The byte that says which fields there are.
        fields: Dictionary and content size.
    """
    window_byte = b"" if descriptor & 0x20 else bytes([window])
    last = bytearray(blocks[-1]) if blocks else bytearray(3)
    last[0] |= 1
    return ZSTD_MAGIC + bytes([descriptor]) + window_byte + fields + b"".join(blocks[:-1]) + bytes(last)


def zstd_block(content: bytes, *, kind: int = 0, size: int | None = None) -> bytes:
    """Return one block: as it is, or of another kind (1: one byte many times)."""
    stated = len(content) if size is None else size
    return (kind << 1 | stated << 3).to_bytes(3, "little") + content


def zstd_zeros(size_bytes: int) -> bytes:
    """Return a frame of zeros: four bytes stand for 128 KiB."""
    return zstd_frame(*[zstd_block(b"\0", kind=_ZSTD_RLE, size=_ZSTD_BLOCK_BYTES)] * (size_bytes // _ZSTD_BLOCK_BYTES))


def zstd_raw(content: bytes) -> bytes:
    """Return a frame that holds ``content`` as it is."""
    return zstd_frame(
        *(zstd_block(content[at : at + _ZSTD_BLOCK_BYTES]) for at in range(0, len(content), _ZSTD_BLOCK_BYTES))
    )


def zstd_skippable(content: bytes) -> bytes:
    """Return a frame that is to be skipped (section 3.1.2)."""
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(content)) + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Zipped:
    """One member of a zip, whose records can be made to differ (APPNOTE.TXT).

    Attributes:
        name: As bytes.
        content: Its bytes.
        method: 0 stored, 8 deflated; others are stored under a false flag.
        flags: Of both headers.
        follows: What stands between the content and what comes next: a data descriptor, or what should not be there.
        mode: Of the file, in the manner of Unix.
        stated: Fields of the directory's entry that are other than true, by name: ``crc``, ``packed``, ``size``,
            ``local``, ``disk``, ``name``, ``flags``.
        told: The same for the header before the member.
        told_name: The name in the header before the member; None: the same.
        extra: Extra field of the directory's entry.
        instead: What lies in the zip in the place of the packed content; None: that.
    """

    name: bytes = b"disk.raw"
    content: bytes = DISK
    method: int = 8
    flags: int = 0
    follows: bytes = b""
    mode: int = 0o100644
    stated: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    told_name: bytes | None = None
    extra: bytes = b""
    instead: bytes | None = None

    @property
    def packed(self) -> bytes:
        """The content as it lies in the zip."""
        if self.instead is not None:
            return self.instead
        return deflated(self.content) if self.method == 8 else self.content  # noqa: PLR2004 - see above

    def truth(self) -> dict[str, int]:
        """Return the fields as they are."""
        return {
            "flags": self.flags,
            "crc": zlib.crc32(self.content),
            "packed": len(self.packed),
            "size": len(self.content),
            "disk": 0,
        }


def zip_file(*members: Zipped, before: bytes = b"", after: bytes = b"", comment: bytes = b"", disk: int = 0) -> bytes:
    """Return a zip file.

    Args:
        members: In their order.
        before: What stands before the first.
        after: What stands between the last and the directory.
        comment: At the end of the file.
        disk: Number of this part.
    """
    body, directory = bytearray(before), bytearray()
    for each in members:
        at = len(body)
        told = each.truth() | each.told
        name = each.name if each.told_name is None else each.told_name
        sizes = (told["crc"], told["packed"], told["size"])
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, told["flags"], each.method, 0, 0x21, *sizes, len(name), 0)
        body += name + each.packed + each.follows
        stated = each.truth() | {"local": at} | each.stated
        directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            3 << 8 | 20,
            20,
            stated["flags"],
            each.method,
            0,
            0x21,
            stated["crc"],
            stated["packed"],
            stated["size"],
            len(each.name),
            len(each.extra),
            0,
            stated["disk"],
            0,
            each.mode << 16,
            stated["local"],
        )
        directory += each.name + each.extra
    body += after
    count = len(members)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", disk, disk, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory) + end + comment


def zeros(size_mib: int) -> bytes:
    """Return so many MiB of zeros."""
    return bytes(size_mib * _MIB)
