# SPDX-License-Identifier: Apache-2.0
"""Find the root file system of a raw disk, and what reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.evidence.btrfs import BtrfsDisk
from coppice.factory.evidence.btrfs_nodes import is_btrfs
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

_TOOL_SECONDS = 300.0
_SECTOR_BYTES = 512
_EXT_MAGIC_AT = 1080
_EXT_MAGIC = b"\x53\xef"
_XFS_MAGIC = b"XFSB"


def open_root(raw: Path, work: Path, *, may_be_btrfs: bool = False) -> Ext4Disk | BtrfsDisk:
    """Return what reads the largest partition of ``raw`` with a file system that can be read.

    Args:
        raw: The disk.
        work: An empty directory for scripts.
        may_be_btrfs: Whether a root of btrfs is read: only where this factory made it, and no stranger did.

    Raises:
        BuildError: There is none, or it is one of btrfs that is not read.
    """
    for start in _starts(raw):
        with storage_errors("reading", raw), raw.open("rb") as stream:
            stream.seek(start)
            is_xfs = stream.read(len(_XFS_MAGIC)) == _XFS_MAGIC
            stream.seek(start + _EXT_MAGIC_AT)
            is_ext = stream.read(len(_EXT_MAGIC)) == _EXT_MAGIC
            has_btrfs = is_btrfs(stream, start)
        looks_like = [name for name, is_it in (("ext4", is_ext), ("btrfs", has_btrfs), ("xfs", is_xfs)) if is_it]
        if len(looks_like) > 1:
            # What is read must be what a machine would mount.
            raise BuildError(
                f"the image's root, at byte {start} of its disk, looks like {' and like '.join(looks_like)}: "
                "its files cannot be audited",
                resolution="Make its file system anew where nothing of another one is left.",
            )
        if has_btrfs and not may_be_btrfs:
            raise BuildError(
                f"the image's root, at byte {start} of its disk, is of btrfs: its files cannot be audited",
                details="Btrfs is read only of what the builder 'bootstrap' made with build.file-system = \"btrfs\".",
                resolution="Take an image with a root of ext4, or have the appliance made by the builder 'bootstrap'.",
            )
        if has_btrfs:
            return BtrfsDisk(raw, start)
        if is_ext:
            return Ext4Disk(raw, start, work)
    kinds = "ext4 or btrfs" if may_be_btrfs else "ext4"
    raise BuildError(f"the image has no {kinds} partition: its files cannot be audited")


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
