# SPDX-License-Identifier: Apache-2.0
"""Hooks that are files: each event is one line of JSON, on the disk before the next is written.

The file is opened anew for each event, so that it can be moved away at any time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from coppice.atomic import fsync_directory
from coppice.errors import HookFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.events.message import Telling
    from coppice.settings.model import HookSettings

FILE_MODE = 0o640


class LineFile:
    """Appends each event to a file."""

    def __init__(self, hook: HookSettings) -> None:
        self._hook = hook

    def prepare(self) -> None:
        """Nothing is needed beforehand."""

    def tell(self, telling: Telling) -> str:
        """Append the event.

        Raises:
            HookFailedError: The file cannot be written; what was written of the line was taken back.
        """
        path = self._hook.path
        assert path is not None  # noqa: S101 - the settings see to it
        try:
            _append(path, telling.line())
        except OSError as problem:
            full = problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
            raise HookFailedError(
                f"the hook {self._hook.name!r} cannot write {path}: {problem.strerror}",
                resolution="Free space on that file system." if full else "Check the path, and who may write there.",
                context={"hook": self._hook.name, "path": str(path)},
            ) from problem
        return ""


def _append(path: Path, line: bytes) -> None:
    # Without O_NONBLOCK, opening a named pipe would wait for a reader for ever.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, FILE_MODE)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            # Half a line of a writer that was killed stays a line of its own.
            line = b"\n" + line
        _write_whole(handle, line, size)
        if not size:
            fsync_directory(path.parent)
    finally:
        os.close(handle)


def _write_whole(handle: int, line: bytes, size: int) -> None:
    try:
        written = 0
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
