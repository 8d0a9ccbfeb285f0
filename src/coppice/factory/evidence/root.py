# SPDX-License-Identifier: Apache-2.0
"""Find the root file system of a raw disk, and what reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.btrfs_nodes import is_btrfs
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_TOOL_SECONDS = 300.0
_SECTOR_BYTES = 512
_MAGIC = (
    ("ext4", 1080, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 536, b"LVM2 001"),
)
# Where a system boots from, and what it keeps beside, has none of these at its top.
_OF_A_SYSTEM = frozenset({"bin", "etc", "init", "sbin", "usr"})


def open_root(raw: Path, work: Path, *, may_be_btrfs: bool = False) -> Ext4Disk | BtrfsDisk:
    """Return what reads the largest partition of ``raw`` with a file system that can be read.

    Args:
        raw: The disk.
        work: An empty directory for scripts.
        may_be_btrfs: Whether a root of btrfs is read: only where this factory made it, and no stranger did.

    Raises:
        BuildError: There is none, it is one of btrfs that is not read, or another partition could be the root as well.
    """
    places = [_look(raw, start) for start in _starts(raw)]
    for place in places:
        if len(place.looks_like) > 1:
            # What is read must be what a machine would mount.
            raise BuildError(
                f"the image's root, at byte {place.start} of its disk, looks like "
                f"{' and like '.join(place.looks_like)}: its files cannot be audited",
                resolution="Make its file system anew where nothing of another one is left.",
            )
        if place.looks_like == ("btrfs",) and not may_be_btrfs:
            raise BuildError(
                f"the image's root, at byte {place.start} of its disk, is of btrfs: its files cannot be audited",
                details="Btrfs is read only of what the builder 'bootstrap' made with build.file-system = \"btrfs\".",
                resolution="Take an image with a root of ext4, or have the appliance made by the builder 'bootstrap'.",
            )
        if place.looks_like in {("btrfs",), ("ext4",)}:
            _check_others(raw, work, [other for other in places if other is not place])
            is_btrfs_root = place.looks_like == ("btrfs",)
            return BtrfsDisk(raw, place.start) if is_btrfs_root else Ext4Disk(raw, place.start, work)
    kinds = "ext4 or btrfs" if may_be_btrfs else "ext4"
    raise BuildError(f"the image has no {kinds} partition: its files cannot be audited")


@dataclass(frozen=True, slots=True)
class _Place:
    """A partition.

    Attributes:
        start: Where it begins.
        looks_like: The kinds of what it holds that could have a system's files.
    """

    start: int
    looks_like: tuple[str, ...]


def _look(raw: Path, start: int) -> _Place:
    with storage_errors("reading", raw), raw.open("rb") as stream:
        found = [kind for kind, at, magic in _MAGIC if _has(stream, start + at, magic)]
        if is_btrfs(stream, start):
            found.append("btrfs")
    return _Place(start, tuple(sorted(found)))


def _has(stream: BinaryIO, at: int, magic: bytes) -> bool:
    stream.seek(at)
    return stream.read(len(magic)) == magic


def _check_others(raw: Path, work: Path, others: list[_Place]) -> None:
    """Refuse a disk of which a machine might start from another partition than the one that is looked into.

    Raises:
        BuildError: There is another one that has a system, or that cannot be looked into.
    """
    for place in others:
        if place.looks_like and place.looks_like != ("ext4",):
            raise BuildError(
                f"the partition at byte {place.start} of the image's disk is of {' and '.join(place.looks_like)}: "
                "a system in it could not be audited",
                resolution="Take an image whose other partitions are of ext4 or FAT.",
            )
        if place.looks_like and Ext4Disk(raw, place.start, work).names() & _OF_A_SYSTEM:
            raise BuildError(
                f"the image has a second system, at byte {place.start} of its disk: which one a machine starts is not "
                "known to the audit",
                resolution="Take an image with one system.",
            )


def _starts(raw: Path) -> list[int]:
    """Return where the partitions of ``raw`` start, that of the largest first."""
    try:
        said = run(["sfdisk", "--json", raw], timeout_seconds=_TOOL_SECONDS).text()
        table = json.loads(said)["partitiontable"]
        sector_bytes = int(table.get("sectorsize", _SECTOR_BYTES))
        extents = [(int(row["size"]), int(row["start"]) * sector_bytes) for row in table["partitions"]]
    except (ToolFailedError, ValueError, KeyError) as problem:
        raise BuildError("the image has no partition table that could be read", details=str(problem)) from problem
    return [start for _, start in sorted(extents, reverse=True)]
