# SPDX-License-Identifier: Apache-2.0
"""Locks and leases of the cache: both are the kernel's, so that a killed process leaves none behind.

A lock on a digest is held while its bytes are fetched, verified or removed. A lease says that a process uses an object:
a shared lock on one byte of one file, so that any number of objects costs one open file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.model.checksum import Checksum

_POLL_SECONDS = 0.05
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FLOCK = "hhqqi4x"
"""struct flock: type, whence, start, length, process."""
_LEASE_DIGITS = 15
"""So many hexadecimal digits of a digest are a position that fits into a signed 64-bit number."""


@contextmanager
def locked(path: Path, *, what: str, wait_seconds: float, on_wait: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the lock at ``path``; yield its open file, which the holder may write to.

    Args:
        path: The lock file; made when missing. Whoever holds it may remove it.
        what: What is worked on, for the message.
        wait_seconds: How long to wait for another holder.
        on_wait: Called once when there is one.

    Raises:
        LockedError: Another run held it for longer.
        StorageError: The file cannot be made.
    """
    deadline = time.monotonic() + wait_seconds
    with atomic.storage_errors("locking", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with atomic.storage_errors("locking", path):
            handle = os.open(path, _FLAGS, 0o644)
        try:
            if try_lock(handle) and _is_at(path, handle):
                yield handle
                return
        finally:
            os.close(handle)
        if time.monotonic() >= deadline:
            raise LockedError(
                f"another run is working on {what}",
                resolution="Wait until it ends, then run again.",
                context={"lock": path.name},
            )
        if on_wait is not None:
            on_wait()
            on_wait = None
        time.sleep(_POLL_SECONDS)


def try_lock(handle: int) -> bool:
    """Take the lock on an open file; False: another has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Tell whether the locked file is still the one at that path: a holder may have removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        there, here = path.lstat(), os.fstat(handle)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    return False


class Leases:
    """What this process uses, told to all others.

    Args:
        path: The file that all share.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._held: set[int] = set()
        self._guard = threading.Lock()

    def take(self, checksum: Checksum) -> None:
        """Use an object until `close`; the caller holds the lock on its digest.

        Raises:
            StorageError: The file cannot be made, or its file system has no locks.
        """
        place = _place(checksum)
        with self._guard, atomic.storage_errors("leasing in", self._path):
            _set(self._open(), fcntl.F_RDLCK, place)
            self._held.add(place)

    def is_used(self, checksum: Checksum) -> bool:
        """Tell whether any process uses an object; the caller holds the lock on its digest.

        Raises:
            StorageError: The file cannot be made, or its file system has no locks.
        """
        place = _place(checksum)
        with self._guard, atomic.storage_errors("leasing in", self._path):
            if place in self._held:
                return True
            # Another open file: a lock of one's own never stands in one's own way.
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, _FLAGS, 0o644)
            try:
                return not _set(handle, fcntl.F_WRLCK, place)
            finally:
                os.close(handle)

    def close(self) -> None:
        """Use nothing any more."""
        with self._guard:
            self._held.clear()
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def __del__(self) -> None:
        """Give the file back when nobody refers to this any more."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        if self._handle is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, _FLAGS, 0o644)
        return self._handle


def _place(checksum: Checksum) -> int:
    return int(checksum.hexdigest[:_LEASE_DIGITS], 16)


def _set(handle: int, kind: int, place: int) -> bool:
    """Lock one byte for an open file (not for the process, whose locks any close of that file would end)."""
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))
    except OSError as problem:
        if problem.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True
