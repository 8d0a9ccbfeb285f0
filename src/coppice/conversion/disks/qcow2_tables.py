# SPDX-License-Identifier: Apache-2.0
"""The tables of qcow2: "Cluster mapping" and "Host cluster management" of QEMU's ``docs/interop/qcow2.txt``.

Each host cluster that something refers to has one byte in memory while they are read, so that nothing is used for two
things. The work grows with the tables that the file has, never with a number in them; both are bounded.
"""

from __future__ import annotations

from array import array
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import read_exactly, within
from coppice.conversion.disks.tables import big_endian
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.conversion.disks.qcow2_header import Qcow2Header
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

MOST_FILE_CLUSTERS = 1 << 26
"""Of a file that is taken: one byte of memory each. 4 TiB of clusters of 64 KiB."""
MOST_CLUSTERS = 1 << 27
"""Of a disk that is taken. 8 TiB of clusters of 64 KiB."""
_MOST_L1_BYTES = 32 * 1024 * 1024
_MOST_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024
_STEP_BYTES = 256 * 1024
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COPIED, _COMPRESSED = 1 << 63, 1 << 62
_ZERO = 1
_L1_RESERVED = ~(_OFFSET | _COPIED) & 2**64 - 1
_LOW = 2**32 - 1
_METADATA, _DATA, _SHARED = 1, 2, 3
_WORDS = {_METADATA: "metadata", _DATA: "another cluster of the disk", _SHARED: "compressed data"}
_MISLEADING = "its tables contradict themselves or the file: programs would read different disks"


