# SPDX-License-Identifier: Apache-2.0
"""What a disk says of how it is started; pure but for the looks that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.guest.tree import NodeKind, find
from coppice.formats.partition_layout import BIOS_BOOT_KIND, BOOT_SIGNATURE, ESP_KINDS, SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.conversion.guest.tree import Tree
    from coppice.formats.partition_layout import PartitionLayout

_LOADERS = (b"GRUB", b"LILO", b"SYSLINUX", b"EXTLINUX", b"ISOLINUX", b"isolinux", b"extlinux")
"""What loaders of their own leave in the boot code; code that merely starts the active partition says nothing."""
_EFI_PROGRAMS: Mapping[str, str] = {
    "bootx64.efi": "x86_64",
    "bootaa64.efi": "aarch64",
    "bootia32.efi": "i686",
    "bootarm.efi": "armv7l",
    "bootriscv64.efi": "riscv64",
}
"""What firmware starts from a disk that it does not know, by processor: UEFI 2.10, section 3.5.1.1."""


def starts_with_bios(layout: PartitionLayout, read: Callable[[int, int], bytes]) -> bool:
    """Return whether a BIOS finds something on a disk that it can start.

    That is boot code that is a loader's own; or any boot code with a place where it goes on: GRUB's own partition on a
    GPT disk, or a partition that is marked as active and has a boot sector.

    Args:
        layout: The disk's partition table.
        read: Gives the disk's bytes.
    """
    sector = read(0, SECTOR_BYTES)
    if not layout.has_boot_code or sector[510:512] != BOOT_SIGNATURE:
        return False
    if any(loader in sector for loader in _LOADERS):
        return True
    if any(partition.kind == BIOS_BOOT_KIND for partition in layout.partitions):
        return True
    return any(
        partition.is_active and read(partition.start_bytes + 510, 2) == BOOT_SIGNATURE
        for partition in layout.partitions
        if partition.is_inside
    )


def is_efi_partition(kind: str) -> bool:
    """Return whether a partition of that kind is where UEFI firmware looks."""
    return kind in ESP_KINDS


def efi_architectures(tree: Tree) -> tuple[str, ...]:
    """Return the processors for which a FAT file system has a program that firmware starts; in order.

    Raises:
        NotFoundOutError: It cannot be read.
    """
    folder = find(tree, "efi/boot")
    if folder is None or folder.kind is not NodeKind.DIRECTORY:
        return ()
    names = tree.children(folder)
    return tuple(
        architecture
        for name, architecture in _EFI_PROGRAMS.items()
        if name in names and names[name].kind is NodeKind.FILE
    )
