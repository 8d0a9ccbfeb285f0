# SPDX-License-Identifier: Apache-2.0
"""Where a build or a boot test works: a directory of its own, gone afterwards; those of killed runs are swept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import PARTIAL_PREFIX, PARTIAL_SUFFIX, storage_errors
from coppice.factory.lock import is_free, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "coppice-work-"
_NEW_PREFIX = ".coppice-new-"
_LOCK = ".lock"
_YOUNG_SECONDS = 60.0
_MOUNTS = Path("/proc/self/mountinfo")


@contextmanager
def workplace(parent: Path | None = None) -> Iterator[Path]:
    """Yield a fresh directory under ``parent`` (default: the system's temporary directory); remove it afterwards.

    Raises:
        NoSpaceError: The disk is full.
        StorageError: It cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    with storage_errors("making a working directory in", parent):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=parent))
    directory = new.with_name(PREFIX + new.name.removeprefix(_NEW_PREFIX))
    try:
        # The lock tells a sweeping run that this directory is in use; the kernel lets it go when this process dies. It
        # is held before the directory has the name by which it is swept.
        with locked(new / _LOCK):
            with storage_errors("making a working directory in", parent):
                new.rename(directory)
            yield directory
    finally:
        for each in (new, directory):
            _remove(each)


def sweep_interrupted(destination: Path) -> None:
    """Remove what killed runs left of ``destination``, half-made; only for who holds the lock on making it."""
    for left in destination.parent.glob(f"{PARTIAL_PREFIX}{destination.name}-*{PARTIAL_SUFFIX}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _sweep(parent: Path) -> None:
    for left in (*parent.glob(f"{PREFIX}*"), *parent.glob(f"{_NEW_PREFIX}*")):
        with contextlib.suppress(FileNotFoundError):
            facts = left.lstat()
            # Another user's is not ours to judge; one that has its first name yet may not hold its lock yet.
            mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
            is_old = time.time() - facts.st_mtime > _YOUNG_SECONDS
            if mine and (is_old or left.name.startswith(PREFIX)) and not _is_held(left / _LOCK):
                _remove(left)


def _is_held(lock: Path) -> bool:
    return lock.exists() and not is_free(lock)


def _remove(directory: Path) -> None:
    # Nothing of Coppice's mounts anything that is seen here. Should a tool have done so and died, then what is mounted
    # is the machine's own (its /dev, its /sys), and emptying it would be the end of the machine.
    if not has_mounts(directory):
        shutil.rmtree(directory, ignore_errors=True)


def has_mounts(directory: Path, mounts: Path = _MOUNTS) -> bool:
    """Tell whether anything is mounted below ``directory``; True also when it cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    inside = f"{directory.resolve()}/"
    # The fifth field is where it is mounted, with spaces and the like as octal escapes.
    points = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split()[4]) for line in lines)
    return any(point.startswith(inside) for point in points)
