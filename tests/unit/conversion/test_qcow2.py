# SPDX-License-Identifier: Apache-2.0
"""What is taken of qcow2, what is told of it, and how little is read of it."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from coppice.conversion.detect import detect
from coppice.conversion.disks import qcow2, qcow2_tables
from coppice.conversion.model import ConversionLimits
from coppice.conversion.window import BytesWindow
from coppice.errors import CorruptImageError, ImageRefusedError, OversizedImageError, UnsupportedImageError
from coppice.model.image import DiskFormat
from coppice.testing.qcow2 import (
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    EXTENSION_BACKING_FORMAT,
    L1,
    L2,
    REFCOUNT_BLOCK,
    TinyQcow2,
    bitmap_directory,
    bitmaps_extension,
    snapshot,
)

pytestmark = pytest.mark.unit
LIMITS = ConversionLimits()
END = DATA + 2 * CLUSTER


class CountingWindow(BytesWindow):
    """Notes how much is read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.bytes_read = 0

    def read(self, start: int, length: int) -> bytes:
        piece = super().read(start, length)
        self.bytes_read += len(piece)
        return piece


class HugeWindow:
    """A file of which only the beginning was written."""

    def __init__(self, content: bytes, size_bytes: int) -> None:
        self._content = content
        self.size_bytes = size_bytes

    def read(self, start: int, length: int) -> bytes:
        length = max(0, min(length, self.size_bytes - start))
        return self._content[start : start + length].ljust(length, b"\0")


def found(image: TinyQcow2, limits: ConversionLimits = LIMITS):
    content = image.content()
    return detect(BytesWindow(content), limits, name="x", file_size_bytes=len(content))


def entries(*values: int) -> dict[int, bytes]:
    return {L2: struct.pack(f">{len(values)}Q", *values)}


@pytest.mark.parametrize(
    ("image", "variant", "allocated"),
    [
        (TinyQcow2(), "v3", 2 * CLUSTER),
        (TinyQcow2(version=2), "v2", 2 * CLUSTER),
        (TinyQcow2(clusters=0), "v3", 0),
        (TinyQcow2(cluster_bits=9, virtual_size_bytes=4096), "v3", 1024),
        (TinyQcow2(cluster_bits=14, clusters=1, fields={"incompatible": 16}, patches={(4 << 14) + 8: b"\0" * 4}),
         "v3 extended-l2", 1 << 14),
        (TinyQcow2(fields={"incompatible": 8, "header_bytes": 112, "compression": 1}), "v3 zstd", 2 * CLUSTER),
        (TinyQcow2(fields={"compatible": 1, "autoclear": 1 << 40}), "v3", 2 * CLUSTER),
        (TinyQcow2(patches=entries(1, DATA | COPIED | 1, (DATA + CLUSTER) | COPIED)), "v3", CLUSTER),
        (TinyQcow2(patches=entries(COMPRESSED | DATA + 100, COMPRESSED | DATA + 700)), "v3", 2 * CLUSTER),
        (TinyQcow2(size_bytes=END - 512, virtual_size_bytes=2 * CLUSTER - 512), "v3", 2 * CLUSTER - 512),
        (TinyQcow2(virtual_size_bytes=CLUSTER + 512), "v3", CLUSTER + 512),
    ],
    ids=[
        "v3", "v2", "empty", "small-clusters", "sub-clusters", "zstd", "unknown-autoclear", "zero-clusters",
        "compressed", "last-cluster-in-part", "odd-size",
    ],
)  # fmt: skip
def test_what_qemu_writes_is_taken_with_what_it_has(image, variant, allocated):
    disk = found(image)
    assert (disk.format, disk.variant, disk.allocated_bytes) == (DiskFormat.QCOW2, variant, allocated)
    assert disk.virtual_size_bytes == image.virtual_size_bytes
    assert disk.must_be_rewritten == ("extended-l2" in variant)  # which OpenStack's readers do not know


@pytest.mark.threat("T64")
def test_internal_snapshots_are_taken_and_told_and_left_behind():
    record = snapshot(l1_offset=END, l1_entries=1)
    disk = found(
        TinyQcow2(
            fields={"snapshots": 2, "snapshots_offset": END + 2 * CLUSTER},
            patches={
                END: struct.pack(">Q", L2 | COPIED),
                END + CLUSTER: struct.pack(">Q", L2 | COPIED),
                END + 2 * CLUSTER: record + snapshot(l1_offset=END + CLUSTER, l1_entries=1, name=b"caf\xc3\xa9"),
            },
        )
    )
    assert disk.must_be_rewritten
    assert "internal snapshots (2)" in disk.notes[0]


def test_dirty_bitmaps_are_told_where_the_file_says_that_they_are_in_step():
    content = bitmap_directory(table=END + CLUSTER, entries=1)
    extension = bitmaps_extension(count=1, offset=END, size_bytes=len(content))
    patches = {END: content, END + CLUSTER: bytes(CLUSTER)}
    disk = found(TinyQcow2(fields={"autoclear": 1}, extensions=(extension,), patches=patches))
    assert disk.must_be_rewritten
    assert "dirty bitmaps (1)" in disk.notes[0]
    stale = bitmaps_extension(count=2**31, offset=1 << 50, size_bytes=2**40)
    assert found(TinyQcow2(extensions=(stale,))).notes == ()


