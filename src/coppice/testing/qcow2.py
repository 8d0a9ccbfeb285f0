# SPDX-License-Identifier: Apache-2.0
"""Tiny qcow2 files, written byte by byte, with all of their tables, so that any field of them can be made a lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CLUSTER_BITS = 12
CLUSTER = 1 << CLUSTER_BITS
PLACES = ("header", "refcount table", "refcount block", "l1", "l2", "data")
"""What is in each cluster; the disk's data has the rest."""
REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, DATA = (CLUSTER * number for number in range(1, 6))
"""Where that is, with clusters of the usual length."""
COPIED = 1 << 63
COMPRESSED = 1 << 62
SNAPSHOT = struct.Struct(">QIHHIIQII")
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_BITMAPS = 0x23852875
EXTENSION_CRYPTO = 0x0537BE77
EXTENSION_DATA_FILE = 0x44415441
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_V2_BYTES = 72
FIELDS = {
    "version": (4, ">I"),
    "backing_offset": (8, ">Q"),
    "backing_bytes": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "virtual_size": (24, ">Q"),
    "crypt": (32, ">I"),
    "l1_entries": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "refcount_offset": (48, ">Q"),
    "refcount_clusters": (56, ">I"),
    "snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"),
    "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"),
    "header_bytes": (100, ">I"),
    "compression": (104, ">B"),
}
"""Of the header: offset and form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyQcow2:
    """A qcow2 file of a few clusters.

    Attributes:
        version: 2 or 3.
        cluster_bits: A cluster has two to the power of this many bytes.
        clusters: How many of the disk the file has, from the beginning of the disk on.
        virtual_size_bytes: Length of the disk.
        fields: Of the header, by the names of `FIELDS`, written over what is right.
        extensions: Of the header: kind and content.
        backing_file: A name, written behind the extensions and pointed to.
        patches: Bytes by offset, written over the file at last; beyond its end they make it longer.
        size_bytes: Length that the file is cut or filled to, with zeros; None: as long as its clusters.
    """

    version: int = 3
    cluster_bits: int = CLUSTER_BITS
    clusters: int = 2
    virtual_size_bytes: int = 64 * 1024
    fields: dict[str, int] = field(default_factory=dict)
    extensions: tuple[tuple[int, bytes], ...] = ()
    backing_file: str | None = None
    patches: dict[int, bytes] = field(default_factory=dict)
    size_bytes: int | None = None

    def content(self) -> bytes:
        """Return the file."""
        whole = bytearray(self._at("data") + self.clusters * self._cluster)
        whole[: len(self._header())] = self._header()
        struct.pack_into(">Q", whole, self._at("refcount table"), self._at("refcount block"))
        end = max(len(whole), *(offset + len(piece) for offset, piece in self.patches.items()), 0)
        for number in range(-(-end // self._cluster)):
            struct.pack_into(">H", whole, self._at("refcount block") + number * 2, 1)
        struct.pack_into(">Q", whole, self._at("l1"), self._at("l2") | COPIED)
        for number in range(self.clusters):
            at = self._at("data") + number * self._cluster
            struct.pack_into(">Q", whole, self._at("l2") + number * 8, at | COPIED)
            whole[at : at + self._cluster] = bytes((number + 1,)) * self._cluster
        for name, value in self.fields.items():
            offset, form = FIELDS[name]
            struct.pack_into(form, whole, offset, value)
        for offset, piece in self.patches.items():
            if offset + len(piece) > len(whole):
                whole.extend(bytes(offset + len(piece) - len(whole)))
            whole[offset : offset + len(piece)] = piece
        if self.size_bytes is not None:
            return bytes(whole[: self.size_bytes].ljust(self.size_bytes, b"\0"))
        return bytes(whole)

    @property
    def _cluster(self) -> int:
        return 1 << self.cluster_bits

    def _at(self, place: str) -> int:
        return PLACES.index(place) * self._cluster

    def _header(self) -> bytes:
        extensions = b"".join(
            struct.pack(">II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")
            for kind, content in (*self.extensions, (0, b""))
        )
        name = (self.backing_file or "").encode()
        length = 104 if self.version > 2 else _V2_BYTES  # noqa: PLR2004 - version 3 brought a longer header
        fixed = _HEADER.pack(
            b"QFI\xfb",
            self.version,
            length + len(extensions) if name else 0,
            len(name),
            self.cluster_bits,
            self.virtual_size_bytes,
            0,
            1,
            self._at("l1"),
            self._at("refcount table"),
            1,
            0,
            0,
            0,
            0,
            0,
            4,
            104,
        )
        return fixed[:length] + extensions + name


def snapshot(*, l1_offset: int, l1_entries: int, extra_bytes: int = 16, name: bytes = b"before") -> bytes:
    """Return the record of an internal snapshot."""
    record = SNAPSHOT.pack(l1_offset, l1_entries, 1, len(name), 0, 0, 0, 0, extra_bytes) + bytes(min(extra_bytes, 64))
    record += b"1" + name
    return record.ljust(-(-len(record) // 8) * 8, b"\0")


def bitmap_directory(*, table: int, entries: int, granularity: int = 16, count: int = 1) -> bytes:
    """Return the directory of dirty bitmaps."""
    record = struct.pack(">QIIBBHI", table, entries, 2, 1, granularity, 2, 0) + b"b0"
    return record.ljust(-(-len(record) // 8) * 8, b"\0") * count


def bitmaps_extension(*, count: int, offset: int, size_bytes: int) -> tuple[int, bytes]:
    """Return the header extension of dirty bitmaps."""
    return EXTENSION_BITMAPS, struct.pack(">IIQQ", count, 0, size_bytes, offset)
