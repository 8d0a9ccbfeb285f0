# SPDX-License-Identifier: Apache-2.0
"""The header of qcow2: QEMU's ``docs/interop/qcow2.txt``, sections "Header", "Header extensions"; ``block/qcow2.c``."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import SECTOR_BYTES, read_exactly
from coppice.conversion.refusal import refusal
from coppice.errors import (
    CorruptImageError,
    EncryptedImageError,
    OutsideReferenceError,
    UnsupportedImageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

SIGNATURE = b"QFI\xfb"
VERSIONS = frozenset({2, 3})
_FIRST = struct.Struct(">4sIQIIQIIQQIIQ")
_SECOND = struct.Struct(">QQQII")
_V2_BYTES, _V3_BYTES = 72, 104
_CLUSTER_BITS = range(9, 22)
_EXTENDED_CLUSTER_BITS = range(14, 22)
_MOST_REFCOUNT_ORDER = 6
_MOST_EXTENSIONS = 64
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_BITMAPS_COUNT, _RAW_DATA_FILE = 1, 2
"""Auto-clear features; a program that does not know bitmaps takes theirs away, and what the extension says is stale."""
_COMPRESSIONS = {0: "zlib", 1: "zstd"}
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_CRYPTO = 0x0537BE77
_EXTENSION_BITMAPS = 0x23852875
_ELSEWHERE = "the content would come from another file of this machine"
_ENCRYPTED = "no guest could use it without the key"
_MISLEADING = "the image is broken or was made to mislead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """What counts of the header of an image that stands for itself.

    Attributes:
        version: 2 or 3.
        cluster_bits: A cluster has two to the power of this many bytes.
        virtual_size_bytes: Length of the disk that a guest sees.
        l1_entries: Of the first-level table.
        l1_offset: Where it is.
        refcount_offset: Where the table of reference count blocks is.
        refcount_clusters: How many clusters it has.
        refcount_order: A reference count has two to the power of this many bits.
        snapshots: How many internal ones there are.
        snapshots_offset: Where their table is.
        has_extended_l2: Whether each entry of the second level has a map of sub-clusters.
        compression: Of compressed clusters, in a word.
        bitmaps: Offset and content of the extension of dirty bitmaps; None: there is none.
    """

    version: int
    cluster_bits: int
    virtual_size_bytes: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    refcount_order: int
    snapshots: int
    snapshots_offset: int
    has_extended_l2: bool
    compression: str
    bitmaps: tuple[int, bytes] | None

    @property
    def cluster_bytes(self) -> int:
        """Return the length of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_bytes(self) -> int:
        """Return the length of an entry of a second-level table."""
        return 16 if self.has_extended_l2 else 8

    @property
    def l2_entries(self) -> int:
        """Return how many entries a second-level table has; it fills a cluster."""
        return self.cluster_bytes // self.l2_entry_bytes

    @property
    def clusters(self) -> int:
        """Return how many clusters the disk has."""
        return -(-self.virtual_size_bytes // self.cluster_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Second:
    """What version 3 brought."""

    incompatible: int
    autoclear: int
    refcount_order: int
    header_bytes: int
    compression: int


_SECOND_OF_VERSION_2 = _Second(incompatible=0, autoclear=0, refcount_order=4, header_bytes=_V2_BYTES, compression=0)


def read_header(window: Window, name: str) -> Qcow2Header:
    """Return the header, of which everything was looked at that does not depend on the disk's length.

    Raises:
        OutsideReferenceError: It has a backing file or a data file.
        EncryptedImageError: It is encrypted.
        UnsupportedImageError: It has a version or a feature that is not taken.
        CorruptImageError: It is marked so, was not closed, or contradicts itself.
    """
    fields = _FIRST.unpack(read_exactly(window, 0, _V2_BYTES, name=name, what="its header"))
    _, version, backing, _, bits, size, crypt, l1_entries, l1_offset, counts, count_clusters, shots, shots_at = fields
    if version not in VERSIONS:
        raise refusal(
            UnsupportedImageError, name, f"it is qcow of the version {version}", offset=4, why="2 and 3 are taken"
        )
    if backing:
        raise refusal(OutsideReferenceError, name, "it has a backing file", offset=8, why=_ELSEWHERE)
    if crypt:
        raise refusal(EncryptedImageError, name, f"it is encrypted (method {crypt})", offset=32, why=_ENCRYPTED)
    if bits not in _CLUSTER_BITS:
        raise refusal(
            CorruptImageError,
            name,
            f"its cluster size would be 2^{bits} bytes",
            offset=20,
            why="2^9 to 2^21 are possible",
        )
    if size % SECTOR_BYTES:
        raise refusal(
            CorruptImageError,
            name,
            f"its disk has {size} bytes, which is no whole number of sectors",
            offset=24,
            why="each tool would read another disk",
        )
    more = _SECOND_OF_VERSION_2 if version == min(VERSIONS) else _version_3(window, 1 << bits, name)
    if more.incompatible & _EXTENDED_L2 and bits not in _EXTENDED_CLUSTER_BITS:
        raise refusal(
            CorruptImageError, name, f"it has sub-clusters, and clusters of 2^{bits} bytes", offset=20, why=_MISLEADING
        )
    return Qcow2Header(
        version=version,
        cluster_bits=bits,
        virtual_size_bytes=size,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_offset=counts,
        refcount_clusters=count_clusters,
        refcount_order=more.refcount_order,
        snapshots=shots,
        snapshots_offset=shots_at,
        has_extended_l2=bool(more.incompatible & _EXTENDED_L2),
        compression=_COMPRESSIONS[more.compression],
        bitmaps=_judge_extensions(window, more, 1 << bits, name),
    )


def _version_3(window: Window, cluster_bytes: int, name: str) -> _Second:
    content = read_exactly(window, _V2_BYTES, _SECOND.size, name=name, what="its header")
    incompatible, _, autoclear, order, header_bytes = _SECOND.unpack(content)
    _features(incompatible, name)
    if autoclear & _RAW_DATA_FILE:
        raise refusal(
            OutsideReferenceError, name, "its external data file is said to be raw", offset=88, why=_ELSEWHERE
        )
    if order > _MOST_REFCOUNT_ORDER:
        raise refusal(
            CorruptImageError, name, f"its reference counts would have 2^{order} bits", offset=96, why=_MISLEADING
        )
    if header_bytes < _V3_BYTES or header_bytes % 8 or header_bytes > cluster_bytes:
        raise refusal(
            CorruptImageError, name, f"its header would have {header_bytes} bytes", offset=100, why=_MISLEADING
        )
    compression = 0
    if header_bytes > _V3_BYTES:
        compression = read_exactly(window, _V3_BYTES, 1, name=name, what="its header")[0]
    if compression not in _COMPRESSIONS:
        raise refusal(
            UnsupportedImageError,
            name,
            f"its clusters are compressed in the way {compression}",
            offset=_V3_BYTES,
            why="zlib (0) and zstd (1) are taken",
        )
    if bool(compression) != bool(incompatible & _COMPRESSION):
        raise refusal(
            CorruptImageError,
            name,
            "its header says two things about the compression of its clusters",
            offset=_V3_BYTES,
            why="each tool would read another disk",
        )
    return _Second(
        incompatible=incompatible,
        autoclear=autoclear,
        refcount_order=order,
        header_bytes=header_bytes,
        compression=compression,
    )


def _features(incompatible: int, name: str) -> None:
    cases: tuple[tuple[int, type[ImageRefusedError], str, str], ...] = (
        (_DATA_FILE, OutsideReferenceError, "it has an external data file", _ELSEWHERE),
        (
            ~_KNOWN,
            UnsupportedImageError,
            f"it has unknown incompatible features ({incompatible:#x})",
            "whoever does not know them would read another disk",
        ),
        (_CORRUPT, CorruptImageError, "it is marked corrupt", "a disk that is known to be broken is not given on"),
        (
            _DIRTY,
            CorruptImageError,
            "it is marked dirty",
            "it was not closed, and its counts are not right (`qemu-img check -r all` repairs it)",
        ),
    )
    for bits, kind, found, why in cases:
        if incompatible & bits:
            raise refusal(kind, name, found, offset=_V2_BYTES, why=why)


def _judge_extensions(window: Window, more: _Second, end: int, name: str) -> tuple[int, bytes] | None:
    """Look at the header extensions, which are in the first cluster; return that of bitmaps, where it counts."""
    bitmaps = None
    for offset, kind, content in _extensions(window, more.header_bytes, end, name):
        if kind == _EXTENSION_DATA_FILE:
            raise refusal(OutsideReferenceError, name, "it names an external data file", offset=offset, why=_ELSEWHERE)
        if kind == _EXTENSION_CRYPTO:
            raise refusal(EncryptedImageError, name, "it has an encryption header", offset=offset, why=_ENCRYPTED)
        if kind == _EXTENSION_BITMAPS and more.autoclear & _BITMAPS_COUNT:
            if bitmaps is not None:
                raise refusal(CorruptImageError, name, "it has two lists of bitmaps", offset=offset, why=_MISLEADING)
            bitmaps = (offset, content)
    return bitmaps


def _extensions(window: Window, start: int, end: int, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each is, its kind and its content."""
    at = start
    for _ in range(_MOST_EXTENSIONS):
        if at + 8 > end:
            return
        kind, length = struct.unpack(">II", read_exactly(window, at, 8, name=name, what="its header extensions"))
        if length > end - at - 8:
            raise refusal(
                CorruptImageError,
                name,
                f"a header extension would have {length} bytes, and go on beyond the first cluster",
                offset=at,
                why=_MISLEADING,
            )
        if kind == 0:
            return
        yield at, kind, read_exactly(window, at + 8, length, name=name, what="a header extension")
        at += 8 + -(-length // 8) * 8
    raise refusal(CorruptImageError, name, "it has too many header extensions", offset=at, why=_MISLEADING)
