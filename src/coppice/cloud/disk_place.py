# SPDX-License-Identifier: Apache-2.0
"""Put a disk image in its place: linked or copied with its holes, then read back and compared."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.digests import new_digest
from coppice.errors import ChecksumMismatchError, CloudError
from coppice.model.checksum import Checksum
from coppice.monitor import Unit

if TYPE_CHECKING:
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

_CHUNK_BYTES = 4 * 1024 * 1024
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP}
_NO_RANGE_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
# `struct flock` of 64-bit Linux and the command that asks who holds an open-file-description lock.
_FLOCK = struct.Struct("hhqqi4x")
_OFD_GETLK = 36


def place(converted: ConvertedImage, destination: Path, monitor: Monitor) -> None:
    """Link or copy the converted image to ``destination`` and verify the bytes that are there then.

    Raises:
        ChecksumMismatchError: They are not the bytes that were converted.
        NoSpaceError: The disk is full.
        StorageError: The file system failed otherwise.
    """
    with atomic.storage_errors("writing", destination):
        if not _link(converted.path, destination):
            _copy(converted.path, destination, monitor)
    if not matches(destination, converted.image.checksum, monitor):
        raise ChecksumMismatchError(
            f"the disk of image {converted.key} version {converted.version} is damaged: {converted.path}",
            details=f"expected {converted.image.checksum}",
            resolution="Nothing was registered. Remove that file, then run again: it is made anew.",
            context={"path": str(converted.path)},
        )


def matches(path: Path, expected: Checksum, monitor: Monitor) -> bool:
    """Read ``path`` and tell whether its bytes have the checksum ``expected``."""
    digest = new_digest(expected.algorithm)
    with (
        atomic.storage_errors("reading", path),
        path.open("rb") as stream,
        monitor.task(f"verify {path.name}", total=path.stat().st_size, unit=Unit.BYTES) as task,
    ):
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            task.advance(len(chunk))
    return Checksum(expected.algorithm, digest.hexdigest()).matches(expected)


def is_open(disk: Path) -> bool:
    """Tell whether a process has the file open, or holds one of the locks that QEMU sets on its images.

    The files of other users' processes can only be seen by root; their locks are seen by all.

    Raises:
        CloudError: It could not be found out.
    """
    try:
        status = disk.stat()
        return _is_locked(disk) or _is_open_in_a_process((status.st_dev, status.st_ino))
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise CloudError(
            f"it could not be found out whether {disk} is in use: {problem.strerror}",
            resolution="Nothing was removed. Give this user the right to read it, then run again.",
        ) from problem


def _is_locked(disk: Path) -> bool:
    with disk.open("rb") as stream:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(stream, _OFD_GETLK, asked)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def _is_open_in_a_process(file: tuple[int, int]) -> bool:
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            for handle in (process / "fd").iterdir():
                status = handle.stat()
                if (status.st_dev, status.st_ino) == file:
                    return True
        except OSError:
            # The process ended, or is another user's.
            continue
    return False


def _link(source: Path, destination: Path) -> bool:
    try:
        os.link(source, destination, follow_symlinks=True)
    except OSError as problem:
        if problem.errno in _NO_LINK:
            return False
        raise
    return True


def _copy(source: Path, destination: Path, monitor: Monitor) -> None:
    with source.open("rb") as reader, destination.open("xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        with monitor.task(f"copy {destination.name}", total=size, unit=Unit.BYTES) as task:
            position = 0
            while position < size:
                start, end = _next_data(reader.fileno(), position, size)
                while start < end:
                    start += _copy_range(reader.fileno(), writer.fileno(), start, min(end - start, _CHUNK_BYTES))
                    task.reach(start)
                position = end
        os.ftruncate(writer.fileno(), size)
    destination.chmod(0o444)


def _next_data(handle: int, position: int, size: int) -> tuple[int, int]:
    try:
        start = os.lseek(handle, position, os.SEEK_DATA)
        return start, os.lseek(handle, start, os.SEEK_HOLE)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return size, size
        if problem.errno == errno.EINVAL:
            return position, size
        raise


def _copy_range(source: int, destination: int, start: int, length: int) -> int:
    try:
        copied = os.copy_file_range(source, destination, length, start, start)
    except OSError as problem:
        if problem.errno not in _NO_RANGE_COPY:
            raise
        copied = os.pwrite(destination, os.pread(source, length, start), start)
    if copied == 0:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return copied
