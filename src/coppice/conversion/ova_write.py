# SPDX-License-Identifier: Apache-2.0
"""`write_ova`: make an archive of a disk, its descriptor and its manifest; the disk's bytes stay where they are.

Where the file system can make room at the beginning of a file (ext4, XFS), the disk becomes the archive: nothing is
written but what comes before and behind it. Elsewhere it is copied.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.formats.ova_frame import OvaFrame
from coppice.monitor import SILENT_TASK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.model.requirements import Requirements
    from coppice.monitor import Task

_INSERT_RANGE = 0x20
_STEP_BYTES = 1024 * 1024
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EFBIG, errno.ETXTBSY})


def write_ova(
    disk: Path,
    destination: Path,
    *,
    requirements: Requirements,
    name: str,
    virtual_size_bytes: int,
    is_linux: bool = False,
    task: Task = SILENT_TASK,
) -> None:
    """Make an OVA: the descriptor, the manifest (SHA-256), the disk, in this order; the same facts give the same bytes.

    Args:
        disk: A VMDK of the kind streamOptimized, used up: it becomes the archive, or is removed.
        destination: The archive: a temporary name, which the caller makes durable; what is there is replaced.
        requirements: What the machine needs.
        name: Of the appliance.
        virtual_size_bytes: Length of the disk that a guest sees.
        is_linux: Whether Linux runs on it.
        task: Told of the bytes that were read.

    Raises:
        NoSpaceError: It does not fit on the disk.
        StorageError: A file cannot be read or written.
    """
    with atomic.storage_errors("writing", destination):
        handle = os.open(disk, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            state = os.fstat(handle)
            frame = OvaFrame(
                disk_bytes=state.st_size,
                virtual_size_bytes=virtual_size_bytes,
                requirements=requirements,
                name=name,
                is_linux=is_linux,
            )
            # First, while the disk is in memory: making room in a file drops it from there.
            before = frame.before(_digest(handle, state.st_size, task))
            may_push = state.st_nlink == 1 and _same_file_system(disk, destination)
            if may_push and _insert(handle, len(before)):
                _write(handle, before, 0)
                _write(handle, frame.behind, len(before) + state.st_size)
                disk.replace(destination)
                return
            _copy(handle, state.st_size, before, frame.behind, destination)
        finally:
            os.close(handle)
        disk.unlink()


def _digest(handle: int, size_bytes: int, task: Task) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(handle, size_bytes):
        digest.update(piece)
        task.advance(len(piece))
    return digest.hexdigest()


def _copy(handle: int, size_bytes: int, before: bytes, behind: bytes, destination: Path) -> None:
    target = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        at = _write(target, before, 0)
        for piece in _pieces(handle, size_bytes):
            at += _write(target, piece, at)
        _write(target, behind, at)
    finally:
        os.close(target)


def _pieces(handle: int, size_bytes: int) -> Iterator[bytes]:
    at = 0
    while at < size_bytes:
        piece = os.pread(handle, min(_STEP_BYTES, size_bytes - at), at)
        if not piece:
            raise OSError(errno.EIO, "the disk became shorter while it was read")
        yield piece
        at += len(piece)


def _write(handle: int, content: bytes, start: int) -> int:
    view, at = memoryview(content), start
    while view:
        count = os.pwrite(handle, view, at)
        view, at = view[count:], at + count
    return len(content)


def _same_file_system(disk: Path, destination: Path) -> bool:
    return disk.parent.stat().st_dev == destination.parent.stat().st_dev


def _insert(handle: int, length: int) -> bool:
    """Push the bytes of a file back by ``length`` (fallocate(2), FALLOC_FL_INSERT_RANGE); False where that cannot be.

    Raises:
        OSError: It could be, and failed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(handle, _INSERT_RANGE, 0, length) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in _CANNOT:
        return False
    raise OSError(problem, os.strerror(problem))
