# SPDX-License-Identifier: Apache-2.0
"""`PartitionLayout`: what a disk's partition table says, whichever kind of table it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.conversion.model import PartitionTable

SECTOR_BYTES = 512
BOOT_CODE_BYTES = 440
BOOT_SIGNATURE = b"\x55\xaa"
ESP_KINDS = frozenset({"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef"})
"""Kinds of an EFI system partition: of GPT, of an MBR."""
BIOS_BOOT_KIND = "21686148-6449-6e6f-744e-656564454649"
"""Kind of the partition that holds GRUB's second part on a GPT disk (``bios_grub``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A stretch of a disk, as its table has it.

    Attributes:
        number: As Linux counts: an MBR's logical partitions from 5 on, a GPT's by their place in the table.
        start_bytes: Where it begins.
        size_bytes: Its length.
        kind: What it is for: the type's UUID in lower case (GPT), or ``0x83`` (MBR).
        label: Its name in a GPT; may be empty.
        uuid: Of a GPT's partition; empty in an MBR.
        is_active: Marked to be started by a BIOS: an MBR's active flag, a GPT's legacy boot attribute.
        is_inside: Whether all of it is inside of the disk.
    """

    number: int
    start_bytes: int
    size_bytes: int
    kind: str
    label: str = ""
    uuid: str = ""
    is_active: bool = False
    is_inside: bool = True

    @property
    def end_bytes(self) -> int:
        """Return the first byte behind it."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLayout:
    """What a disk's first sectors say of its parts.

    Attributes:
        table: Which table there is; None: there is none.
        partitions: In the order of their numbers.
        sector_bytes: Length of a sector, by which the table counts.
        boot_code: The first bytes of the disk, where an MBR's boot code is; all zero or empty: none.
        problem: Why the table, or a part of it, could not be read; None: all of it was. A layout with a problem does
            not say that there are no other partitions.
        notes: What is odd, and does not keep the table from being read.
    """

    table: PartitionTable | None
    partitions: tuple[Partition, ...] = ()
    sector_bytes: int = SECTOR_BYTES
    boot_code: bytes = field(default=b"", repr=False)
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_boot_code(self) -> bool:
        """Return whether there is something for a BIOS to run."""
        return any(self.boot_code)