def test_the_format_of_a_backing_file_that_is_not_there_is_harmless():
    assert found(TinyQcow2(extensions=((EXTENSION_BACKING_FORMAT, b"raw"),))).variant == "v3"


def test_tables_of_a_disk_that_became_smaller_are_still_looked_at():
    assert found(TinyQcow2(virtual_size_bytes=CLUSTER)).allocated_bytes == CLUSTER
    with pytest.raises(CorruptImageError):
        found(TinyQcow2(virtual_size_bytes=CLUSTER, patches={L2 + 8: struct.pack(">Q", 1 << 40)}))


@pytest.mark.threat("T63")
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"virtual_size": 2**63}, OversizedImageError),
        ({"l1_entries": 2**32 - 1}, CorruptImageError),
        ({"refcount_clusters": 2**32 - 1}, CorruptImageError),
        ({"snapshots": 2**32 - 1, "snapshots_offset": 1 << 40}, UnsupportedImageError),
        ({"cluster_bits": 2**32 - 1}, CorruptImageError),
    ],
    ids=["size", "l1", "refcounts", "snapshots", "clusters"],
)
def test_a_number_in_the_header_costs_neither_memory_nor_reading(fields, kind):
    window = CountingWindow(TinyQcow2(fields=fields).content())
    tracemalloc.start()
    try:
        with pytest.raises(kind):
            qcow2.look(window, LIMITS, "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert window.bytes_read < 16 * 1024
    assert peak < 1024 * 1024


@pytest.mark.threat("T63")
def test_what_would_take_too_long_is_refused_and_not_begun():
    image = TinyQcow2(cluster_bits=9, virtual_size_bytes=2**40, fields={"l1_entries": 2**22})
    with pytest.raises(UnsupportedImageError, match="clusters"):
        qcow2.look(HugeWindow(image.content(), 1 << 34), LIMITS, "x")
    with pytest.raises(UnsupportedImageError, match="clusters"):
        qcow2.look(
            HugeWindow(TinyQcow2(cluster_bits=9).content(), 512 * (qcow2_tables.MOST_FILE_CLUSTERS + 1)), LIMITS, "x"
        )


def test_a_disk_may_be_as_long_as_its_file_makes_credible():
    image = TinyQcow2(virtual_size_bytes=64 * 1024)
    content = image.content()
    limits = ConversionLimits(maximum_virtual_size_bytes=64 * 1024)
    assert detect(BytesWindow(content), limits, name="x", file_size_bytes=len(content)).virtual_size_bytes == 64 * 1024
    with pytest.raises(OversizedImageError, match="65535"):
        found(image, ConversionLimits(maximum_virtual_size_bytes=64 * 1024 - 1))


@pytest.mark.parametrize("order", range(7))
def test_counts_of_any_length_are_read(order):
    bits = 1 << order
    counts = sum(1 << position * bits for position in range(7))
    content = counts.to_bytes(56, "little") if bits < 8 else b"".join(
        (1).to_bytes(bits // 8, "big") for _ in range(7)
    )  # fmt: skip
    block = {REFCOUNT_BLOCK: content.ljust(64, b"\0")}
    assert found(TinyQcow2(fields={"refcount_order": order}, patches=block)).allocated_bytes == 2 * CLUSTER
    with pytest.raises(CorruptImageError, match="cluster 7 is used, and counted as free"):
        found(TinyQcow2(clusters=3, fields={"refcount_order": order}, patches=block))


def test_clusters_that_are_counted_and_not_used_are_lost_room_only():
    assert found(TinyQcow2(clusters=3, patches={L2 + 16: bytes(8)})).allocated_bytes == 2 * CLUSTER


def test_clusters_in_a_row_are_checked_like_all_others():
    rows = entries(*((DATA + number * CLUSTER) | COPIED for number in range(16)))
    assert found(TinyQcow2(clusters=16, patches=rows)).allocated_bytes == 16 * CLUSTER
    again = DATA + 16 * CLUSTER
    second = {
        L1: struct.pack(">QQ", L2 | COPIED, again | COPIED),
        again: struct.pack(">4Q", *((DATA + number * CLUSTER) | COPIED for number in range(3, 7))),
        again + CLUSTER - 1: b"\0",
    }
    with pytest.raises(CorruptImageError, match="lies where another cluster"):
        found(TinyQcow2(clusters=16, fields={"l1_entries": 2}, patches={**rows, **second}))
    beyond = entries(*((DATA + number * CLUSTER) | COPIED for number in range(16)))
    with pytest.raises(CorruptImageError, match="beyond"):
        found(TinyQcow2(clusters=15, virtual_size_bytes=16 * CLUSTER, patches=beyond))


@pytest.mark.threat("T63")
def test_every_prefix_of_a_file_is_refused_or_taken_and_nothing_else():
    content = TinyQcow2().content()
    for length in (*range(0, len(content), 97), len(content)):
        try:
            detect(BytesWindow(content[:length]), LIMITS, name="x", file_size_bytes=length)
        except ImageRefusedError:
            continue
        assert length == len(content)
