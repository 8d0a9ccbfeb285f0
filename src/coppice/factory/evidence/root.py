# SPDX-License-Identifier: Apache-2.0
"""Find the root file system of a raw disk, and what reads it.

What is audited must be what a machine starts. So nothing is let pass that could be another system: every partition is
of a kind that is known, of one kind alone, and all but the root have no system's files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.partitions import find_partitions

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.evidence.partitions import Partition

_EXT = frozenset({"ext2", "ext3", "ext4"})
_WITHOUT_SYSTEM = frozenset({"", "swap", "vfat"})
_BOOT_FOLDERS = frozenset({"EFI", "efi", "grub", "grub2", "loader", "lost+found"})
"""What is at the top of a partition that a machine boots from, beside kernels."""


def open_root(raw: Path, work: Path, *, may_be_btrfs: bool = False) -> Ext4Disk | BtrfsDisk:
    """Return what reads the largest partition of ``raw`` with a file system that can be read.

    Args:
        raw: The disk.
        work: An empty directory for scripts.
        may_be_btrfs: Whether a root of btrfs is read: only where this factory made it, and no stranger did.

    Raises:
        BuildError: There is none, it is one of btrfs that is not read, or another partition could be the root as well.
    """
    partitions = find_partitions(raw)
    root = next((each for each in partitions if each.kind in _EXT or each.kind == "btrfs"), None)
    if root is None:
        kinds = "ext4 or btrfs" if may_be_btrfs else "ext4"
        raise BuildError(f"the image has no {kinds} partition: its files cannot be audited")
    if root.kind == "btrfs" and not may_be_btrfs:
        raise BuildError(
            f"the image's root, at byte {root.start_bytes} of its disk, is of btrfs: its files cannot be audited",
            details="Btrfs is read only of what the builder 'bootstrap' made with build.file-system = \"btrfs\".",
            resolution="Take an image with a root of ext4, or have the appliance made by the builder 'bootstrap'.",
        )
    for other in partitions:
        if other is not root:
            _check_other(raw, work, other)
    return BtrfsDisk(raw, root.start_bytes) if root.kind == "btrfs" else Ext4Disk(raw, root.start_bytes, work)


def _check_other(raw: Path, work: Path, other: Partition) -> None:
    """Refuse a partition beside the root from which a machine might start another system.

    Raises:
        BuildError: It has files that no partition to boot from has, or it cannot be looked into.
    """
    if other.kind in _WITHOUT_SYSTEM:
        return
    if other.kind not in _EXT:
        raise BuildError(
            f"the partition at byte {other.start_bytes} of the image's disk is of {other.kind}: "
            "its files cannot be audited",
            resolution="Take an image whose partitions beside the root are to boot from (ext4, FAT), or to swap.",
        )
    folders = Ext4Disk(raw, other.start_bytes, work).top_folders() - _BOOT_FOLDERS
    if folders:
        raise BuildError(
            f"the partition at byte {other.start_bytes} of the image's disk has "
            f"{', '.join(f'/{name}' for name in sorted(folders)[:5])}, and only the root is audited",
            resolution="Take an image whose files are all on one partition, but for those that it boots from.",
        )
