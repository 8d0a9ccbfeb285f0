# SPDX-License-Identifier: Apache-2.0
"""Write to a temporary name, make it durable, rename: a reader sees the old or the new, never a half.

Temporary names start with ``.coppice-`` and end in ``.partial``, so that leftovers of a killed run can be told
from everything else and swept (`sweep_partials`).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coppice.errors import NoSpaceError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTIAL_PREFIX = ".coppice-"
PARTIAL_SUFFIX = ".partial"
ABANDONED_SECONDS = 3600.0
"""After which what was being written is a dead run's: nothing small takes that long."""
_KEPT_NAME = 80


def partial_path(destination: Path) -> Path:
    """Return a fresh temporary name in the directory of ``destination``."""
    kept = destination.name[:_KEPT_NAME]
    return destination.with_name(f"{PARTIAL_PREFIX}{kept}-{secrets.token_hex(6)}{PARTIAL_SUFFIX}")


@contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors on ``path`` into storage errors that name it.

    Raises:
        NoSpaceError: The disk or a quota is full.
        StorageError: Any other failure of the file system.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise NoSpaceError(
                f"no space left while {doing} {path}",
                details=str(problem),
                resolution="Free space on that file system, then run again; `coppice cache prune` removes what nothing "
                "needs.",
                context={"path": str(path)},
            ) from problem
        raise StorageError(
            f"{doing} {path} failed: {problem.strerror}", details=str(problem), context={"path": str(path)}
        ) from problem


def fsync_directory(directory: Path) -> None:
    """Make renames in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle_file(path: Path, mode: int) -> None:
    """Give a new file its permissions and make its bytes durable; a link in its place is not followed.

    Raises:
        OSError: It is a link, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of ``path`` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_special(path: Path) -> bool:
    """Tell whether a rename onto ``path`` would take away what is no file: a device, a pipe, a socket.

    ``/dev/null`` and ``/dev/stdout`` are such; root may put a file in their place, and the machine goes without them.
    """
    try:
        if path.is_symlink() and str(path.readlink()).startswith("/proc/"):
            return True
        kind = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


@contextmanager
def replacing(destination: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside ``destination``; rename it there when the block ends well, remove it when not.

    The caller creates the file. Its bytes and its directory entry are durable when the block is left.

    Raises:
        NoSpaceError: The disk is full.
        StorageError: The file system failed otherwise, or ``destination`` is no file (`is_special`).
    """
    if is_special(destination):
        raise StorageError(
            f"{destination} is no ordinary file, and is not replaced", context={"path": str(destination)}
        )
    temporary = partial_path(destination)
    try:
        with storage_errors("writing", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            settle_file(temporary, mode)
            temporary.replace(destination)
            fsync_directory(destination.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def replacing_directory(destination: Path) -> Iterator[Path]:
    """Yield a new temporary directory beside ``destination``; rename it there when the block ends well.

    ``destination`` must not exist: a directory cannot be replaced in one step.

    Raises:
        NoSpaceError: The disk is full.
        StorageError: The file system failed otherwise, or ``destination`` exists.
    """
    temporary = partial_path(destination)
    try:
        with storage_errors("writing", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    fsync_file(path)
            fsync_directory(temporary)
            temporary.rename(destination)
            fsync_directory(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(destination: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``destination`` in one step."""
    with replacing(destination, mode=mode) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)


def write_text(destination: Path, text: str, *, mode: int = 0o644) -> None:
    """Write ``text`` as UTF-8 to ``destination`` in one step."""
    write_bytes(destination, text.encode("utf-8"), mode=mode)


def sweep_partials(directory: Path, *, older_than_seconds: float, of: str | None = None) -> list[Path]:
    """Remove temporary files and directories that a killed run left in ``directory``; return what was removed.

    Only names that this module makes are touched, and only when nothing wrote to them for ``older_than_seconds``.

    Args:
        directory: Where.
        older_than_seconds: Younger ones stay.
        of: Only what was to become the file of that name; None: all.
    """
    removed: list[Path] = []
    if not directory.is_dir():
        return removed
    of_it = "*" if of is None else f"{glob.escape(of[:_KEPT_NAME])}-*"
    for path in directory.glob(f"{PARTIAL_PREFIX}{of_it}{PARTIAL_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime < older_than_seconds:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
            removed.append(path)
    return removed
