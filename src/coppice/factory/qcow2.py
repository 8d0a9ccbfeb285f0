# SPDX-License-Identifier: Apache-2.0
"""Compressed qcow2 files as builds make them: a child has its parent's clusters for all that it did not change.

Only files of that one form are read here; everything else is for ``qemu-img``. The form is that of
``docs/interop/qcow2.txt`` of QEMU: version 3, clusters of 64 KiB, Zstandard.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
import sys
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.formats.zstd_frame import frame_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_BITS = 16
_CLUSTER = 1 << _BITS
_ZEROS = bytes(_CLUSTER)
_SECTOR_BITS = 9
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
_MAGIC = b"QFI\xfb"
_VERSION = 3
_OTHER_COMPRESSION = 1 << 3
_ZSTD = 1
_LEVEL = 3
_REFCOUNT_ORDER = 4
_REFCOUNTS = _CLUSTER // 2
_ENTRIES = _CLUSTER // 8
_COPIED, _COMPRESSED = 1 << 63, 1 << 62
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_SECTORS_AT = 62 - (_BITS - 8)
_MOST_BYTES = 1 << 40
_BATCH = 128
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadQcow2:
    """An image whose disk was read.

    Attributes:
        path: The image.
        clusters: Of each cluster that it has compressed, by number: the BLAKE3 of its content, and of its compressed
            form; where that was asked for.
    """

    path: Path
    clusters: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)


class OwnQcow2:
    """A file of the form that builds make, open for reading by one thread.

    Attributes:
        virtual_size_bytes: Length of its disk.
    """

    def __init__(self, stream: BinaryIO, virtual_size_bytes: int, tables: dict[int, array[int]]) -> None:
        self.virtual_size_bytes = virtual_size_bytes
        self._stream = stream
        self._tables = tables
        self._unpacker = zstandard.ZstdDecompressor()

    def written(self) -> Iterator[int]:
        """Give the numbers of the clusters that have content, in order."""
        for number, table in sorted(self._tables.items()):
            yield from (number * _ENTRIES + place for place, entry in enumerate(table) if entry)

    def content(self, number: int) -> bytes:
        """Return a cluster's content.

        Raises:
            BuildError: It is damaged.
        """
        entry = self._entry(number)
        if not entry:
            return _ZEROS
        if not entry & _COMPRESSED:
            found = os.pread(self._stream.fileno(), _CLUSTER, entry & _OFFSET)
        else:
            try:
                found = self._unpacker.stream_reader(self._packed(entry)).read(_CLUSTER + 1)
            except zstandard.ZstdError as problem:
                raise BuildError(f"cluster {number} of an image is damaged", details=str(problem)) from problem
        if len(found) != _CLUSTER:
            raise BuildError(f"cluster {number} of an image has {len(found)} bytes")
        return found

    def frame_of(self, number: int) -> bytes:
        """Return the compressed form that a cluster has here; nothing where it has none."""
        entry = self._entry(number)
        if not entry & _COMPRESSED:
            return b""
        packed = self._packed(entry)
        # What follows belongs to the next one.
        return packed[: frame_bytes(packed)]

    def stored(self, number: int) -> bytes:
        """Return what the file has for a cluster, as it is there, up to the end of the last sector of it."""
        entry = self._entry(number)
        return (
            self._packed(entry) if entry & _COMPRESSED else os.pread(self._stream.fileno(), _CLUSTER, entry & _OFFSET)
        )

    def _entry(self, number: int) -> int:
        table = self._tables.get(number // _ENTRIES)
        return 0 if table is None else table[number % _ENTRIES]

    def _packed(self, entry: int) -> bytes:
        offset = entry & (1 << _SECTORS_AT) - 1
        sectors = (entry & ~_COMPRESSED) >> _SECTORS_AT
        end = ((offset >> _SECTOR_BITS) + 1 + sectors) << _SECTOR_BITS
        return os.pread(self._stream.fileno(), end - offset, offset)


def open_own(stream: BinaryIO) -> OwnQcow2 | None:
    """Return the file of an image that a build made; None: it has another form, which ``qemu-img`` reads."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    magic, version, backing, _, bits, size, crypt, l1_entries, l1_at, *rest = _HEADER.unpack(head)
    _, _, snapshots, _, incompatible, _, _, _, header_bytes, compression = rest
    form = (magic, version, backing, bits, crypt, snapshots, incompatible, compression)
    if form != (_MAGIC, _VERSION, 0, _BITS, 0, 0, _OTHER_COMPRESSION, _ZSTD) or header_bytes < _HEADER.size:
        return None
    if size > _MOST_BYTES or l1_entries != -(-size // (_CLUSTER * _ENTRIES)):
        return None
    tables = {}
    packed = os.pread(stream.fileno(), l1_entries * 8, l1_at)
    if len(packed) != l1_entries * 8:
        return None
    for number, entry in enumerate(_big_endian(packed)):
        if not entry:
            continue
        packed = os.pread(stream.fileno(), _CLUSTER, entry & _OFFSET)
        table = _big_endian(packed) if len(packed) == _CLUSTER else array("Q")
        if not _is_plain(entry) or not table or not all(map(_is_known, table)):
            return None
        tables[number] = table
    return OwnQcow2(stream, size, tables)


def _is_known(entry: int) -> bool:
    # Everything else, such as clusters of zeros that have a place nonetheless, is for QEMU to understand.
    return not entry or entry & (_COPIED | _COMPRESSED) == _COMPRESSED or _is_plain(entry)


def _is_plain(entry: int) -> bool:
    # At the start of the file is its header: whoever says that content is there means that there is none.
    return entry & ~_OFFSET == _COPIED and entry & _OFFSET != 0 and not entry & (_CLUSTER - 1)


def read_qcow2(path: Path, raw: Path, *, remembers: bool = False) -> ReadQcow2 | None:
    """Write the disk in ``path`` to ``raw``, sparse; None: it has another form, and nothing was written.

    Args:
        path: The image.
        raw: Where its disk is written.
        remembers: Whether the digests of its clusters are wanted: of a large disk they take much memory.

    Raises:
        BuildError: It is damaged.
        StorageError: The disk failed.
    """
    found = ReadQcow2(path=path)
    with storage_errors("reading", path), path.open("rb") as stream:
        image = open_own(stream)
        if image is None:
            return None
        with raw.open("xb") as target:
            for number in image.written():
                content = image.content(number)
                if content == _ZEROS:
                    continue
                os.pwrite(target.fileno(), content, number * _CLUSTER)
                frame = image.frame_of(number) if remembers else b""
                if frame:
                    found.clusters[number] = blake3(content).digest(), blake3(frame).digest()
            target.truncate(image.virtual_size_bytes)
    return found


def write_qcow2(raw: Path, path: Path, *, timeout_seconds: float, like: ReadQcow2 | None = None) -> None:
    """Write the disk ``raw`` to ``path``: the same disk always makes the same bytes.

    Args:
        raw: The disk.
        path: Where the image is made.
        timeout_seconds: For it.
        like: An image that was read; where it has the same content, its compressed form is taken over.

    Raises:
        BuildError: It took too long.
        StorageError: The disk failed.
    """
    deadline = time.monotonic() + timeout_seconds
    with storage_errors("writing", path), ExitStack() as stack:
        source, target = stack.enter_context(raw.open("rb")), stack.enter_context(path.open("xb"))
        known = _Known(like, _opened(like, stack))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=_THREADS))
        size_bytes = os.fstat(source.fileno()).st_size
        writer, pack = _Writer(target, size_bytes), _packer()
        numbers = _written(source.fileno(), size_bytes)
        while batch := list(itertools.islice(numbers, _BATCH)):
            if time.monotonic() > deadline:
                raise BuildError(f"writing {path.name} took more than {timeout_seconds:.0f} seconds")
            read = (os.pread(source.fileno(), _CLUSTER, number * _CLUSTER) for number in batch)
            clusters = {number: content.ljust(_CLUSTER, b"\0") for number, content in zip(batch, read, strict=True)}
            frames = {number: known.frame_of(number, content) for number, content in clusters.items()}
            others = [number for number, frame in frames.items() if not frame and clusters[number] != _ZEROS]
            frames |= zip(others, pool.map(pack, (clusters[number] for number in others)), strict=True)
            for number, frame in frames.items():
                if frame:
                    writer.add(number, clusters[number], frame)
        writer.finish()
        writer.check(path)


