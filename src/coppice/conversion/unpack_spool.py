# SPDX-License-Identifier: Apache-2.0
"""`SpoolFile`: where an unpacked image lies for as long as it is needed, and the thread that writes it.

Zeros become holes. The file is locked by the process that made it for as long as that lives, so that what a killed run
left can be told from what another run is using: `sweep_spool` removes each that nobody holds. No run looks for what
another has unpacked; a half can therefore never be taken for a whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import secrets
import threading
from typing import TYPE_CHECKING, Self

from coppice import atomic
from coppice.conversion.unpack_buffers import BUFFER_BYTES
from coppice.errors import CoppiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = ".coppice-unpacked-"
_SUFFIX = ".spool"
_BLOCK = 4096
"""What file systems keep: a shorter run of zeros would take room all the same."""
_ZEROS = bytes(1024 * 1024)
_WAITING_PIECES = 4
"""How far unpacking may be ahead of the disk, in pieces of at most 1 MiB."""
_BUFFERS = _WAITING_PIECES + 2
"""One is unpacked into, and one is written."""
_TRIES = 100
RESERVE_BYTES = 16 * 1024 * 1024
"""Kept free for the database and all else that lies on the same file system."""
_BETWEEN_LOOKS_BYTES = 4 * 1024 * 1024
"""How much is unpacked between two looks at what is free."""


class SpoolFile:
    """A new file in a spool directory; use it as a context: it is removed at the end, unless it was taken.

    Args:
        directory: The spool; made when missing.

    Raises:
        StorageError: The file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        with atomic.storage_errors("making a file in", directory):
            directory.mkdir(parents=True, exist_ok=True)
            self.path, self.handle = _new_file(directory)
        self.size_bytes = 0
        self._until_look = 0

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it has another name by now."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.handle)

    def write(self, piece: bytes | bytearray) -> None:
        """Append ``piece``, leaving out blocks of nothing but zeros.

        Raises:
            NoSpaceError: It does not fit on the disk, or would leave nothing for others there.
            StorageError: It cannot be written.
        """
        with atomic.storage_errors("unpacking into", self.path):
            if self.size_bytes >= self._until_look:
                self._until_look = self.size_bytes + _BETWEEN_LOOKS_BYTES
                _require_room(self.handle)
            _write_sparsely(self.handle, piece, self.size_bytes)
            self.size_bytes += len(piece)

    def close_hole(self) -> None:
        """Give the file its whole length, of which zeros at its end are a part.

        Raises:
            StorageError: It cannot be done.
        """
        with atomic.storage_errors("unpacking into", self.path):
            os.ftruncate(self.handle, self.size_bytes)

    def take(self, destination: Path, *, mode: int = 0o644) -> None:
        """Make this file ``destination``, durably and in one step; it is copied where that is on another file system.

        Raises:
            NoSpaceError: The copy does not fit on the disk.
            StorageError: It cannot be done.
        """
        with atomic.storage_errors("writing", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.fchmod(self.handle, mode)
            os.fsync(self.handle)
            try:
                self.path.replace(destination)
            except OSError as problem:
                if problem.errno != errno.EXDEV:
                    raise
                copy_stretch(self.handle, 0, self.size_bytes, destination, mode=mode)
            else:
                atomic.fsync_directory(destination.parent)


class WriterThread:
    """Writes pieces to spool files beside whoever unpacks them; a context, after which all of them are written.

    It lends the memory for them as well (`coppice.conversion.unpack_buffers.Buffers`): what is given back stands in the
    same queue behind the pieces that lie in it, and is lent again when they are written.
    """

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[tuple[SpoolFile, bytes | bytearray] | bytearray | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_WAITING_PIECES)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._unmade_buffers = _BUFFERS
        self._problem: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="unpacking", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for it; raise what went wrong in it.

        Raises:
            NoSpaceError: It does not fit on the disk.
            StorageError: It cannot be written.
        """
        self._is_over = kind is not None
        is_done = False
        try:
            self._end()
            is_done = True
        finally:
            if not is_done:
                # Interrupted once more: nothing may be written any longer, for the files are closed next.
                self._is_over = True
                self._end()
        if kind is None:
            self._raise()

    def put(self, spool: SpoolFile, piece: bytes | bytearray) -> None:
        """Hand over a piece that ``spool`` goes on with; waits where the disk is slower than the unpacking.

        Raises:
            NoSpaceError: An earlier one does not fit on the disk.
            StorageError: An earlier one cannot be written.
        """
        self._raise()
        self._room.acquire()
        self._pieces.put((spool, piece))

    def take(self) -> bytearray:
        """Return memory for a piece; waits until there is some.

        Raises:
            NoSpaceError: An earlier piece does not fit on the disk.
            StorageError: An earlier one cannot be written.
        """
        self._raise()
        if self._unmade_buffers and self._free.empty():
            self._unmade_buffers -= 1
            return bytearray(BUFFER_BYTES)
        return self._free.get()

    def give_back(self, buffer: bytearray) -> None:
        """Take memory back, all of whose pieces were put; it is lent again when they are written."""
        self._pieces.put(buffer)

    def _end(self) -> None:
        self._pieces.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _work(self) -> None:
        is_open = True
        try:
            while (waiting := self._next()) is not None:
                if not self._is_over:
                    spool, piece = waiting
                    spool.write(piece)
            is_open = False
        except (CoppiceError, MemoryError) as problem:
            self._problem = problem
        finally:
            # After a problem, what comes is thrown away, so that nobody waits for ever; the next put tells of it.
            while is_open:
                is_open = self._next() is not None

    def _next(self) -> tuple[SpoolFile, bytes | bytearray] | None:
        """Return the next piece and its file; before, lend again what was given back. None: it is over."""
        while isinstance(waiting := self._pieces.get(), bytearray):
            self._free.put(waiting)
        if waiting is not None:
            self._room.release()
        return waiting


def sweep_spool(directory: Path) -> list[Path]:
    """Remove what killed runs left in a spool directory; return what was removed. What a living one holds stays."""
    removed = []
    for path in sorted(directory.glob(f"{_PREFIX}*{_SUFFIX}")):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def copy_stretch(source: int, offset: int, size_bytes: int, destination: Path, *, mode: int = 0o644) -> None:
    """Make a stretch of a file a file of its own; holes stay holes, and blocks of nothing but zeros become some.

    Args:
        source: The open file.
        offset: Where the stretch begins.
        size_bytes: Its length.
        destination: The new file; replaced in one step.
        mode: Its permissions.

    Raises:
        NoSpaceError: It does not fit on the disk.
        StorageError: It cannot be read or written.
    """
    with atomic.replacing(destination, mode=mode) as temporary:
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(target, size_bytes)
            for start, end in _data_of(source, offset, offset + size_bytes):
                at = start
                while at < end:
                    piece = os.pread(source, min(len(_ZEROS), end - at), at)
                    if not piece:
                        raise OSError(errno.EIO, "the file became shorter while it was copied")
                    _write_sparsely(target, piece, at - offset)
                    at += len(piece)
        finally:
            os.close(target)


def _new_file(directory: Path) -> tuple[Path, int]:
    for _ in range(_TRIES):
        path = directory / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return path, handle
        except BlockingIOError:
            pass  # a sweeper came between making and locking; it removes the file
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)
            raise
        os.close(handle)
    raise OSError(errno.EBUSY, "something removes each file that is made there")


def _require_room(handle: int) -> None:
    state = os.fstatvfs(handle)
    if state.f_bavail * state.f_frsize < RESERVE_BYTES:
        raise OSError(errno.ENOSPC, f"less than {RESERVE_BYTES} bytes are free, which are for others")


def _runs(piece: bytes | bytearray, position: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of ``piece`` that are more than zeros, by blocks of the file that it begins in anywhere."""
    if _ZEROS.startswith(piece):
        return
    begun = 0
    for start, end in _empty_blocks(piece, -position % _BLOCK):
        if begun < start:
            yield begun, start
        begun = end
    if begun < len(piece):
        yield begun, len(piece)


def _empty_blocks(piece: bytes | bytearray, first: int) -> Iterator[tuple[int, int]]:
    """Yield the blocks of nothing but zeros; what is before ``first``, and at the end, is a part of one."""
    length = len(piece)
    first = min(length, first)
    last = length - (length - first) % _BLOCK
    block = _ZEROS[:_BLOCK]
    if first and piece.startswith(block[:first]):
        yield 0, first
    for at in range(first, last, _BLOCK):
        if piece.startswith(block, at):
            yield at, at + _BLOCK
    if last < length and piece.endswith(block[: length - last]):
        yield last, length


def _write_sparsely(handle: int, piece: bytes | bytearray, position: int) -> None:
    view = memoryview(piece)
    for start, end in _runs(piece, position):
        at = start
        while at < end:
            at += os.pwrite(handle, view[at:end], position + at)


def _data_of(handle: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        try:
            begin = os.lseek(handle, start, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno != errno.ENXIO or os.fstat(handle).st_size < end:
                yield start, end  # the file system cannot say, or reading will say that the file became shorter
            return  # the rest is a hole
        if begin >= end:
            return
        start = min(end, os.lseek(handle, begin, os.SEEK_HOLE))
        yield begin, start
