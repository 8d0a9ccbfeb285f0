# SPDX-License-Identifier: Apache-2.0
"""`guest_facts`: find out what is in a disk, without starting it and without mounting it.

Partition tables and the first bytes of file systems are read here; files in file systems by programs that know these,
shut in the cage: debugfs, xfs_db, ``btrfs restore`` and mtools. What cannot be found out is told as such.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.conversion.guest.boot import efi_architectures, is_efi_partition, starts_with_bios
from coppice.conversion.guest.btrfs import BtrfsTree
from coppice.conversion.guest.caged import Reader
from coppice.conversion.guest.disk_bytes import DiskBytes
from coppice.conversion.guest.ext import ExtTree
from coppice.conversion.guest.fat import FatTree
from coppice.conversion.guest.findings import Findings
from coppice.conversion.guest.model import GuestFact, GuestFacts, GuestPartition
from coppice.conversion.guest.survey import WANTED, survey
from coppice.conversion.guest.unknown import NotFoundOutError
from coppice.conversion.guest.workplace import workplace_below
from coppice.conversion.guest.xfs import XfsTree
from coppice.conversion.model import FileSystem, FileSystemKind
from coppice.formats.el_torito import boot_ways_of_disc
from coppice.formats.file_systems import LOOKED_AT_BYTES, file_systems_of
from coppice.formats.partition_layout import BIOS_BOOT_KIND, Partition, PartitionLayout
from coppice.formats.partitions import read_partitions
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from coppice.conversion.guest.tree import Tree
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.unpack import OpenedDisk
    from coppice.monitor import Monitor

MOST_PARTITIONS = 64
"""As many are looked into."""
_EXT = frozenset({FileSystemKind.EXT2, FileSystemKind.EXT3, FileSystemKind.EXT4})
_WITHOUT_FILES = frozenset({FileSystemKind.SWAP})
_DISC = "the disc's system lies in files of its own, which are not looked into"
_OF_FILES = (GuestFact.KERNELS, GuestFact.ARCHITECTURE, GuestFact.OPERATING_SYSTEM, GuestFact.CLOUD_INIT)


def guest_facts(
    disk: OpenedDisk,
    limits: ConversionLimits,
    *,
    workplace: Path,
    monitor: Monitor = SILENT,
    require_cage: bool = False,
) -> GuestFacts:
    """Return what is in a disk.

    A program that fails, or that this machine lacks, leaves facts unknown, with the reason; it is no error.

    Args:
        disk: The disk, of which all is known that there is to refuse.
        limits: Bounds on each program.
        workplace: A directory for what has to be brought; made when needed.
        monitor: Where progress is told.
        require_cage: Whether no program runs that cannot be shut in fully.

    Raises:
        StorageError: The workplace cannot be used.
        InterruptedRunError: The run was ended.
    """
    with workplace_below(workplace) as place:
        look = _Look(disk, Reader(limits, require_cage=require_cage), place)
        try:
            layout = read_partitions(look.bytes.read, look.bytes.size_bytes)
        except NotFoundOutError as problem:
            for fact in GuestFact:
                look.findings.unknown(fact, str(problem))
            return look.findings.facts(PartitionLayout(table=None), ())
        return look.at(layout, monitor)


class _Look:
    """One look at one disk."""

    def __init__(self, disk: OpenedDisk, reader: Reader, place: Path) -> None:
        self.bytes = DiskBytes(disk, reader, place)
        self.findings = Findings()
        self._reader = reader
        self._place = place

    def at(self, layout: PartitionLayout, monitor: Monitor) -> GuestFacts:
        if layout.problem is not None:
            self.findings.unknown(GuestFact.PARTITIONS, layout.problem)
            self.findings.unknown(GuestFact.BOOT_WAYS, layout.problem)
            self.findings.hidden(layout.problem)
        whole = Partition(number=0, start_bytes=0, size_bytes=self.bytes.size_bytes, kind="")
        disc = self._iso(whole)
        if disc is not None:
            return self._disc(layout, whole, disc)
        parts = layout.partitions if layout.table is not None else (whole,)
        with monitor.task("Looking into the disk", total=len(parts), unit=Unit.STEPS) as task:
            looked_at = []
            for part in parts:
                task.note(_name(part))
                looked_at.append(self._partition(part, self._file_system(part)))
                task.advance(1)
        if layout.table is None:
            looked_at = [part for part in looked_at if part.file_system is not None]
        self._boot_sector(layout)
        return self.findings.facts(layout, tuple(looked_at))

    def _disc(self, layout: PartitionLayout, whole: Partition, disc: FileSystem) -> GuestFacts:
        try:
            ways = boot_ways_of_disc(self.bytes.read)
        except NotFoundOutError as problem:
            self.findings.unknown(GuestFact.BOOT_WAYS, str(problem))
        else:
            if ways is None:
                self.findings.unknown(GuestFact.BOOT_WAYS, "the disc's boot catalogue is damaged")
            self.findings.boot_ways.update(ways or ())
        for fact in _OF_FILES:
            self.findings.unknown(fact, _DISC)
        return self.findings.facts(layout, (_shown(whole, disc),))

    def _boot_sector(self, layout: PartitionLayout) -> None:
        try:
            if starts_with_bios(layout, self.bytes.read):
                self.findings.boot_ways.add(Firmware.BIOS)
        except NotFoundOutError as problem:
            self.findings.unknown(GuestFact.BOOT_WAYS, str(problem))

    def _file_system(self, part: Partition) -> FileSystem | None:
        """Return what lies in a part; None: nothing that is known, or it cannot be told."""
        if not part.is_inside or part.number > MOST_PARTITIONS:
            why = "it was not looked into" if part.is_inside else "it reaches beyond the end of the disk"
            self._cannot(part, why)
            return None

        try:
            found = self._systems(part)
        except NotFoundOutError as problem:
            self._cannot(part, str(problem))
            return None
        if len(found) > 1:
            self._cannot(part, f"it looks like {' and '.join(one.kind for one in found)}")
            return None
        return found[0] if found else None

    def _iso(self, whole: Partition) -> FileSystem | None:
        try:
            found = self._systems(whole)
        except NotFoundOutError:
            return None
        return next((one for one in found if one.kind is FileSystemKind.ISO9660), None)

    def _systems(self, part: Partition) -> tuple[FileSystem, ...]:
        def read(start: int, length: int) -> bytes:
            return self.bytes.read(part.start_bytes + start, min(length, max(0, part.size_bytes - start)))

        return file_systems_of(read)

    def _cannot(self, part: Partition, why: str) -> None:
        reason = f"{_name(part)}: {why}"
        self.findings.unknown(GuestFact.FILE_SYSTEMS, reason)
        self.findings.hidden(reason)
        if is_efi_partition(part.kind):
            self.findings.unknown(GuestFact.BOOT_WAYS, reason)

    def _partition(self, part: Partition, system: FileSystem | None) -> GuestPartition:
        shown = _shown(part, system)
        if system is None:
            if not self.findings.is_hidden(_name(part)) and self._may_hold_files(part):
                self.findings.hidden(f"{_name(part)} has no file system that is known")
            return shown
        if system.kind in _WITHOUT_FILES:
            return shown
        try:
            self._files(part, system.kind)
        except NotFoundOutError as problem:
            reason = f"{_name(part)}: {problem}"
            self.findings.hidden(reason)
            if system.kind is FileSystemKind.FAT and _may_start(part):
                self.findings.unknown(GuestFact.BOOT_WAYS, reason)
        return shown

    def _may_hold_files(self, part: Partition) -> bool:
        """Tell whether there may be files in what is of no known file system: an empty disk has none."""
        if part.number:
            return part.kind != BIOS_BOOT_KIND
        return any(self.bytes.read(part.start_bytes, min(part.size_bytes, LOOKED_AT_BYTES)))

    def _files(self, part: Partition, kind: FileSystemKind) -> None:
        start, size = part.start_bytes, part.size_bytes
        with tempfile.TemporaryDirectory(prefix="tree-", dir=self._place) as directory:
            place = Path(directory)
            if kind in _EXT:
                with self.bytes.in_place(start, size) as stretch:
                    self._survey(part, ExtTree(stretch, self._reader, place))
            elif kind is FileSystemKind.FAT:
                with self.bytes.in_place(start, size) as stretch:
                    self._firmware(part, FatTree(stretch, self._reader, place))
            elif kind is FileSystemKind.XFS:
                with self.bytes.as_file(start, size) as path:
                    self._survey(part, XfsTree(path, self._reader))
            elif kind is FileSystemKind.BTRFS:
                with self.bytes.as_file(start, size) as path:
                    self._survey(part, BtrfsTree(path, self._reader, place, WANTED))
            else:
                raise NotFoundOutError(f"{kind} is not looked into")

    def _firmware(self, part: Partition, tree: Tree) -> None:
        architectures = efi_architectures(tree)
        if architectures and _may_start(part):
            self.findings.boot_ways.add(Firmware.UEFI)
            self.findings.efi_architectures.update(dict.fromkeys(architectures))
        elif architectures:
            self.findings.note(f"{_name(part)} has programs for UEFI firmware, and is no EFI system partition")
        self._survey(part, tree)

    def _survey(self, part: Partition, tree: Tree) -> None:
        self.findings.add(_name(part), survey(tree))


def _may_start(part: Partition) -> bool:
    return part.number == 0 or is_efi_partition(part.kind)


def _name(part: Partition) -> str:
    return f"partition {part.number}" if part.number else "the disk"


def _shown(part: Partition, system: FileSystem | None) -> GuestPartition:
    return GuestPartition(
        number=part.number,
        start_bytes=part.start_bytes,
        size_bytes=part.size_bytes,
        kind=part.kind,
        label=part.label,
        uuid=part.uuid,
        is_active=part.is_active,
        file_system=system,
    )
