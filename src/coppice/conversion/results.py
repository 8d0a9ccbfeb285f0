# SPDX-License-Identifier: Apache-2.0
"""`Results`: the converted files of a site, as one process uses them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.conversion.bound import keep_within, make_room
from coppice.conversion.files import hash_file, state_of
from coppice.conversion.keep import all_kept, lease_of, mark_used, read_made, size_of, write_made
from coppice.errors import ImageRefusedError
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.conversion.keep import Kept, Leases, Made
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor


class Results:
    """Finds, records and bounds what was made.

    Args:
        directory: The converter's.
        leases: What is used; what is found or made here is, for as long as they hold.
        quota_bytes: Most that converted files may take; None: no bound.
    """

    def __init__(self, directory: Path, leases: Leases, quota_bytes: int | None) -> None:
        self.directory = directory
        self._leases = leases
        self._quota = quota_bytes
        self._verified: dict[Path, tuple[int, ...]] = {}

    def find(self, path: Path, monitor: Monitor, *, is_seed: bool = False, is_start: bool = False) -> Made | None:
        """Return the record of an earlier result that is still what it was, and use it; the caller holds its lock.

        Args:
            path: Of the file.
            monitor: Where progress is told.
            is_seed: It is to serve deltas alone. Its bytes are not read then: whoever uses them verifies what comes of
                it.
            is_start: Something else is to be made of it: that makes it nothing that a cloud needs.

        Raises:
            StorageError: It cannot be leased.
        """
        made = read_made(path)
        if made is None or made.image.size_bytes != size_of(path):
            return None
        if not is_seed and not self._is_verified(path, made, monitor):
            return None
        if made.is_seed and not is_seed and not is_start:
            # A cloud needs it from now on.
            made = replace(made, is_seed=False)
            write_made(path, made)
        self._leases.take(lease_of(path))
        mark_used(path)
        return made

    def record(self, path: Path, made: Made) -> None:
        """Record a file that was made just now, and use it; the caller holds its lock.

        Raises:
            StorageError: It cannot be written.
        """
        self._leases.take(lease_of(path))
        self._verified[path] = state_of(path)
        write_made(path, made)

    def of_source(self, source: Checksum) -> Iterator[Kept]:
        """Yield what is kept of a source; nothing of it is read or used yet."""
        yield from all_kept(self.directory, source)

    def keep_within(self) -> None:
        """Remove what was used least recently, as far as the bound demands.

        Raises:
            StorageError: One cannot be removed.
        """
        keep_within(self.directory, self._quota, self._leases)

    def make_room(self, wanted_bytes: int) -> bool:
        """Remove what was used least recently; tell whether anything was removed.

        Raises:
            StorageError: One cannot be removed.
        """
        return bool(make_room(self.directory, wanted_bytes, self._leases))

    def _is_verified(self, path: Path, made: Made, monitor: Monitor) -> bool:
        if self._verified.get(path) == state_of(path):
            return True
        total = made.image.size_bytes
        try:
            with monitor.task("verifying the converted image", total=total, unit=Unit.BYTES) as task:
                found, state = hash_file(path, made.image.checksum.algorithm, task.advance)
        except (OSError, ImageRefusedError):
            # Not there, or not what was made: it is made again.
            return False
        if not found.matches(made.image.checksum):
            return False
        self._verified[path] = state
        return True
