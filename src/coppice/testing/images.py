# SPDX-License-Identifier: Apache-2.0
"""Tiny image files, written byte by byte: good ones, and hostile ones that no tool would make."""

from __future__ import annotations

import random
import struct

from coppice.testing.disks import stream_vmdk, vmdk_text

KIB = 1024
MIB = 1024 * KIB


def raw_disk(size_bytes: int = MIB, *, seed: int = 1) -> bytes:
    """Return a disk with an MBR, one partition and some bytes that do not compress, the same for the same seed."""
    disk = bytearray(size_bytes)
    noise = random.Random(seed).randbytes(min(size_bytes // 4, 256 * KIB))  # noqa: S311 - content for tests
    disk[size_bytes // 2 : size_bytes // 2 + len(noise)] = noise
    disk[446:462] = struct.pack("<B3sB3sII", 0x80, b"\x01\x01\x00", 0x83, b"\xfe\xff\xff", 1, size_bytes // 512 - 1)
    disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def superfloppy(size_bytes: int = MIB) -> bytes:
    """Return a disk without partitions that has a boot signature."""
    disk = bytearray(size_bytes)
    disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def qcow2(
    *,
    virtual_size_bytes: int = MIB,
    version: int = 3,
    backing_file: str | None = None,
    data_file: str | None = None,
    encryption: int = 0,
    incompatible: int = 0,
    cluster_bits: int = 16,
    l1_entries: int = 1,
) -> bytes:
    """Return a qcow2 file of three clusters without data; a file that it names is named, nothing more."""
    cluster = 65536
    name = (backing_file or "").encode()
    extensions = b""
    if data_file is not None:
        incompatible |= 1 << 2
        text = data_file.encode()
        extensions += struct.pack(">II", 0x44415441, len(text)) + text.ljust(-(-len(text) // 8) * 8, b"\0")
    extensions += struct.pack(">II", 0, 0)
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb",
        version,
        104 + len(extensions) if name else 0,
        len(name),
        cluster_bits,
        virtual_size_bytes,
        encryption,
        l1_entries,
        3 * cluster,
        cluster,
        1,
        0,
        0,
        incompatible,
        0,
        0,
        4,
        104,
    )
    first = (header + extensions + name).ljust(cluster, b"\0")
    table = struct.pack(">Q", 2 * cluster).ljust(cluster, b"\0")
    counts = struct.pack(">HHHH", 1, 1, 1, 1).ljust(cluster, b"\0")
    return first + table + counts + bytes(cluster)


def iso(*, hybrid: bool = False, system_area: bytes = b"") -> bytes:
    """Return the beginning of an ISO 9660 file system; ``hybrid`` puts an MBR into its free area."""
    disk = bytearray(64 * KIB)
    disk[: len(system_area)] = system_area
    disk[32768:32775] = b"\x01CD001\x01"
    disk[32768 + 80 : 32768 + 88] = struct.pack("<I", 32) + struct.pack(">I", 32)
    disk[32768 + 128 : 32768 + 132] = struct.pack("<H", 2048) + struct.pack(">H", 2048)
    if hybrid:
        disk[446:462] = struct.pack("<B3sB3sII", 0x80, b"\x00\x01\x00", 0x17, b"\xfe\xff\xff", 0, 128)
        disk[510:512] = b"\x55\xaa"
    return bytes(disk)


def vmdk_descriptor(extent: str, *, kind: str = "monolithicFlat") -> bytes:
    """Return a VMDK descriptor that names another file as its content."""
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="{kind}"\n\nRW 2048 FLAT "{extent}" 0\n'
    )
    return text.encode().ljust(KIB, b"\n")


def vmdk_with_footer(*, sectors: int = 2048, footer_sectors: int = 2048) -> bytes:
    """Return a stream-optimised VMDK without data, whose second header, at its end, has a size of its own."""
    text = vmdk_text("streamOptimized", extents=f'RW {sectors} SPARSE "disk.vmdk"')
    return stream_vmdk(grains={}, descriptor=text, capacity=sectors, footer={"capacity": footer_sectors})
