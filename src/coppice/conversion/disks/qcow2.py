# SPDX-License-Identifier: Apache-2.0
"""qcow2, versions 2 and 3: QEMU's ``docs/interop/qcow2.txt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import believe_size
from coppice.conversion.disks.qcow2_counts import refuse_uncounted
from coppice.conversion.disks.qcow2_extras import bitmaps, snapshots
from coppice.conversion.disks.qcow2_header import SIGNATURE, read_header
from coppice.conversion.disks.qcow2_tables import HostClusters, allocated_clusters, l1_tables, refcount_blocks
from coppice.conversion.model import Detection
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window

_SIZE_OFFSET = 24


def matches(window: Window) -> bool:
    """Tell whether the file begins like qcow of any version."""
    return window.read(0, len(SIGNATURE)) == SIGNATURE


def look(window: Window, limits: ConversionLimits, name: str) -> Detection:
    """Return what the disk is, after a look at its header, its extensions, and all of its tables.

    Raises:
        OutsideReferenceError: It takes content from a backing file or a data file.
        EncryptedImageError: It is encrypted.
        OversizedImageError: Its disk is larger than is taken.
        UnsupportedImageError: It has a version or a feature that is not taken, or too much to look at.
        CorruptImageError: It is marked so, was not closed, or contradicts itself or the file's length.
    """
    header = read_header(window, name)
    believe_size(header.virtual_size_bytes, limits, name=name, offset=_SIZE_OFFSET)
    hosts = HostClusters(window, header, name)
    hosts.take_header()
    notes = []
    if count := snapshots(window, header, hosts, name):
        notes.append(f"it has internal snapshots ({count}), which a conversion leaves behind")
    if count := bitmaps(window, header, hosts, name):
        notes.append(f"it has dirty bitmaps ({count}), which a conversion leaves behind")
    blocks = refcount_blocks(window, header, hosts, name)
    tables = l1_tables(window, header, hosts, name)
    allocated = allocated_clusters(window, header, hosts, name, tables) * header.cluster_bytes
    hosts.refuse_cut_off(header)
    refuse_uncounted(window, header, hosts, name, blocks)
    words = [f"v{header.version}"]
    if header.compression != "zlib":
        words.append(header.compression)
    if header.has_extended_l2:
        words.append("extended-l2")
        notes.append(
            "it has sub-clusters, which OpenStack takes for an unknown feature: a conversion leaves them behind"
        )
    return Detection(
        format=DiskFormat.QCOW2,
        variant=" ".join(words),
        virtual_size_bytes=header.virtual_size_bytes,
        allocated_bytes=min(allocated, header.virtual_size_bytes),
        must_be_rewritten=bool(notes),
        notes=tuple(notes),
    )
