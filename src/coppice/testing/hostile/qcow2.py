# SPDX-License-Identifier: Apache-2.0
"""Hostile qcow2 files: content from elsewhere, sizes and tables that lie, features that nobody can read."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from coppice.errors import (
    CorruptImageError,
    EncryptedImageError,
    NotAnImageError,
    OutsideReferenceError,
    OversizedImageError,
    UnsupportedImageError,
)
from coppice.testing.hostile.case import HostileCase
from coppice.testing.qcow2 import (
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    EXTENSION_CRYPTO,
    EXTENSION_DATA_FILE,
    L1,
    L2,
    REFCOUNT_BLOCK,
    REFCOUNT_TABLE,
    TinyQcow2,
    bitmap_directory,
    bitmaps_extension,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.errors import ImageRefusedError

_FAR = 1 << 40
_END = DATA + 2 * CLUSTER
"""Of the file that all are made of."""
_NAMES = {
    "absolute": "/etc/passwd",
    "relative": "../../../etc/passwd",
    "json": 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}',
    "nbd": "nbd://127.0.0.1:10809/secret",
    "https": "https://127.0.0.1/secret.raw",
}


def cases() -> tuple[HostileCase, ...]:
    """Return the files."""
    return (*_elsewhere(), *_lying_headers(), *_lying_tables(), *_lying_extras(), *_unreadable())


def _elsewhere() -> list[HostileCase]:
    outside = OutsideReferenceError
    found = [_case("T58", f"backing-file-{name}", outside, backing_file=file) for name, file in _NAMES.items()]
    found += [
        _case("T58", "backing-file-in-version-2", outside, version=2, backing_file="/etc/passwd"),
        _case("T58", "backing-file-without-a-name", outside, fields={"backing_offset": 512}),
    ]
    name = ((EXTENSION_DATA_FILE, b"/etc/passwd"),)
    found += [
        _case("T59", "data-file", outside, extensions=name, fields={"incompatible": 4}),
        _case("T59", "data-file-raw", outside, extensions=name, fields={"incompatible": 4, "autoclear": 2}),
        _case("T59", "data-file-without-a-name", outside, fields={"incompatible": 4}),
        _case("T59", "data-file-said-to-be-raw-alone", outside, fields={"autoclear": 2}),
        _case("T59", "data-file-without-its-feature", outside, extensions=name),
    ]
    return found


def _lying_headers() -> list[HostileCase]:
    corrupt, sized = CorruptImageError, partial(_case, "T63")
    return [
        sized("size-8-eib", OversizedImageError, fields={"virtual_size": 2**63}),
        sized("size-16-eib", OversizedImageError, fields={"virtual_size": 2**64 - 512}),
        sized("size-2-eib", OversizedImageError, fields={"virtual_size": 2**61}),
        sized("size-63-tib", OversizedImageError, fields={"virtual_size": 63 * 2**40}),
        sized("size-far-beyond-its-file", OversizedImageError, fields={"virtual_size": 2**30 + 512}),
        sized("size-none", corrupt, fields={"virtual_size": 0}),
        sized("size-in-part-of-a-sector", corrupt, fields={"virtual_size": 64 * 1024 - 1}),
        sized("clusters-of-2-to-the-63", corrupt, fields={"cluster_bits": 63}),
        sized("clusters-of-256-bytes", corrupt, fields={"cluster_bits": 8}),
        sized("clusters-of-4-mib", corrupt, fields={"cluster_bits": 22}),
        sized("l1-with-2-to-the-31", corrupt, fields={"l1_entries": 2**31}),
        sized("l1-with-all-ones", corrupt, fields={"l1_entries": 2**32 - 1}),
        sized("l1-too-small", corrupt, fields={"l1_entries": 0}),
        sized("l1-beyond-the-end", corrupt, fields={"l1_offset": _FAR}),
        sized("l1-at-the-end-of-64-bits", corrupt, fields={"l1_offset": 2**64 - CLUSTER}),
        sized("l1-unaligned", corrupt, fields={"l1_offset": L1 + 8}),
        sized("l1-in-the-header", corrupt, fields={"l1_offset": 0}),
        sized("l1-longer-than-the-file", corrupt, fields={"l1_entries": 4 * 1024 * 1024}),
        sized("refcounts-beyond-the-end", corrupt, fields={"refcount_offset": _FAR}),
        sized("refcounts-none", corrupt, fields={"refcount_clusters": 0}),
        sized("refcounts-without-end", corrupt, fields={"refcount_clusters": 2**32 - 1}),
        sized("refcounts-of-128-bits", corrupt, fields={"refcount_order": 7}),
        sized("header-of-8-bytes", corrupt, fields={"header_bytes": 8}),
        sized("header-longer-than-a-cluster", corrupt, fields={"header_bytes": 2**31}),
        sized("header-extension-without-end", corrupt, extensions=((0x1234, b""),), patches={108: b"\xff" * 4}),
        sized("header-extensions-end-with-a-length", corrupt, patches={108: b"\xff" * 4}),
        sized("header-extensions-many", corrupt, extensions=((0x1234, b"x"),) * 100),
        sized("cut-off-in-its-data", corrupt, size_bytes=DATA),
        sized("cut-off-in-its-tables", corrupt, size_bytes=L1 + 4),
        sized("cut-off-in-its-header", NotAnImageError, size_bytes=200),
    ]


def _lying_tables() -> list[HostileCase]:
    def entry(name: str, offset: int, *values: int, **more: Any) -> HostileCase:
        patches = {offset: struct.pack(f">{len(values)}Q", *values)}
        return _case("T63", name, CorruptImageError, patches=patches, **more)

    bits = 62 - 4
    return [
        entry("l2-beyond-the-end", L1, _FAR | COPIED),
        entry("l2-unaligned", L1, (L2 + 512) | COPIED),
        entry("l2-in-the-header", L1, 512 | COPIED),
        entry("l2-is-l1", L1, L1 | COPIED),
        entry("l2-with-reserved-bits", L1, L2 | COPIED | 1 << 61),
        entry("l2-used-twice", L1, L2 | COPIED, L2 | COPIED, fields={"l1_entries": 2}),
        entry("cluster-beyond-the-end", L2, _FAR | COPIED),
        entry("cluster-unaligned", L2, (DATA + 512) | COPIED),
        entry("cluster-used-twice", L2, DATA | COPIED, DATA | COPIED),
        entry("cluster-in-the-header", L2, DATA | COPIED, 512 | COPIED),
        entry("cluster-is-a-table", L2, L1 | COPIED),
        entry("cluster-with-reserved-bits", L2, DATA | COPIED | 1 << 61),
        entry("cluster-zero-in-version-2", L2, 1, version=2),
        entry("cluster-compressed-beyond-the-end", L2, COMPRESSED | 15 << bits | (_END - 512)),
        entry("cluster-compressed-far-beyond", L2, COMPRESSED | _FAR),
        entry("cluster-compressed-in-a-table", L2, COMPRESSED | L1 + 100),
        entry("cluster-compressed-in-another", L2, COMPRESSED | DATA + CLUSTER + 100, (DATA + CLUSTER) | COPIED),
        entry("refcount-block-beyond-the-end", REFCOUNT_TABLE, _FAR),
        entry("refcount-block-is-a-table", REFCOUNT_TABLE, L2),
        entry("refcount-block-unaligned", REFCOUNT_TABLE, 513),
        entry("refcount-block-missing", REFCOUNT_TABLE, 0),
        entry("cluster-counted-as-free", REFCOUNT_BLOCK, 0x0001_0001_0001_0001, 0x0001_0000_0001_0001),
        entry("header-counted-as-free", REFCOUNT_BLOCK, 0x0000_0001_0001_0001),
    ]


def _lying_extras() -> list[HostileCase]:
    corrupt, sized = CorruptImageError, partial(_case, "T63")

    def directory(name: str, kind: type[ImageRefusedError], content: bytes, *, count: int = 1) -> HostileCase:
        extension = bitmaps_extension(count=count, offset=_END, size_bytes=len(content))
        return sized(name, kind, fields={"autoclear": 1}, extensions=(extension,), patches={_END: content})

    costly = bitmap_directory(table=0, entries=0, granularity=9, count=1000)
    record = snapshot(l1_offset=_FAR, l1_entries=1)
    endless = snapshot(l1_offset=L1, l1_entries=1, extra_bytes=2**32 - 1)
    return [
        sized("snapshots-too-many", UnsupportedImageError, fields={"snapshots": 2**32 - 1, "snapshots_offset": _END}),
        sized("snapshots-beyond-the-end", corrupt, fields={"snapshots": 1, "snapshots_offset": _FAR}),
        sized("snapshots-inside-of-a-cluster", corrupt, fields={"snapshots_offset": 512}),
        sized("snapshots-are-a-table", corrupt, fields={"snapshots": 1, "snapshots_offset": L2}),
        sized(
            "snapshot-with-tables-beyond",
            corrupt,
            fields={"snapshots": 1, "snapshots_offset": _END},
            patches={_END: record},
        ),
        sized(
            "snapshot-without-end", corrupt, fields={"snapshots": 1, "snapshots_offset": _END}, patches={_END: endless}
        ),
        directory("bitmaps-too-many", UnsupportedImageError, bytes(64), count=2**32 - 1),
        directory("bitmap-with-its-table-beyond", corrupt, bitmap_directory(table=_FAR, entries=1)),
        directory("bitmap-of-no-granularity", corrupt, bitmap_directory(table=0, entries=0, granularity=255)),
        directory("bitmaps-cut-off", corrupt, bitmap_directory(table=0, entries=0)[:8]),
        sized(
            "bitmaps-that-fill-memory",
            UnsupportedImageError,
            fields={"autoclear": 1, "virtual_size": 2**30},
            extensions=(bitmaps_extension(count=1000, offset=_END, size_bytes=len(costly)),),
            patches={_END: costly},
        ),
        sized(
            "bitmaps-beyond-the-end",
            corrupt,
            fields={"autoclear": 1},
            extensions=(bitmaps_extension(count=1, offset=_FAR, size_bytes=64),),
        ),
    ]


def _unreadable() -> list[HostileCase]:
    corrupt, unsupported, encrypted = CorruptImageError, UnsupportedImageError, EncryptedImageError
    marked = partial(_case, "T64")
    found = [
        marked("encrypted-aes", encrypted, fields={"crypt": 1}),
        marked("encrypted-luks", encrypted, fields={"crypt": 2}),
        marked("encrypted-in-an-unknown-way", encrypted, fields={"crypt": 77}),
        marked("encryption-header", encrypted, extensions=((EXTENSION_CRYPTO, struct.pack(">QQ", DATA, 512)),)),
        marked("marked-corrupt", corrupt, fields={"incompatible": 2}),
        marked("marked-dirty", corrupt, fields={"incompatible": 1}),
        marked("unknown-feature-5", unsupported, fields={"incompatible": 1 << 5}),
        marked("unknown-feature-63", unsupported, fields={"incompatible": 1 << 63}),
        marked("unknown-compression", unsupported, fields={"incompatible": 8, "header_bytes": 112, "compression": 2}),
        marked("compression-without-its-feature", corrupt, fields={"header_bytes": 112, "compression": 1}),
        marked("compression-feature-alone", corrupt, fields={"incompatible": 8}),
        marked("sub-clusters-in-small-clusters", corrupt, fields={"incompatible": 16}),
        marked("version-1", unsupported, fields={"version": 1}),
        marked("version-4", unsupported, fields={"version": 4}),
    ]
    # Sub-clusters want clusters of 16 KiB.
    for name, entry, bitmap in (
        ("sub-cluster-there-and-zero", 5 << 14 | COPIED, 1 << 32 | 1),
        ("sub-cluster-without-its-cluster", 0, 1),
    ):
        table = struct.pack(">QQ", entry, bitmap) + bytes(16)
        found.append(marked(name, corrupt, cluster_bits=14, fields={"incompatible": 16}, patches={4 << 14: table}))
    return found


def _case(threat: str, name: str, kind: type[ImageRefusedError], **more: Any) -> HostileCase:
    def make(path: Path) -> None:
        path.write_bytes(TinyQcow2(**more).content())

    return HostileCase(name=f"qcow2-{name}.qcow2", threat=threat, code=kind.code, make=make)
