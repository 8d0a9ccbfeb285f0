# SPDX-License-Identifier: Apache-2.0
"""`PartialFile`: a file that is still coming; it survives kills, and knows which of its bytes are its own.

Beside it lies its progress (``<name>.progress``, see `coppice.cache.progress`). Bytes are hashed as they come. As long
as a file grows at its end only, its size says what is there; when it is written out of order, its progress says it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from typing import TYPE_CHECKING, Self

from coppice import atomic
from coppice.cache.hashing import PrefixHasher
from coppice.cache.progress import PartialSource, ProgressFile
from coppice.cache.stretches import Stretches
from coppice.errors import LockedError, SizeMismatchError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from coppice.model.checksum import Checksum

PROGRESS_SUFFIX = ".progress"
DURABLE_EVERY_BYTES = 256 * 1024 * 1024
"""How much may be lost when the machine stops."""
_ZEROS = bytes(1024 * 1024)


class PartialFile:
    """A file that bytes are put into; use it as a context, or close it. Threads may write at the same time.

    Nothing of it is lost when it is closed: made anew with the same path, it goes on. One process at a time has it.

    Args:
        path: The file; it and its directory are made when they are missing.
        algorithms: Of the checksums that are wanted.

    Raises:
        LockedError: Another process has it.
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path, algorithms: Sequence[str] = ("sha512",)) -> None:
        self.path = path
        self._lock = threading.Condition()
        self._writers = 0
        self._generation = 0
        self._written = 0
        self._durable_asked = threading.Event()
        self._is_sync_due = False
        self._is_last_sync = False
        self._is_closed = False
        self._handle = _opened(path)
        self._progress = ProgressFile(progress_path(path))
        try:
            size = os.fstat(self._handle).st_size
            self._whole = self._progress.take_up(size)
            self._end = max((end for _, end in self._whole), default=0)
            if self._end < size:
                with atomic.storage_errors("writing", path):
                    os.ftruncate(self._handle, self._end)
        except BaseException:
            os.close(self._handle)
            raise
        self.taken_up_bytes = self._whole.total
        self._hasher = PrefixHasher(self._read, algorithms)
        if self._whole.prefix:
            self._hasher.extend(self._whole.prefix)
        self._syncer: threading.Thread | None = None
        self._sync_problem: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        """How far it is whole from its beginning on."""
        with self._lock:
            return self._whole.prefix

    @property
    def total_bytes(self) -> int:
        """How many of its bytes are there, wherever they are."""
        with self._lock:
            return self._whole.total

    @property
    def end_bytes(self) -> int:
        """Where the last of its bytes ends."""
        with self._lock:
            return self._end

    @property
    def source(self) -> PartialSource | None:
        """Where its bytes came from; None: there are none, or nobody said."""
        return self._progress.source

    @property
    def hash_rate_bytes_per_second(self) -> float | None:
        """How fast its bytes are hashed; None: not known yet."""
        return self._hasher.rate_bytes_per_second

    def gaps(self, size_bytes: int) -> list[tuple[int, int]]:
        """Return from where to where bytes are missing, if the file is to have that size."""
        with self._lock:
            return self._whole.gaps(size_bytes)

    def came_from(self, source: PartialSource) -> None:
        """Say where the bytes that follow come from, and what the server calls the state of its file."""
        with self._lock:
            self._progress.came_from(source)

    def append(self, piece: bytes) -> None:
        """Put bytes behind those that are whole from the beginning on.

        Raises:
            StorageError: The disk failed, or is full; what was written before stays.
        """
        self.write(self.size_bytes, piece)

    def write(self, start: int, piece: bytes) -> None:
        """Put bytes at ``start``.

        Raises:
            StorageError: The disk failed, or is full; what was written before stays.
        """
        with self._lock:
            if self._is_closed:
                raise StorageError(f"{self.path} was closed while somebody wrote to it")
            self._writers += 1
        try:
            self._write(start, piece)
        finally:
            with self._lock:
                self._writers -= 1
                self._lock.notify_all()

    def _write(self, start: int, piece: bytes) -> None:
        end = start + len(piece)
        is_zero = piece == (_ZEROS if len(piece) == len(_ZEROS) else bytes(len(piece)))
        with self._lock:
            is_next = start == self._whole.prefix == self._end
            if not is_next and not self._progress.counts_stretches:
                self._progress.count_stretches(self._whole.prefix)
            is_hole = is_zero and start >= self._end
            if is_hole:
                # A hole reads as zeros, and takes no room. What grows at its end only is as long as what is there.
                with atomic.storage_errors("writing", self.path):
                    os.ftruncate(self._handle, end)
            if not is_next:
                self._end = max(self._end, end)
        if not is_hole:
            self._put(start, piece)
        with self._lock:
            self._end = max(self._end, end)
            if self._progress.counts_stretches:
                self._progress.add(start, end)
            before = self._whole.prefix
            self._whole.add(start, end)
            prefix = self._whole.prefix
            self._written += len(piece)
            is_due = self._written >= DURABLE_EVERY_BYTES
            if is_due:
                self._written = 0
        if prefix > before:
            self._hasher.extend(prefix, piece if start == before else None, start)
        if is_due:
            self._sync_soon()

    def restart(self) -> None:
        """Throw away what is there."""
        with self._lock:
            self._lock.wait_for(lambda: not self._writers)
            self._generation += 1
            with atomic.storage_errors("writing", self.path):
                # The file first: what is said of bytes that are not there does not count.
                os.ftruncate(self._handle, 0)
            self._progress.begin_anew()
            self._whole, self._end, self.taken_up_bytes = Stretches(), 0, 0
            self._hasher.begin_anew()

    def sync(self) -> None:
        """Make durable what is there, and say so beside it.

        Raises:
            StorageError: The disk failed.
        """
        with self._lock:
            whole, generation = Stretches(self._whole), self._generation
        with atomic.storage_errors("writing", self.path):
            os.fdatasync(self._handle)
        with self._lock:
            if generation == self._generation:
                self._progress.made_durable(whole)

    def finish(self, size_bytes: int | None = None) -> dict[str, Checksum]:
        """Make the whole file durable and return its checksums, by algorithm.

        Args:
            size_bytes: That it must have; None: what is there is all.

        Raises:
            SizeMismatchError: There are holes in it, or it has another size.
            StorageError: The disk failed, or somebody else changed the file.
        """
        with self._lock:
            wanted = self._end if size_bytes is None else size_bytes
            gaps = self._whole.gaps(wanted)
            has_size = os.fstat(self._handle).st_size == wanted == self._end
        if gaps or not has_size:
            raise SizeMismatchError(
                f"{self.path} has {self.total_bytes} of {wanted} bytes",
                resolution="Run again; it is gone on with.",
                context={"path": str(self.path), "size_bytes": self.total_bytes, "expected_bytes": wanted},
            )
        checksums = self._hasher.checksums()
        with atomic.storage_errors("writing", self.path):
            if self._sync_problem is not None:
                raise self._sync_problem
            os.fdatasync(self._handle)
        return checksums

    def keep_as(self, destination: Path, *, mode: int = 0o444) -> None:
        """Give the finished file its name, durably, and close it; the file is not seen there before it is whole.

        Raises:
            StorageError: The disk failed.
        """
        with atomic.storage_errors("writing", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.fchmod(self._handle, mode)
            os.fsync(self._handle)
            self.path.rename(destination)
            atomic.fsync_directory(destination.parent)
            progress_path(self.path).unlink(missing_ok=True)
        self.close()

    def discard(self) -> None:
        """Remove it and its progress, and close it."""
        with contextlib.suppress(FileNotFoundError), atomic.storage_errors("removing", self.path):
            progress_path(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close it; what is there stays."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        # First: a writer may wait for it.
        self._hasher.close()
        with self._lock:
            self._lock.wait_for(lambda: not self._writers)
            # Only now: what a writer asked for at the very end is made durable too.
            self._is_last_sync = True
        self._durable_asked.set()
        if self._syncer is not None:
            self._syncer.join()
        self._progress.close()
        os.close(self._handle)

    def _put(self, start: int, piece: bytes) -> None:
        view, done = memoryview(piece), 0
        with atomic.storage_errors("writing", self.path):
            while done < len(piece):
                done += os.pwrite(self._handle, view[done:], start + done)

    def _read(self, start: int, length: int) -> bytes:
        with atomic.storage_errors("reading", self.path):
            return os.pread(self._handle, length, start)

    def _sync_soon(self) -> None:
        with self._lock:
            self._is_sync_due = True
            if self._syncer is None:
                self._syncer = threading.Thread(target=self._keep_durable, name="coppice-partial-sync", daemon=True)
                self._syncer.start()
        self._durable_asked.set()

    def _keep_durable(self) -> None:
        is_last = False
        while not is_last and self._durable_asked.wait():
            self._durable_asked.clear()
            is_last = self._is_last_sync
            if not self._is_sync_due:
                continue
            self._is_sync_due = False
            try:
                self.sync()
            except StorageError as problem:
                # Told when the file is finished: nothing of it is shown before.
                cause = problem.__cause__
                self._sync_problem = cause if isinstance(cause, OSError) else OSError(str(problem))
                return


def progress_path(path: Path) -> Path:
    """Return where the progress of a partial file is."""
    return path.with_name(path.name + PROGRESS_SUFFIX)


def _opened(path: Path) -> int:
    with atomic.storage_errors("opening", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        _take(handle, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _take(handle: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise StorageError(f"{path} is no regular file", context={"path": str(path)})
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise LockedError(
            f"another run is fetching into {path}", resolution="Wait until it ends, then run again."
        ) from problem
