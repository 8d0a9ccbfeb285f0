# SPDX-License-Identifier: Apache-2.0
"""Files that are converted: the state by which a change is seen, their checksum, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.digests import new_digest
from coppice.errors import ImageRefusedError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PIECE_BYTES = 1024 * 1024


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is changed or replaced; empty: it cannot be looked at."""
    try:
        return _fingerprint(path.lstat())
    except OSError:
        return ()


def state_of_open(handle: int) -> tuple[int, ...]:
    """Return the same of an open file, whatever bears its name by now.

    Raises:
        OSError: It cannot be looked at.
    """
    return _fingerprint(os.fstat(handle))


def is_merely_linked(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Tell whether nothing but the last time of two states differs: a link to the file came or went, so it may be."""
    return bool(before) and before != after and before[:-1] == after[:-1]


def hash_file(path: Path, algorithm: str, on_piece: Callable[[int], object]) -> tuple[Checksum, tuple[int, ...]]:
    """Hash a file; return its checksum and the state in which it has it.

    Raises:
        ImageRefusedError: It is no regular file, or changed while it was read.
        OSError: It cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ImageRefusedError(f"{path} cannot be opened as a regular file", details=str(problem)) from problem
    with os.fdopen(handle, "rb", buffering=0) as stream:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise ImageRefusedError(f"{path} is not a regular file")
        digest = new_digest(algorithm)
        buffer = memoryview(bytearray(_PIECE_BYTES))
        while read := stream.readinto(buffer):
            digest.update(buffer[:read])
            on_piece(read)
        after = _fingerprint(os.fstat(handle))
        if after != _fingerprint(before) and not is_merely_linked(_fingerprint(before), after):
            raise ImageRefusedError(f"{path} changed while it was read", resolution="Run again.")
    return Checksum(algorithm, digest.hexdigest()), _fingerprint(before)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, however long that takes.

    Raises:
        StorageError: It cannot be made.
    """
    while True:
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(path, handle):
                yield
                return
        finally:
            os.close(handle)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold the lock ``path`` where nobody else does, and say so.

    Raises:
        StorageError: It cannot be made.
    """
    handle = _open_lock(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_at(path, handle)
    finally:
        os.close(handle)


def _open_lock(path: Path) -> int:
    with atomic.storage_errors("locking", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _is_at(path: Path, handle: int) -> bool:
    """Tell whether the locked file is still the one at that path: a holder may have removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        there, here = path.lstat(), os.fstat(handle)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    return False


def _fingerprint(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
