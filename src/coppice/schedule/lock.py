# SPDX-License-Identifier: Apache-2.0
"""One run at a time: a lock that the kernel keeps, so that a killed run leaves none behind.

The lock file also says who holds it; that text is for people only and is never believed.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.errors import LockedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_SECONDS = 0.2
_MAX_HOLDER_BYTES = 1000


@contextmanager
def run_lock(path: Path, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock at ``path`` while the block runs; the file stays.

    Programs that the block starts do not inherit it.

    Args:
        path: The lock file; it and its directory are made when missing.
        wait_seconds: How long to wait for another run to end.

    Raises:
        LockedError: Another run holds it still; the message names that run.
        StorageError: The file cannot be made, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as problem:
        raise StorageError(
            f"the lock file {path} cannot be opened: {problem.strerror}",
            resolution="Give this user the right to write there, or set `state_directory` elsewhere.",
        ) from problem
    try:
        _acquire(handle, path, wait_seconds)
        _write_holder(handle)
        yield
    finally:
        # Closing gives the lock back. The file is not removed: another run may be waiting on it.
        os.close(handle)


def _acquire(handle: int, path: Path, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise _locked(handle, path) from None
            time.sleep(min(_POLL_SECONDS, remaining))
        except OSError as problem:
            raise StorageError(
                f"the file system of {path} has no locks: {problem.strerror}",
                resolution="Put `state_directory` on a file system that has them: two runs at once would harm.",
            ) from problem
        else:
            return


def _write_holder(handle: int) -> None:
    command = " ".join(sys.argv)[:400].encode("unicode_escape").decode("ascii")
    text = f"pid {os.getpid()}, command {command!r}, since {to_rfc3339(datetime.now(UTC))}\n"
    # It is for people only: a full disk keeps nobody from revoking an image.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)


def _locked(handle: int, path: Path) -> LockedError:
    holder = os.pread(handle, _MAX_HOLDER_BYTES, 0).decode("utf-8", errors="replace").strip() or "it left no name yet"
    return LockedError(
        f"another run is at work ({holder})",
        details=f"lock file {path}",
        resolution="Wait until it has ended, then run again. The lock frees itself when that process ends.",
        context={"path": str(path), "holder": holder},
    )
