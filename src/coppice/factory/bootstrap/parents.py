# SPDX-License-Identifier: Apache-2.0
"""Trees of releases kept for reuse: an appliance without a parent is built upon the base packages of its release.

A kept tree is never trusted to be fresh: what is built upon it is first brought up to date. What has changed since it
was made is in the next layer; when it is made anew, every block of the images that are built upon it may move.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING

from coppice.atomic import replacing, sweep_partials
from coppice.factory.lock import locked
from coppice.factory.workplace import sweep_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.factory.bootstrap.suites import Suite

MAX_AGE_SECONDS = 30 * 24 * 3600.0
_ABANDONED_AFTER_SECONDS = 24 * 3600.0


def parent_key(suite: Suite, sources: tuple[str, ...], builder: str, keys: str = "") -> str:
    """Return the sha256 of all that decides a parent's content, but for the day it was made.

    Args:
        suite: The release.
        sources: Where its packages come from.
        builder: Name and version of the builder.
        keys: What the keys are known by that vouch for the packages; empty: they are the distribution's.
    """
    said = {
        "suite": suite.name,
        "epoch": suite.epoch,
        "sources": sources,
        "packages": suite.base_packages,
        "builder": builder,
        "keys": keys,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def obtain_parent(
    directory: Path,
    key: str,
    make: Callable[[Path], None],
    *,
    on_wait: Callable[[], None],
) -> tuple[Path, bool]:
    """Return the first layer kept under ``key`` in ``directory``, made by ``make`` where it is missing or old.

    Returns:
        Its path, and whether it was made now.

    Raises:
        BuildError: It could not be made.
        StorageError: It could not be kept.
    """
    path = directory / f"{key}.tar.zst"
    with locked(directory / f"{key}.lock", on_wait=on_wait):
        if _is_young(path):
            return path, False
        sweep_interrupted(path)
        sweep_partials(directory, older_than_seconds=_ABANDONED_AFTER_SECONDS)
        _forget_old(directory)
        with replacing(path) as temporary:
            make(temporary)
        return path, True


def forget_parent(directory: Path, key: str) -> None:
    """Have the tree under ``key`` made anew when it is next asked for."""
    with contextlib.suppress(FileNotFoundError):
        (directory / f"{key}.tar.zst").unlink()


def _is_young(path: Path, limit_seconds: float = MAX_AGE_SECONDS) -> bool:
    try:
        return time.time() - path.stat().st_mtime < limit_seconds
    except FileNotFoundError:
        return False


def _forget_old(directory: Path) -> None:
    for path in (*directory.glob("*.tar.zst"), *directory.glob("*.tar")):
        # No build starts from one of these any more, and one that did has its own name for it.
        if not _is_young(path, MAX_AGE_SECONDS + _ABANDONED_AFTER_SECONDS):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    _forget_unused(directory / "packages", lambda path: path.stat().st_mtime)
    # These have the times of their servers.
    _forget_unused(directory / "lists", lambda path: path.stat().st_ctime)


def _forget_unused(directory: Path, since: Callable[[Path], float]) -> None:
    oldest = time.time() - MAX_AGE_SECONDS - _ABANDONED_AFTER_SECONDS
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and since(path) < oldest:
                path.unlink()
