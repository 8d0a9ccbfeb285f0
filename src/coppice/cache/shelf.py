# SPDX-License-Identifier: Apache-2.0
"""`Shelf`: the objects of a cache, each changed by one run at a time: put there, read again, moved aside, removed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.locks import Leases, locked
from coppice.cache.objects import ALGORITHM, CacheEntry, Layout, fingerprint, hash_file, is_same_content
from coppice.cache.partial import progress_path
from coppice.errors import ImageRefusedError, LockedError, StorageError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_PARTIAL = re.compile(r"(?:guest-)?(sha256|sha384|sha512)-([0-9a-f]{64,128})" + re.escape(atomic.PARTIAL_SUFFIX))
_SAY_NOTHING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT}
)
"""Errors of reading that are about the machine, not about the file."""


class Shelf:
    """What `ImageCache` keeps its objects with; threads may share it.

    Args:
        directory: The cache's.
    """

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.leases = Leases(self.layout.locks / "leases")
        self._verified: dict[Checksum, tuple[int, ...]] = {}

    def locked(
        self, checksum: Checksum, *, wait_seconds: float, on_wait: Callable[[], None] | None = None
    ) -> AbstractContextManager[int]:
        """Hold the lock on a digest: of an object, or of what a list names.

        Raises:
            LockedError: Another run held it for longer than ``wait_seconds``.
        """
        what = f"the image {checksum.hexdigest[:16]}…"
        return locked(self._lock_path(checksum), what=what, wait_seconds=wait_seconds, on_wait=on_wait)

    def state_of(self, checksum: Checksum) -> tuple[int, ...]:
        """Return the state of an object's file when this process verified its bytes; empty: it did not."""
        return self._verified.get(checksum, ())

    def is_verified(self, checksum: Checksum) -> bool:
        """Tell whether this process verified the bytes of an object, and the file is in the same state still."""
        known = self._verified.get(checksum)
        with contextlib.suppress(OSError):
            return known is not None and known == fingerprint(self.layout.path(checksum).lstat())
        return False

    def rehash(
        self, checksum: Checksum, also: Iterable[Checksum] = (), on_piece: Callable[[int], object] = lambda _: None
    ) -> tuple[int, ...] | None:
        """Return the state of an object whose bytes have every checksum; move it aside otherwise.

        The caller holds the lock on it.

        Raises:
            StorageError: It cannot be moved; or this machine is short of what it takes to read a file, which says
                nothing about the object.
        """
        path = self.layout.path(checksum)
        expected = {each.algorithm: each for each in (*also, checksum)}
        try:
            found, state = hash_file(path, expected, on_piece)
        except ImageRefusedError:
            found = {}
        except OSError as problem:
            if problem.errno in _SAY_NOTHING:
                raise StorageError(
                    f"{path} cannot be read: {problem.strerror}",
                    resolution="It was left where it is. See that this user may read it, and that its disk is there; "
                    "with too many open files or too little memory, run again with fewer runs at a time.",
                    context={"path": str(path)},
                ) from problem
            found = {}
        if found and all(found[algorithm].matches(each) for algorithm, each in expected.items()):
            self._verified[checksum] = state
            return state
        self._verified.pop(checksum, None)
        self._move_aside(checksum)
        return None

    def check(self, checksum: Checksum, on_piece: Callable[[int], object] = lambda _: None) -> bool:
        """Read an object again; False: its bytes are not what its name says, and it was moved aside.

        Raises:
            LockedError: A run works on it.
            StorageError: It cannot be moved.
        """
        with self.locked(checksum, wait_seconds=1.0):
            if not os.path.lexists(self.layout.path(checksum)):
                return True
            entry = self.layout.entry(checksum)
            state = self.rehash(checksum, () if entry is None else entry.also, on_piece)
            if entry is not None and state is not None and state != entry.fingerprint:
                self.layout.write_record(replace(entry, fingerprint=state))
            return state is not None

    def put(self, arrived: Path, entry: CacheEntry) -> CacheEntry:
        """Rename verified bytes to the place of their sha512; the caller holds the lock on it.

        The record comes first, so that at no moment a file lies there that is nobody's.

        Raises:
            StorageError: The disk failed.
        """
        with atomic.storage_errors("writing", entry.path):
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in entry.path.parent.glob(f"{atomic.PARTIAL_PREFIX}{entry.path.name[:80]}-*"):
                # The lock is held, so whoever made it is dead.
                leftover.unlink(missing_ok=True)
            self.layout.write_record(replace(entry, fingerprint=()))
            arrived.chmod(0o444)
            atomic.fsync_file(arrived)
            arrived.rename(entry.path)
            atomic.fsync_directory(entry.path.parent)
            progress_path(arrived).unlink(missing_ok=True)
            state = fingerprint(entry.path.lstat())
        self.leases.take(entry.checksum)
        self._verified[entry.checksum] = state
        entry = replace(entry, fingerprint=state)
        self.layout.write_record(entry)
        return entry

    def linked(self, checksum: Checksum, before: tuple[int, ...]) -> None:
        """Take over the state of an object that was merely linked or renamed since ``before``.

        The caller holds the lock on it.

        Raises:
            StorageError: The record cannot be written.
        """
        entry = self.layout.entry(checksum)
        if entry is None:
            return
        with atomic.storage_errors("looking at", entry.path):
            state = fingerprint(entry.path.lstat())
        if not is_same_content(before, state) or state == before:
            return
        if entry.fingerprint == before:
            self.layout.write_record(replace(entry, fingerprint=state))
        if self._verified.get(checksum) == before:
            self._verified[checksum] = state

    def drop(self, checksum: Checksum) -> CacheEntry | None:
        """Remove an object that this cache made and no run uses; None: it stays.

        Raises:
            StorageError: It cannot be removed.
        """
        with contextlib.suppress(LockedError), self.locked(checksum, wait_seconds=0):
            entry = self.layout.entry(checksum)
            if entry is None or self.leases.is_used(checksum):
                return None
            with atomic.storage_errors("removing", entry.path):
                # The record goes last: a run that dies between leaves no file that nobody owns.
                entry.path.unlink(missing_ok=True)
                self.layout.record(checksum).unlink(missing_ok=True)
                self._lock_path(checksum).unlink(missing_ok=True)
            self._verified.pop(checksum, None)
            return entry
        return None

    def idle_partials(self, *, keep: Collection[Checksum] = (), older_than_seconds: float = 0) -> Iterator[Path]:
        """Remove what is half-fetched and no run works on, oldest first; yield each as it goes.

        Args:
            keep: Digests of what is wanted still.
            older_than_seconds: Younger ones stay.
        """
        found: list[tuple[float, Path, Checksum]] = []
        for path in self.layout.partial.glob(f"*{atomic.PARTIAL_SUFFIX}"):
            named = _PARTIAL.fullmatch(path.name)
            with contextlib.suppress(OSError, ValueError):
                if named is not None:
                    found.append((path.lstat().st_mtime, path, Checksum(named[1], named[2])))
        for changed, path, wanted in sorted(found, key=lambda each: each[0]):
            if wanted in keep or time.time() - changed < older_than_seconds:
                continue
            with contextlib.suppress(LockedError), self.locked(wanted, wait_seconds=0):
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)
                    progress_path(path).unlink(missing_ok=True)
                yield path

    def old_quarantine(self, *, older_than_seconds: float) -> tuple[Path, ...]:
        """Remove what was moved aside so long ago and was this cache's; return it."""
        removed = []
        for record in sorted(self.layout.quarantine.glob("*.json")):
            path = record.with_suffix("")
            with atomic.storage_errors("removing", path):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.lstat().st_ctime < older_than_seconds:
                        continue
                    path.unlink()
                    removed.append(path)
                # Also where a run that was killed here, or a person, removed the file alone.
                record.unlink(missing_ok=True)
        return tuple(removed)

    def _move_aside(self, checksum: Checksum) -> None:
        path, record = self.layout.path(checksum), self.layout.record(checksum)
        aside = self.layout.quarantine / f"{path.name}-{secrets.token_hex(4)}"
        with atomic.storage_errors("moving aside", path):
            self.layout.quarantine.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
            # It goes along, for it says that this cache made the file; a foreign file never had one.
            if record.is_file() and not record.is_symlink():
                record.rename(aside.with_name(f"{aside.name}.json"))

    def _lock_path(self, checksum: Checksum) -> Path:
        # sha512 is what all else is told by, and has the plain name.
        prefix = "" if checksum.algorithm == ALGORITHM else f"{checksum.algorithm}-"
        return self.layout.locks / f"{prefix}{checksum.hexdigest}"
