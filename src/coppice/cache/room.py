# SPDX-License-Identifier: Apache-2.0
"""Room: whether what is to come fits on the disk and into the quota, asked before a byte is fetched.

Runs that fetch at the same time count what the others still have to write: each leaves a note of it, locked as long as
it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.locks import locked, try_lock
from coppice.errors import NoSpaceError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cache.objects import Layout
    from coppice.model.checksum import Checksum

RESERVE_BYTES = 16 * 1024 * 1024
"""What is left free on the file system beside an image."""
_ADMISSION_SECONDS = 60.0
_NOTE_BYTES = 4096
_BLOCK = 512


class Room:
    """The space of one cache.

    Args:
        layout: Where things are.
        quota_bytes: Most that the cache may hold; None: as much as fits.
        make_room: Removes what is needed least until so many bytes are free, as far as anything may be removed.
    """

    def __init__(self, layout: Layout, *, quota_bytes: int | None, make_room: Callable[[int], object]) -> None:
        self._layout = layout
        self._quota = quota_bytes
        self._make_room = make_room
        self._notes = layout.directory / "reservations"

    @contextmanager
    def reserved(self, wanted: Checksum, size_bytes: int, growing: Path, *, name: str) -> Iterator[None]:
        """Have room for ``size_bytes`` while the block runs.

        Args:
            wanted: What is fetched; the caller holds the lock on it.
            size_bytes: How many bytes it has.
            growing: Where it is gathered; what is there already is not counted twice.
            name: For messages.

        Raises:
            NoSpaceError: The disk has no room for it, even after what nothing needs was removed.
            QuotaError: The quota has none.
            StorageError: The disk failed.
        """
        note = self._note(wanted)
        with locked(self._notes / "admission", what="the cache's free space", wait_seconds=_ADMISSION_SECONDS):
            self._admit(max(0, size_bytes - _allocated(growing)), note, name)
            with atomic.storage_errors("reserving space in", note):
                handle = os.open(note, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                # Nobody looks at it before the admission is over.
                try_lock(handle)
                os.write(handle, json.dumps([size_bytes, growing.name]).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink()
            os.close(handle)

    def forget(self, wanted: Checksum) -> None:
        """Remove the note of a run that is dead; the caller holds the lock on what it fetched.

        Raises:
            StorageError: The disk failed.
        """
        note = self._note(wanted)
        with atomic.storage_errors("removing", note):
            note.unlink(missing_ok=True)

    def _note(self, wanted: Checksum) -> Path:
        return self._notes / f"{wanted.algorithm}-{wanted.hexdigest}"

    def used_bytes(self) -> int:
        """Return how many bytes the cache holds, whatever they are; each file counts once."""
        counted: dict[tuple[int, int], int] = {}
        layout = self._layout
        # What is handed out has the bytes of objects, which count already; what was taken back may have none any more.
        tops = (layout.objects, layout.partial, layout.quarantine, layout.expired, layout.directory / "blocks")
        for top in tops:
            for folder, _, names in os.walk(top):
                for name in names:
                    with contextlib.suppress(OSError):
                        state = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - many files
                        counted[state.st_dev, state.st_ino] = state.st_blocks * _BLOCK
        return sum(counted.values())

    def _admit(self, needed: int, own: Path, name: str) -> None:
        pending = self._pending(own)
        short = needed + pending + RESERVE_BYTES - self._free()
        # What would not fit into an empty cache removes nothing: its size is what a list says.
        if 0 < short <= self.used_bytes():
            self._make_room(short)
            short = needed + pending + RESERVE_BYTES - self._free()
        if short > 0:
            free = max(0, self._free() - pending)
            raise NoSpaceError(
                f"{name} needs {needed} bytes more; {self._layout.directory} has room for {free}",
                details=f"{pending} bytes are promised to other downloads" if pending else None,
                resolution="Free space there (`coppice cache prune` removes what nothing needs), then run again.",
                context={"path": str(self._layout.directory), "free_bytes": free, "needed_bytes": needed},
            )
        if self._quota is None:
            return
        over = self.used_bytes() + pending + needed - self._quota
        if over > 0 and pending + needed <= self._quota:
            self._make_room(over)
            over = self.used_bytes() + pending + needed - self._quota
        if over > 0:
            raise QuotaError(
                f"{name} needs {needed} bytes, which is {over} more than cache.quota_bytes ({self._quota}) leaves",
                details=f"{self.used_bytes()} bytes are held, all of which is needed; {pending} are promised",
                resolution="Raise cache.quota_bytes, or select fewer images.",
                context={"quota_bytes": self._quota, "needed_bytes": needed, "over_bytes": over},
            )

    def _free(self) -> int:
        with atomic.storage_errors("asking for the free space of", self._layout.directory):
            figures = os.statvfs(self._notes)
        return figures.f_bavail * figures.f_frsize

    def _pending(self, own: Path) -> int:
        """Return how many bytes others that are at work have still to write."""
        pending = 0
        for note in self._notes.glob("sha*-*"):
            if note == own:
                continue
            with contextlib.suppress(OSError, ValueError, TypeError):
                handle = os.open(note, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if try_lock(handle):
                        # Whoever wrote it is dead.
                        note.unlink()
                        continue
                    size, growing = json.loads(os.pread(handle, _NOTE_BYTES, 0))
                    pending += max(0, int(size) - _allocated(self._layout.partial / str(growing)))
                finally:
                    os.close(handle)
        return pending


def _allocated(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _BLOCK
    except OSError:
        return 0
