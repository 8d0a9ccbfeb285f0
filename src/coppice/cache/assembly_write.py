# SPDX-License-Identifier: Apache-2.0
"""`DiskWriter`: writes a disk from its first byte to its last, sparse, and hashes it meanwhile in a thread."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import struct
import threading
from typing import TYPE_CHECKING, Self

from coppice import atomic
from coppice.cache.objects import fingerprint
from coppice.errors import DeltaError
from coppice.formats.delta_limits import BLOCK_BYTES
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from coppice.monitor import Task

PIECE_BYTES = 1024 * 1024
_WAITING_PIECES = 8
_CLONE = struct.Struct("qQQQ")
_FICLONERANGE = 0x4020940D
"""ioctl_ficlonerange(2): on file systems that can, both files then share the blocks, and nothing is copied. What copies
in the kernel elsewhere (copy_file_range) is slower than reading and writing."""
_SHARED_BYTES = 64 * 1024
_ZEROS = bytes(PIECE_BYTES)


class DiskWriter:
    """A new file of a known length. What it holds is told by `finish`, and nobody may use it before.

    Args:
        path: The file; it must not exist.
        size_bytes: Its length.
        task: Told how far the writing is.

    Raises:
        StorageError: It cannot be made.
    """

    def __init__(self, path: Path, size_bytes: int, task: Task) -> None:
        self._path = path
        self._size = size_bytes
        self._task = task
        self._position = 0
        self._pending = bytearray()
        self._shares = True
        self._hasher = _Hasher()
        with atomic.storage_errors("making", path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.ftruncate(self._handle, size_bytes)

    def __enter__(self) -> Self:
        """Take the pieces."""
        self._hasher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; where the work failed, it is removed."""
        self._hasher.stop()
        os.close(self._handle)
        if kind is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def zeros(self, length: int) -> None:
        """Go on with zeros; they take no room on the disk.

        Raises:
            DeltaError: The disk would become too long.
        """
        self._reserve(length)
        self._flush()
        self._hasher.zeros(length)
        self._go_on(length)

    def data(self, data: bytes) -> None:
        """Go on with these bytes.

        Raises:
            DeltaError: The disk would become too long.
            StorageError: They cannot be written.
        """
        self._reserve(len(data))
        # Disks are scattered: a thousand small pieces would be a thousand calls, and as many for the hasher.
        self._pending += data
        self._go_on(len(data))
        if len(self._pending) >= PIECE_BYTES:
            self._flush()

    def place(self, offset: int, data: bytes) -> None:
        """Put bytes where the writing has not come to yet; `placed` goes over them.

        Raises:
            DeltaError: They do not lie within what is still to be written.
            StorageError: They cannot be written.
        """
        if not self._position <= offset <= self._size - len(data):
            raise DeltaError(f"a delta puts {len(data)} bytes at {offset} of a disk of {self._size} bytes")
        self._write(data, offset)

    def placed(self, length: int) -> None:
        """Go on with what is in its place already.

        Raises:
            DeltaError: The disk would become too long.
            StorageError: It cannot be read.
        """
        self._reserve(length)
        self._flush()
        self._hash_written(length)
        self._go_on(length)

    def copy(self, source: int, offset: int, length: int) -> None:
        """Go on with bytes of another open file.

        Raises:
            DeltaError: The disk would become too long, or the file is too short.
            StorageError: They cannot be read or written.
        """
        self._reserve(length)
        end = offset + length
        while offset < end:
            piece = min(PIECE_BYTES, end - offset)
            copied = self._share(source, offset, piece) if piece >= _SHARED_BYTES else 0
            if copied:
                self._go_on(copied)
            else:
                copied = self._copy_piece(source, offset, piece)
            offset += copied

    def finish(self) -> tuple[Checksum, tuple[int, ...]]:
        """Make the file durable and read-only; return its checksum and its state.

        Raises:
            DeltaError: The disk is not whole.
            StorageError: It cannot be made durable.
        """
        if self._position != self._size:
            raise DeltaError(f"a delta gives {self._position} bytes of a disk of {self._size}")
        self._flush()
        with atomic.storage_errors("writing", self._path):
            os.fchmod(self._handle, 0o444)
            os.fsync(self._handle)
            return self._hasher.result(), fingerprint(os.fstat(self._handle))

    def _reserve(self, length: int) -> None:
        if not 0 <= length <= self._size - self._position:
            raise DeltaError(f"a delta gives more than the {self._size} bytes of the disk")

    def _go_on(self, length: int) -> None:
        self._position += length
        self._task.reach(self._position, self._size)

    def _flush(self) -> None:
        """Write what was taken up and not written yet."""
        if self._pending:
            pending, self._pending = bytes(self._pending), bytearray()
            self._write(pending, self._position - len(pending))
            self._hasher.take(pending)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        with atomic.storage_errors("writing", self._path):
            while view:
                written = os.pwrite(self._handle, view, offset)
                view, offset = view[written:], offset + written

    def _copy_piece(self, source: int, offset: int, length: int) -> int:
        piece = read_held(source, offset, length)
        if not piece:
            raise DeltaError("what is held here is shorter than it was")
        self.data(piece)
        return len(piece)

    def _share(self, source: int, offset: int, length: int) -> int:
        """Return how much is shared with the other file from now on; 0: these file systems cannot."""
        if not self._shares:
            return 0
        self._flush()
        length -= length % BLOCK_BYTES
        try:
            fcntl.ioctl(self._handle, _FICLONERANGE, _CLONE.pack(source, offset, length, self._position))
        except OSError:
            # What is wrong otherwise is said by the plain way.
            self._shares = False
            return 0
        # What counts is what is there now, not what the source holds a moment later.
        self._hash_written(length)
        return length

    def _hash_written(self, length: int) -> None:
        position, end = self._position, self._position + length
        while position < end:
            with atomic.storage_errors("reading", self._path):
                piece = os.pread(self._handle, min(PIECE_BYTES, end - position), position)
            if not piece:
                raise DeltaError("the disk that is put together was cut short by somebody else")
            self._hasher.take(piece)
            position += len(piece)


def read_held(handle: int, offset: int, length: int) -> bytes:
    """Return bytes of a held disk; fewer at its end.

    Raises:
        DeltaError: It cannot be read: then it cannot serve, and the image may be had whole.
    """
    try:
        return os.pread(handle, length, offset)
    except OSError as problem:
        raise DeltaError("what is held here cannot be read", details=str(problem)) from problem


class _Hasher:
    """sha512 of pieces, in a thread of its own: hashing takes longer than writing."""

    def __init__(self) -> None:
        self._digest = hashlib.sha512()
        self._pieces: queue.Queue[bytes | int | None] = queue.Queue(_WAITING_PIECES)
        self._thread = threading.Thread(target=self._work, name="coppice-hash", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, piece: bytes) -> None:
        self._pieces.put(piece)

    def zeros(self, length: int) -> None:
        self._pieces.put(length)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def result(self) -> Checksum:
        self.stop()
        return Checksum("sha512", self._digest.hexdigest())

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, bytes):
                self._digest.update(piece)
                continue
            while piece:
                step = min(piece, PIECE_BYTES)
                self._digest.update(memoryview(_ZEROS)[:step])
                piece -= step
