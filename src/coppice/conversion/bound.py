# SPDX-License-Identifier: Apache-2.0
"""What of the converted files may go, and when: the bound on their size, seeds of deltas, and what killed runs left.

Whatever is removed can be made again. What somebody uses or makes at the moment stays, whatever the bound says.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.files import try_locked
from coppice.conversion.keep import all_kept, lease_of, lock_of, read_made, record_of
from coppice.conversion.unpack_spool import sweep_spool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta
    from pathlib import Path

    from coppice.conversion.keep import Kept, Leases
    from coppice.model.checksum import Checksum

_NAME = re.compile(r"[0-9a-f]{40}-[0-9a-f]{24}\.(?:raw|qcow2|vmdk|vdi|vhdx|vhd|iso|ova)")
"""What `coppice.conversion.keep.place_of` calls converted files."""
GUEST_FILES_KEPT = 8
"""Raw files that were made only so that deltas can start from them; the ones used last stay."""


def make_room(directory: Path, wanted_bytes: int, leases: Leases) -> tuple[Path, ...]:
    """Remove what was used least recently until so many bytes are free that were not, or nothing is left to remove.

    Args:
        directory: The converter's.
        wanted_bytes: How many.
        leases: What is used.

    Raises:
        StorageError: One cannot be removed.
    """
    return tuple(_removed(_freeable(directory), wanted_bytes, leases))


def keep_within(directory: Path, quota_bytes: int | None, leases: Leases) -> tuple[Path, ...]:
    """Remove what was used least recently until the rest is within the bound; return what was removed.

    Args:
        directory: The converter's.
        quota_bytes: Most that converted files may take on the disk, but for those that are used, or that a cloud on the
            same file system has as well; None: no bound.
        leases: What is used.

    Raises:
        StorageError: One cannot be removed.
    """
    if quota_bytes is None:
        return ()
    kept = _freeable(directory)
    return tuple(_removed(kept, sum(each.held_bytes for each in kept) - quota_bytes, leases))


def prune_guest_bytes(directory: Path, leases: Leases, *, keep: int = GUEST_FILES_KEPT) -> tuple[Path, ...]:
    """Remove raw files that serve deltas alone, but for those used last; return what was removed.

    Args:
        directory: The converter's.
        leases: What is used.
        keep: How many stay.

    Raises:
        StorageError: One cannot be removed.
    """
    seeds = [each for each in _oldest_first(directory) if each.made.is_seed]
    return tuple(each.path for each in seeds[: max(0, len(seeds) - keep)] if _remove(each.path, leases))


def prune_results(
    directory: Path, leases: Leases, *, needed: Collection[Checksum], keep: timedelta
) -> tuple[Path, ...]:
    """Remove what was made of sources that nothing needs and was not used for some days; return what was removed.

    Args:
        directory: The converter's.
        leases: What is used.
        needed: Checksums of sources whose results stay, however long they were not used.
        keep: How long the others stay.

    Raises:
        StorageError: One cannot be removed.
    """
    before = time.time_ns() - int(keep.total_seconds() * 1_000_000_000)
    due = (
        each
        for each in _oldest_first(directory)
        if not each.made.is_seed and each.made.source not in needed and each.used_ns <= before
    )
    return tuple(each.path for each in due if _remove(each.path, leases))


def sweep_leftovers(directory: Path, leases: Leases) -> tuple[Path, ...]:
    """Remove what killed runs left: halves, unpacked files, files without a record and records without a file.

    Locks of what is not there any more go as well, and are not told of.

    Args:
        directory: The converter's.
        leases: What is used.

    Raises:
        StorageError: Something cannot be removed.
    """
    removed = list(sweep_spool(directory / "spool"))
    objects = directory / "objects"
    names = {path.name for path in objects.iterdir()} if objects.is_dir() else set()
    for name in sorted(names):
        path = objects / _of(name)
        is_half = name.startswith(atomic.PARTIAL_PREFIX)
        if not is_half and path.name in names and read_made(path) is not None:
            continue
        with try_locked(lock_of(path)) as held:
            # Whoever makes it, half and record, holds the lock; who has it still was told of it when it was whole.
            if held and not leases.is_used(lease_of(path)) and (is_half or not _is_whole(path)):
                with atomic.storage_errors("removing", objects / name):
                    (objects / name).unlink(missing_ok=True)
                removed.append(objects / name)
    for lock in sorted((directory / "locks").glob("*")):
        with try_locked(lock) as held:
            if held and not (objects / lock.name).exists():
                with atomic.storage_errors("removing", lock):
                    lock.unlink(missing_ok=True)
    return tuple(removed)


def remove_halves(path: Path) -> None:
    """Remove what a killed run left of a converted file; the caller holds its lock.

    Raises:
        StorageError: Something cannot be removed.
    """
    with atomic.storage_errors("looking for what a killed run left beside", path):
        for half in path.parent.glob(f"{atomic.PARTIAL_PREFIX}*{atomic.PARTIAL_SUFFIX}"):
            if _of(half.name) == path.name:
                half.unlink(missing_ok=True)


def _of(name: str) -> str:
    """Return the name of the converted file that a file belongs to: a record, a half, or what becomes a half."""
    found = _NAME.search(name)
    return name if found is None else found[0]


def _is_whole(path: Path) -> bool:
    return read_made(path) is not None and path.is_file()


def _oldest_first(directory: Path) -> list[Kept]:
    return sorted(all_kept(directory), key=lambda each: (each.used_ns, each.path.name))


def _freeable(directory: Path) -> list[Kept]:
    """Return what would free room: what a cloud on the same file system has as well takes none of its own."""
    return [each for each in _oldest_first(directory) if not each.is_linked]


def _removed(kept: list[Kept], wanted_bytes: int, leases: Leases) -> Iterator[Path]:
    for each in kept:
        if wanted_bytes <= 0:
            return
        if _remove(each.path, leases):
            wanted_bytes -= each.held_bytes
            yield each.path


def _remove(path: Path, leases: Leases) -> bool:
    """Remove a converted file where nobody makes or uses it; tell whether it is gone."""
    with try_locked(lock_of(path)) as held:
        if not held or leases.is_used(lease_of(path)):
            return False
        with atomic.storage_errors("removing", path):
            path.unlink(missing_ok=True)
            record_of(path).unlink(missing_ok=True)
    return True