class HostClusters:
    """What each cluster of the file is used for."""

    def __init__(self, window: Window, header: Qcow2Header, name: str) -> None:
        self._bits = header.cluster_bits
        self._name = name
        self._window = window
        count = -(-window.size_bytes // header.cluster_bytes)
        if count > MOST_FILE_CLUSTERS:
            raise refusal(
                UnsupportedImageError,
                name,
                f"it has {count} clusters of {header.cluster_bytes} bytes",
                offset=20,
                why=f"more than {MOST_FILE_CLUSTERS} would take too long to look at",
                resolution="Make it anew with larger clusters.",
            )
        self._uses = bytearray(count)

    def take_metadata(self, start: int, length: int, what: str) -> None:
        """Note that a stretch is metadata of its own; it is inside of the file, and begins with a cluster.

        Raises:
            CorruptImageError: It does not, or is something else as well.
        """
        if start & (1 << self._bits) - 1 or start == 0:
            raise self.broken(f"{what} would begin at byte {start}", start)
        within(self._window, start, length, name=self._name, what=what)
        for cluster in range(start >> self._bits, -(-(start + length) >> self._bits)):
            self._take(cluster, _METADATA, what)

    def take_header(self) -> None:
        """Note that the first cluster is the header's."""
        self._uses[0] = _METADATA

    def take_data(self, offsets: list[int]) -> None:
        """Note clusters of the disk; each begins with a cluster and is in the file, if not to its end.

        Raises:
            CorruptImageError: One does not, or is something else as well.
        """
        uses, bits = self._uses, self._bits
        unaligned = (1 << bits) - 1
        count = len(offsets)
        if count and not offsets[0] & unaligned and offsets == _row(offsets[0], count, 1 << bits):
            # An image that was written from its beginning to its end has its clusters in a row.
            first = offsets[0] >> bits
            if uses.count(0, first, first + count) == count:
                uses[first : first + count] = bytes((_DATA,)) * count
                return
        for offset in offsets:
            cluster = offset >> bits
            if offset & unaligned or cluster >= len(uses) or uses[cluster]:
                raise self._wrong_data(offset)
            uses[cluster] = _DATA

    def take_compressed(self, entries: list[int]) -> None:
        """Note compressed data, which may share clusters with other such data ("Compressed Clusters Descriptor").

        Args:
            entries: Of a second-level table, all of that kind.

        Raises:
            CorruptImageError: Some is not inside of the file, or something else as well.
        """
        uses, bits = self._uses, self._bits
        offset_bits = 62 - (bits - 8)
        in_offset, in_entry = (1 << offset_bits) - 1, _COMPRESSED - 1
        end = -(-self._window.size_bytes // 512) * 512
        for entry in entries:
            start = entry & in_offset
            beyond = (start >> 9) + ((entry & in_entry) >> offset_bits) + 1 << 9
            if beyond > end:
                raise self.broken(f"compressed data would lie from byte {start} to {beyond}", start)
            for cluster in range(start >> bits, (beyond - 1 >> bits) + 1):
                if uses[cluster] != _SHARED:
                    self._take(cluster, _SHARED, "compressed data")

    def refuse_cut_off(self, header: Qcow2Header) -> None:
        """See to it that the last cluster of the file is whole, where it is the disk's.

        A disk that ends inside of a cluster may have that one in part. With sub-clusters a cluster may end with any.

        Raises:
            CorruptImageError: It is not.
        """
        there = self._window.size_bytes & (1 << self._bits) - 1
        needed = header.virtual_size_bytes & (1 << self._bits) - 1 or 1 << self._bits
        if there and self._uses[-1] == _DATA and there < needed and not header.has_extended_l2:
            end = self._window.size_bytes
            raise self.broken(f"the file ends after {there} bytes of a cluster of the disk", end)

    def used(self, first: int, count: int) -> bytearray:
        """Return what some clusters are used for, fewer where the file ends: 0 for nothing."""
        return self._uses[first : first + count]

    def broken(self, found: str, offset: int) -> ImageRefusedError:
        """Return the error of tables that cannot be right."""
        return refusal(CorruptImageError, self._name, found, offset=offset, why=_MISLEADING)

    def _take(self, cluster: int, use: int, what: str) -> None:
        if cluster >= len(self._uses):
            raise self.broken(f"{what} would lie beyond the end of the file", cluster << self._bits)
        if self._uses[cluster]:
            raise self.broken(f"{what} lies where {_WORDS[self._uses[cluster]]} is", cluster << self._bits)
        self._uses[cluster] = use

    def _wrong_data(self, offset: int) -> ImageRefusedError:
        cluster = offset >> self._bits
        if offset & (1 << self._bits) - 1:
            return self.broken(f"a cluster of the disk would begin at byte {offset}", offset)
        if cluster >= len(self._uses):
            return self.broken(
                f"a cluster of the disk would lie beyond the file's {self._window.size_bytes} bytes", offset
            )
        return self.broken(f"a cluster of the disk lies where {_WORDS[self._uses[cluster]]} is", offset)


def refcount_blocks(window: Window, header: Qcow2Header, hosts: HostClusters, name: str) -> array[int]:
    """Return where the blocks of reference counts are, 0 for those that are not there, after a look at their table.

    Raises:
        CorruptImageError: The table, or a block, is not where it can be.
    """
    length = header.refcount_clusters * header.cluster_bytes
    if not 0 < length <= _MOST_REFCOUNT_TABLE_BYTES:
        raise hosts.broken(f"its table of reference counts would have {length} bytes", 56)
    hosts.take_metadata(header.refcount_offset, length, "its table of reference counts")
    blocks: array[int] = array("Q")
    for step in range(0, length, _STEP_BYTES):
        at = header.refcount_offset + step
        content = read_exactly(
            window, at, min(_STEP_BYTES, length - step), name=name, what="its table of reference counts"
        )
        entries = big_endian("Q", content)
        blocks.extend(entries)
        for entry in entries:
            if entry:
                hosts.take_metadata(entry, header.cluster_bytes, "a block of reference counts")
    return blocks


def l1_tables(window: Window, header: Qcow2Header, hosts: HostClusters, name: str) -> list[int]:
    """Return where the tables of the second level are, after a look at the first level.

    Raises:
        CorruptImageError: A table is not where it can be, or is too small for the disk.
        UnsupportedImageError: The disk has more clusters than can be looked at.
    """
    if header.clusters > MOST_CLUSTERS:
        raise refusal(
            UnsupportedImageError,
            name,
            f"its disk has {header.clusters} clusters of {header.cluster_bytes} bytes",
            offset=20,
            why=f"more than {MOST_CLUSTERS} would take too long to look at",
            resolution="Make it anew with larger clusters.",
        )
    needed = -(-header.clusters // header.l2_entries)
    length = header.l1_entries * 8
    if length > _MOST_L1_BYTES or header.l1_entries < needed:
        raise hosts.broken(
            f"its first-level table has {header.l1_entries} entries, its disk needs {needed}, and "
            f"{_MOST_L1_BYTES // 8} are possible",
            36,
        )
    hosts.take_metadata(header.l1_offset, length, "its first-level table")
    found = []
    for step in range(0, length, _STEP_BYTES):
        at = header.l1_offset + step
        content = read_exactly(window, at, min(_STEP_BYTES, length - step), name=name, what="its first-level table")
        for number, entry in enumerate(big_endian("Q", content)):
            if not entry:
                continue
            if entry & _L1_RESERVED:
                raise hosts.broken(f"an entry of its first-level table is {entry:#x}", at + number * 8)
            offset = entry & _OFFSET
            if offset:
                hosts.take_metadata(offset, header.cluster_bytes, "a second-level table")
                found.append(offset)
    return found


def allocated_clusters(window: Window, header: Qcow2Header, hosts: HostClusters, name: str, tables: list[int]) -> int:
    """Return how many clusters of the disk the file has, after a look at all tables of the second level.

    Raises:
        CorruptImageError: An entry leads beyond the file, to what is something else, or to what another leads to.
    """
    count = 0
    for table in tables:
        for step in range(0, header.cluster_bytes, _STEP_BYTES):
            length = min(_STEP_BYTES, header.cluster_bytes)
            content = read_exactly(window, table + step, length, name=name, what="a second-level table")
            if content.count(0) != len(content):
                count += _entries(content, table + step, header, hosts)
    return count


def _entries(content: bytes, at: int, header: Qcow2Header, hosts: HostClusters) -> int:
    """Look at the entries of a part of a table ("Standard Cluster Descriptor"); return how many clusters are there."""
    entries = big_endian("Q", content)
    if header.has_extended_l2:
        _sub_clusters(entries[0::2], entries[1::2], at, hosts)
        entries = entries[0::2]
    zero = 0 if header.version == 2 or header.has_extended_l2 else _ZERO  # noqa: PLR2004 - version 3 brought it
    reserved = ~(_OFFSET | _COPIED | zero) & 2**64 - 1
    bits_of_all = reduce(or_, entries)
    plain: Sequence[int] = entries
    count = 0
    if bits_of_all & _COMPRESSED:
        compressed = [entry for entry in entries if entry & _COMPRESSED]
        hosts.take_compressed(compressed)
        plain = [entry for entry in entries if not entry & _COMPRESSED]
        count = len(compressed)
        bits_of_all = reduce(or_, plain, 0)
    if bits_of_all & reserved:
        wrong = next(entry for entry in plain if entry & reserved)
        raise hosts.broken(f"an entry of a second-level table is {wrong:#x}", at)
    data = [entry & _OFFSET for entry in plain if entry & _OFFSET]
    hosts.take_data(data)
    if bits_of_all & zero:
        return count + sum(1 for entry in plain if entry & _OFFSET and not entry & zero)
    return count + len(data)


def _row(first: int, count: int, step: int) -> list[int]:
    return list(range(first, first + count * step, step))


def _sub_clusters(entries: array[int], maps: array[int], at: int, hosts: HostClusters) -> None:
    for number, (entry, bitmap) in enumerate(zip(entries, maps, strict=True)):
        if not bitmap:
            continue
        where = at + number * 16 + 8
        present, zero = bitmap & _LOW, bitmap >> 32
        if present & zero:
            raise hosts.broken("a sub-cluster is both there and zero", where)
        if present and not entry & _OFFSET:
            raise hosts.broken("a sub-cluster is there, its cluster is not", where)
