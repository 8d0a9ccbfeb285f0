# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a file look like: own looks at headers and ends, before and beside any library's."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from coppice.model.image import DiskFormat

HEAD_BYTES = 64 * 1024
_ISO_OFFSET = 32768
_SECTOR = 512
_GRAINS_AT_END = 2**64 - 1

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"BZh", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\x00", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed data"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive (an OVA is one)"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x7fELF", "a program"),
    (0, b"QED\x00", "a QED image"),
    (0, b"COWD", "an old VMDK extent"),
    (0, b"LUKS\xba\xbe", "a LUKS-encrypted disk"),
    (0, b"-----BEGIN ", "a PEM document"),
)
_TEXT = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")


def foreign(head: bytes) -> str | None:
    """Return what else than a disk image the file is, in words; None where it may be one."""
    for offset, magic, words in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return words
    if head[:_SECTOR].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_TEXT):
        return "an HTML or XML document (an error page?)"
    if _is_vmdk_descriptor(head):
        return "a VMDK descriptor, which names other files"
    return None


def signatures(head: bytes, tail: bytes) -> frozenset[DiskFormat]:
    """Return all formats whose signature the file bears; none means that it can only be raw.

    Args:
        head: The first `HEAD_BYTES`.
        tail: The last 512 bytes.
    """
    marks = {
        DiskFormat.QCOW2: head.startswith(b"QFI\xfb"),
        DiskFormat.VMDK: head.startswith(b"KDMV"),
        DiskFormat.VDI: head[64:68] == b"\x7f\x10\xda\xbe",
        DiskFormat.VHD: head.startswith(b"conectix") or tail.startswith(b"conectix"),
        DiskFormat.VHDX: head.startswith(b"vhdxfile"),
        DiskFormat.ISO: head[_ISO_OFFSET + 1 : _ISO_OFFSET + 6] in {b"CD001", b"NSR02", b"NSR03"},
    }
    return frozenset(kind for kind, present in marks.items() if present)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """What counts of a qcow2 header."""

    version: int
    backing_offset: int
    cluster_bits: int
    virtual_size_bytes: int
    encryption: int
    l1_entries: int
    incompatible: int


def qcow2_header(head: bytes) -> Qcow2Header:
    """Take the header apart."""
    version, backing, _, bits, size, crypt, l1_entries = struct.unpack_from(">IQIIQII", head, 4)
    incompatible = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0  # noqa: PLR2004 - version 3 brought it
    return Qcow2Header(
        version=version,
        backing_offset=backing,
        cluster_bits=bits,
        virtual_size_bytes=size,
        encryption=crypt,
        l1_entries=l1_entries,
        incompatible=incompatible,
    )


def qcow2_problem(header: Qcow2Header) -> str | None:
    """Return why a qcow2 image is refused, in words; None where nothing is wrong with its header."""
    reasons = (
        (header.version not in {2, 3}, f"it has the qcow version {header.version}; 2 and 3 are taken"),
        (header.backing_offset, "it has a backing file: its content would come from another file of this machine"),
        (header.incompatible & 4, "it has a data file: its content would come from another file of this machine"),
        (header.encryption, "it is encrypted: no guest could use it"),
        (header.incompatible & 2, "it is marked corrupt"),
        (header.incompatible & 1, "it is marked dirty: it was not closed (`qemu-img check -r all` repairs it)"),
        (header.incompatible & ~0b11111, f"it has unknown incompatible features ({header.incompatible:#x})"),
        (not 9 <= header.cluster_bits <= 21, f"its cluster size is out of bounds (2^{header.cluster_bits})"),  # noqa: PLR2004 - the format's own bounds
        (header.l1_entries > 4 * 1024 * 1024, f"its first-level table is too large ({header.l1_entries} entries)"),
    )
    return next((words for wrong, words in reasons if wrong), None)


def vmdk_problem(head: bytes, end: bytes) -> str | None:
    """Return why a sparse VMDK is refused, in words; the descriptor inside it may name other files.

    Args:
        head: The first `HEAD_BYTES`.
        end: The last 1024 bytes, where a stream-optimised image has a second header, which counts.
    """
    capacity = struct.unpack_from("<Q", head, 12)[0]
    if capacity == 0:
        return "its header leaves its size to a descriptor that can name other files"
    at_end = struct.unpack_from("<Q", head, 56)[0] == _GRAINS_AT_END
    if at_end and (not end.startswith(b"KDMV") or struct.unpack_from("<Q", end, 12)[0] != capacity):
        return "the header at its end states another size than the one at its beginning"
    descriptor = head[_SECTOR:].split(b"\0", 1)[0].lower()
    if b"parentfilenamehint" in descriptor:
        return "it names a parent image: its content would come from another file of this machine"
    return None


def vhd_problem(head: bytes, tail: bytes, size_bytes: int) -> str | None:
    """Return why a VHD is refused, in words."""
    footer = head[:_SECTOR] if head.startswith(b"conectix") else tail
    kind = struct.unpack_from(">I", footer, 60)[0]
    fixed, dynamic = 2, 3
    if kind not in {fixed, dynamic}:
        return f"it is a VHD of the type {kind}: a differencing image needs a parent"
    if kind == fixed and vhd_virtual_size(head, tail) + _SECTOR != size_bytes:
        return "its footer states another size than the file has"
    return None


def vhd_virtual_size(head: bytes, tail: bytes) -> int:
    """Return the disk's size as the VHD's footer has it, in bytes."""
    footer = head[:_SECTOR] if head.startswith(b"conectix") else tail
    return int(struct.unpack_from(">Q", footer, 48)[0])


def vdi_problem(head: bytes) -> str | None:
    """Return why a VDI is refused, in words."""
    kind = struct.unpack_from("<I", head, 76)[0]
    return None if kind in {1, 2} else f"it is a VDI of the type {kind}: a differencing image needs a parent"


def _is_vmdk_descriptor(head: bytes) -> bool:
    # The way QEMU recognises one: comments and empty lines, then the version. An ISO has room for it.
    for line in head[:4096].split(b"\n"):
        text = line.strip(b" \t\r")
        if not text or text.startswith(b"#"):
            if text.lower().startswith(b"# disk descriptorfile"):
                return True
            continue
        return text.lower().startswith(b"version=")
    return False
