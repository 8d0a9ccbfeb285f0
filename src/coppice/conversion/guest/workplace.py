# SPDX-License-Identifier: Apache-2.0
"""A directory for the looks at one disk, gone when they are done; what killed looks left is removed by later ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "guest-"
_YOUNG_SECONDS = 60.0
"""One that is as young as that may have no lock yet."""


@contextmanager
def workplace_below(directory: Path) -> Iterator[Path]:
    """Give a directory below another one, which is made when needed.

    Raises:
        StorageError: It cannot be made, or what is done with it meets an error of the operating system.
    """
    with atomic.storage_errors("making a workplace in", directory):
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A lock ends with the process that holds it: what is there without one is nobody's.
        fcntl.flock(handle, fcntl.LOCK_SH)
        with atomic.storage_errors("looking into a disk in", directory):
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _sweep(directory: Path) -> None:
    for place in sorted(directory.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            if place.is_symlink() or time.time() - place.stat().st_mtime < _YOUNG_SECONDS:
                continue
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(handle)
