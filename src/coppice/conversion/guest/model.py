# SPDX-License-Identifier: Apache-2.0
"""`GuestFacts`: what is in a disk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.conversion.model import FileSystem, PartitionTable
    from coppice.model.operating_system import Firmware


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPartition:
    """A part of a disk, and what lies in it.

    Attributes:
        number: As Linux counts; 0: the whole disk, which has no partition table.
        start_bytes: Where it begins.
        size_bytes: Its length.
        kind: What its table says it is for: a UUID (GPT), ``0x83`` (MBR); empty for a whole disk.
        label: Its name in the table; may be empty.
        uuid: Its identifier in the table; may be empty.
        is_active: Marked to be started by a BIOS.
        file_system: What lies in it; None: nothing that is known, or it could not be looked at (`GuestFacts.unknown`
            says so then).
    """

    number: int
    start_bytes: int
    size_bytes: int
    kind: str = ""
    label: str = ""
    uuid: str = ""
    is_active: bool = False
    file_system: FileSystem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A Linux kernel in an image.

    Attributes:
        path: In the guest, as its own file system has it: ``/boot/vmlinuz-6.1.0-18-amd64``.
        architecture: By the kernel's names; None: its first bytes do not say.
        version: What it calls itself; empty where it does not say.
    """

    path: str
    architecture: str | None
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OsRelease:
    """What a guest's ``os-release`` says; each may be empty.

    Attributes:
        identifier: ``ID``: ``debian``.
        version_id: ``VERSION_ID``: ``12``.
        name: ``NAME``.
        pretty_name: ``PRETTY_NAME``, for people.
        like: ``ID_LIKE``, the systems that it is made from.
    """

    identifier: str = ""
    version_id: str = ""
    name: str = ""
    pretty_name: str = ""
    like: tuple[str, ...] = ()


class GuestFact(StrEnum):
    """Facts that may stay unknown."""

    PARTITIONS = "partitions"
    FILE_SYSTEMS = "file-systems"
    BOOT_WAYS = "boot-ways"
    KERNELS = "kernels"
    ARCHITECTURE = "architecture"
    OPERATING_SYSTEM = "operating-system"
    CLOUD_INIT = "cloud-init"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFact:
    """A fact, or a part of it, that could not be found out.

    Attributes:
        fact: Which.
        reason: Why, for people: a clause without a full stop.
    """

    fact: GuestFact
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """What is in a disk, found out without starting it.

    What is None, or empty, is not there, unless `unknown` names it: then nobody knows.

    Attributes:
        partition_table: Which kind of table.
        partitions: In the order of their numbers; without a table the whole disk, where a file system is on it.
        boot_ways: The firmware that it can be started with.
        kernels: In the order of their paths.
        architecture: Of the processor that it is for, by the kernel's names.
        operating_system: Its ``os-release``.
        has_cloud_init: Whether cloud-init is installed.
        unknown: What could not be found out, and why.
        notes: What is odd.
    """

    partition_table: PartitionTable | None = None
    partitions: tuple[GuestPartition, ...] = ()
    boot_ways: tuple[Firmware, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    architecture: str | None = None
    operating_system: OsRelease | None = None
    has_cloud_init: bool | None = None
    unknown: tuple[UnknownFact, ...] = ()
    notes: tuple[str, ...] = ()

    def is_known(self, fact: GuestFact) -> bool:
        """Return whether the fact was found out in full."""
        return all(unknown.fact is not fact for unknown in self.unknown)