def _opened(like: ReadQcow2 | None, stack: ExitStack) -> BinaryIO | None:
    try:
        return None if like is None else stack.enter_context(like.path.open("rb"))
    except FileNotFoundError:
        # It is being built anew just now.
        return None


class _Known:
    """What an image has compressed."""

    def __init__(self, like: ReadQcow2 | None, stream: BinaryIO | None) -> None:
        self._clusters = {} if like is None else like.clusters
        self._image = None if stream is None else open_own(stream)

    def frame_of(self, number: int, content: bytes) -> bytes:
        """Return the compressed form of a cluster; nothing where it has other content, or is not compressed."""
        known = self._clusters.get(number)
        if self._image is None or known is None or content == _ZEROS or known[0] != blake3(content).digest():
            return b""
        # The image may have been replaced, or damaged, since it was read.
        frame = self._image.frame_of(number)
        return frame if blake3(frame).digest() == known[1] else b""


def _packer() -> Callable[[bytes], bytes]:
    here = threading.local()

    def pack(content: bytes) -> bytes:
        if not hasattr(here, "packer"):
            here.packer = zstandard.ZstdCompressor(level=_LEVEL)
        made: bytes = here.packer.compress(content)
        return made

    return pack


class _Writer:
    """A file on its way: the header and tables of a known length, then what is compressed, then the counts."""

    def __init__(self, target: BinaryIO, size_bytes: int) -> None:
        self._target = target
        self._size_bytes = size_bytes
        self._l1_entries = -(-size_bytes // (_CLUSTER * _ENTRIES))
        self._first = 1 + -(-self._l1_entries * 8 // _CLUSTER)
        self._tables: dict[int, array[int]] = {}
        self._counts: array[int] = array("H")
        self._sums: dict[int, tuple[int, bytes]] = {}
        self._at = (self._first + self._l1_entries) * _CLUSTER

    def add(self, number: int, content: bytes, frame: bytes) -> None:
        """Add a cluster of the disk."""
        if len(frame) < _CLUSTER:
            start, data = self._at, frame
            sectors = (start + len(data) - 1 >> _SECTOR_BITS) - (start >> _SECTOR_BITS)
            entry = _COMPRESSED | sectors << _SECTORS_AT | start
        else:
            start, data = _aligned(self._at), content
            entry = _COPIED | start
        os.pwrite(self._target.fileno(), data, start)
        self._sums[number] = (len(data), blake3(data).digest())
        self._at = start + len(data)
        self._count(start, self._at)
        table = self._tables.setdefault(number // _ENTRIES, array("Q", bytes(_CLUSTER)))
        table[number % _ENTRIES] = entry

    def finish(self) -> None:
        """Write the tables, the counts and the header."""
        l1 = array("Q", bytes(self._l1_entries * 8))
        self._count(0, self._first * _CLUSTER)
        for number, table in sorted(self._tables.items()):
            at = (self._first + number) * _CLUSTER
            l1[number] = _COPIED | at
            self._count(at, at + _CLUSTER)
            self._write(table, at)
        self._write(l1, _CLUSTER)
        blocks_at = _aligned(self._at)
        blocks, table_clusters = _count_blocks(blocks_at // _CLUSTER)
        table_at = blocks_at + blocks * _CLUSTER
        end = table_at + table_clusters * _CLUSTER
        self._count(blocks_at, end)
        self._counts.extend([0] * (blocks * _REFCOUNTS - len(self._counts)))
        self._write(self._counts, blocks_at)
        self._write(array("Q", [blocks_at + number * _CLUSTER for number in range(blocks)]), table_at)
        os.pwrite(self._target.fileno(), self._header(table_at, table_clusters), 0)
        self._target.truncate(end)

    def check(self, path: Path) -> None:
        """Read the file back: each cluster of the disk leads to what was written for it, and no other has anything.

        Raises:
            BuildError: It is not so.
        """
        self._target.flush()
        with path.open("rb") as stream:
            image = open_own(stream)
            is_sound = (
                image is not None
                and image.virtual_size_bytes == self._size_bytes
                and list(image.written()) == list(self._sums)
                and all(
                    blake3(image.stored(number)[:length]).digest() == digest
                    for number, (length, digest) in self._sums.items()
                )
            )
        if not is_sound:
            raise BuildError(f"{path.name} is not what was written", resolution="Look after the disk that it is on.")

    def _header(self, table_at: int, table_clusters: int) -> bytes:
        first = (_MAGIC, _VERSION, 0, 0, _BITS, self._size_bytes, 0, self._l1_entries, _CLUSTER)
        features = (_OTHER_COMPRESSION, 0, 0, _REFCOUNT_ORDER)
        return _HEADER.pack(*first, table_at, table_clusters, 0, 0, *features, _HEADER.size, _ZSTD)

    def _count(self, start: int, end: int) -> None:
        first, last = start >> _BITS, end - 1 >> _BITS
        self._counts.extend([0] * (last + 1 - len(self._counts)))
        for cluster in range(first, last + 1):
            self._counts[cluster] += 1

    def _write(self, numbers: array[int], at: int) -> None:
        swapped = array(numbers.typecode, numbers)
        if sys.byteorder == "little":
            swapped.byteswap()
        os.pwrite(self._target.fileno(), swapped.tobytes(), at)


def _count_blocks(clusters: int) -> tuple[int, int]:
    """Return how many blocks of counts a file needs, and their table; they count themselves, too."""
    blocks, table = 1, 1
    while blocks * _REFCOUNTS < clusters + blocks + table:
        blocks += 1
        table = -(-blocks * 8 // _CLUSTER)
    return blocks, table


def _written(handle: int, size_bytes: int) -> Iterator[int]:
    """Give the numbers of the clusters of a raw disk that are not holes."""
    number = 0
    while number * _CLUSTER < size_bytes:
        try:
            start = os.lseek(handle, number * _CLUSTER, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(handle, start, os.SEEK_HOLE)
        first, number = max(number, start >> _BITS), (end - 1 >> _BITS) + 1
        yield from range(first, number)


def _aligned(offset: int) -> int:
    return -(-offset // _CLUSTER) * _CLUSTER


def _big_endian(data: bytes) -> array[int]:
    found = array("Q", data)
    if sys.byteorder == "little":
        found.byteswap()
    return found
