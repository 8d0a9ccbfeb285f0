# SPDX-License-Identifier: Apache-2.0
"""`Findings`: what was found in the parts of a disk, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.guest.model import GuestFact, GuestFacts, Kernel, OsRelease, UnknownFact
from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from coppice.conversion.guest.model import GuestPartition
    from coppice.conversion.guest.survey import Survey
    from coppice.formats.partition_layout import PartitionLayout


class Findings:
    """What was found so far.

    Attributes:
        boot_ways: Firmware that finds something to start.
        efi_architectures: Processors for which there is a program that UEFI firmware starts.
    """

    def __init__(self) -> None:
        self.boot_ways: set[Firmware] = set()
        self.efi_architectures: dict[str, None] = {}
        self._surveys: list[Survey] = []
        self._unknown: dict[UnknownFact, None] = {}
        self._hidden: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def unknown(self, fact: GuestFact, reason: str) -> None:
        """Remember that a fact could not be found out."""
        self._unknown[UnknownFact(fact=fact, reason=reason)] = None

    def hidden(self, reason: str) -> None:
        """Remember a part whose files could not be seen: what is found nowhere else may be there."""
        self._hidden[reason] = None

    def is_hidden(self, name: str) -> bool:
        """Return whether a part is among those already."""
        return any(reason.startswith(f"{name}: ") for reason in self._hidden)

    def note(self, text: str) -> None:
        """Remember what is odd."""
        self._notes[text] = None

    def add(self, name: str, found: Survey) -> None:
        """Add what was found in one file system.

        Args:
            name: Of the part in which it lies.
            found: What is there.
        """
        self._surveys.append(found)
        for note in found.notes:
            self.note(f"{name}: {note}")
        for unknown in found.unknown:
            self.unknown(unknown.fact, f"{name}: {unknown.reason}")

    def facts(self, layout: PartitionLayout, partitions: tuple[GuestPartition, ...]) -> GuestFacts:
        """Return all of it.

        Args:
            layout: The disk's partition table.
            partitions: Its parts.
        """
        for note in layout.notes:
            self.note(note)
        kernels = tuple(sorted((one for found in self._surveys for one in found.kernels), key=lambda one: one.path))
        if not kernels:
            self._perhaps_hidden(GuestFact.KERNELS)
        release = self._release()
        has_cloud_init = self._has_cloud_init(release)
        architecture = self._architecture(kernels)
        return GuestFacts(
            partition_table=layout.table,
            partitions=partitions,
            boot_ways=tuple(way for way in Firmware if way in self.boot_ways),
            kernels=kernels,
            architecture=architecture,
            operating_system=release,
            has_cloud_init=has_cloud_init,
            unknown=tuple(sorted(self._unknown, key=lambda one: list(GuestFact).index(one.fact))),
            notes=tuple(self._notes),
        )

    def _perhaps_hidden(self, fact: GuestFact) -> None:
        for reason in self._hidden:
            self.unknown(fact, reason)

    def _release(self) -> OsRelease | None:
        releases = list(dict.fromkeys(found.release for found in self._surveys if found.release is not None))
        if not releases:
            self._perhaps_hidden(GuestFact.OPERATING_SYSTEM)
            return None
        if len(releases) > 1:
            names = ", ".join(sorted(one.pretty_name or one.identifier or "one without a name" for one in releases))
            self.unknown(GuestFact.OPERATING_SYSTEM, f"there are several systems: {names}")
            return None
        return releases[0]

    def _has_cloud_init(self, release: OsRelease | None) -> bool | None:
        said = {found.has_cloud_init for found in self._surveys if found.has_cloud_init is not None}
        if True in said:
            return True
        if release is None and self._hidden:
            self._perhaps_hidden(GuestFact.CLOUD_INIT)
            return None
        return False if said or not self._is_unknown(GuestFact.CLOUD_INIT) else None

    def _architecture(self, kernels: tuple[Kernel, ...]) -> str | None:
        of_kernels = sorted({one.architecture for one in kernels if one.architecture is not None})
        of_programs = sorted({one.architecture for one in self._surveys if one.architecture is not None})
        of_firmware = sorted(self.efi_architectures)
        for found, words in ((of_kernels, "kernels"), (of_programs, "programs"), (of_firmware, "boot programs")):
            if len(found) > 1 and found is not of_firmware:
                self.unknown(GuestFact.ARCHITECTURE, f"there are {words} for {' and '.join(found)}")
                return None
            if len(found) == 1:
                self._compare(found[0], of_programs, "programs")
                self._compare(found[0], of_firmware, "boot programs for UEFI")
                return found[0]
        self._perhaps_hidden(GuestFact.ARCHITECTURE)
        return None

    def _compare(self, architecture: str, others: list[str], words: str) -> None:
        if others and architecture not in others:
            self.note(f"the {words} are for {' and '.join(others)}, and the system is for {architecture}")

    def _is_unknown(self, fact: GuestFact) -> bool:
        return any(unknown.fact is fact for unknown in self._unknown)
