# SPDX-License-Identifier: Apache-2.0
"""Read the partition table of a disk: MBR with its chain of logical partitions, and GPT with its backup.

Nothing here raises, whatever the bytes are: a table that cannot be read is one with a `PartitionLayout.problem`. What
firmware and the Linux kernel would do is the judge of what is a table at all, because they are what starts a guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.model import PartitionTable
from coppice.formats.partition_layout import BOOT_CODE_BYTES, SECTOR_BYTES, Partition, PartitionLayout
from coppice.formats.partitions_gpt import gpt_layout, has_gpt_signature
from coppice.formats.partitions_mbr import entries_of, mbr_layout

if TYPE_CHECKING:
    from collections.abc import Callable


def read_partitions(read: Callable[[int, int], bytes], size_bytes: int) -> PartitionLayout:
    """Return the partition table of a disk.

    GPT as in UEFI 2.10, section 5; it counts where a protective MBR announces it, as for firmware and the Linux
    kernel. MBR as Linux reads it: its flags are 0 or 0x80, and a boot sector of a file system is none.

    Args:
        read: Gives the disk's bytes by start and length; what it raises is raised.
        size_bytes: Length of the disk.
    """
    first = read(0, SECTOR_BYTES)
    entries = entries_of(first, size_bytes)
    if entries is None:
        stray = has_gpt_signature(read)
        notes = ("there is a GPT header without an MBR that announces it, which counts for nothing",) if stray else ()
        return PartitionLayout(table=None, boot_code=first[:BOOT_CODE_BYTES], notes=notes)
    if any(entry.is_protective for entry in entries):
        layout = gpt_layout(read, size_bytes, hybrid=any(not entry.is_protective for entry in entries))
    else:
        layout = mbr_layout(read, size_bytes, entries, stray_gpt=has_gpt_signature(read))
    return PartitionLayout(
        table=layout.table,
        partitions=layout.partitions,
        sector_bytes=layout.sector_bytes,
        boot_code=first[:BOOT_CODE_BYTES],
        problem=layout.problem,
        notes=(*layout.notes, *_odd(layout.partitions)),
    )


def partition_table_of(read: Callable[[int, int], bytes], size_bytes: int) -> PartitionTable | None:
    """Return which table a disk has, without reading all of it; None: none."""
    entries = entries_of(read(0, SECTOR_BYTES), size_bytes)
    if entries is None:
        return None
    return PartitionTable.GPT if any(entry.is_protective for entry in entries) else PartitionTable.MBR


def _odd(partitions: tuple[Partition, ...]) -> tuple[str, ...]:
    notes = [
        f"partition {partition.number} reaches beyond the end of the disk"
        for partition in partitions
        if not partition.is_inside
    ]
    ordered = sorted(partitions, key=lambda partition: (partition.start_bytes, partition.number))
    furthest: Partition | None = None
    for partition in ordered:
        if furthest is not None and partition.start_bytes < furthest.end_bytes:
            notes.append(f"partitions {furthest.number} and {partition.number} overlap")
        if furthest is None or partition.end_bytes > furthest.end_bytes:
            furthest = partition
    return tuple(notes)
