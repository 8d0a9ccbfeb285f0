# SPDX-License-Identifier: Apache-2.0
"""Which means of shutting a program in work on this machine: found out once, by trying."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from functools import lru_cache

from coppice.cage import landlock
from coppice.cage.filter import has_filter
from coppice.cage.means import Means, Strength, Walls
from coppice.cage.room import Stay, stay
from coppice.errors import CoppiceError

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_SECONDS = 30.0


def find_means() -> Means:
    """Return the strongest means that work here; once they are found out, they stay for the life of the process."""
    with _lock:
        return _find_means(os.geteuid())


def forget_means() -> None:
    """Let what works be found out anew."""
    _find_means.cache_clear()


@lru_cache(maxsize=8)
def _find_means(user: int) -> Means:
    lacking: list[str] = []
    for candidate in _candidates(user):
        problem = _problem(candidate)
        if problem is None:
            found = replace(candidate, lacking=tuple(lacking))
            break
        lacking.append(f"{candidate.walls}: {problem}")
    else:
        found = Means(walls=Walls.NONE, is_filtered=False, lacking=tuple(lacking))
    if found.strength is Strength.LIMITS:
        _log.warning(
            "programs that read images cannot be shut in on this machine, only limited; `coppice doctor` says why"
        )
    return found


def _candidates(user: int) -> tuple[Means, ...]:
    is_filtered = has_filter()
    # Root's rights first: within a user namespace, root is kept from the files of others.
    rights = (True, False) if user == 0 else (False,)
    namespaces = [Means(walls=Walls.BUBBLEWRAP, is_privileged=right, is_filtered=is_filtered) for right in rights]
    others = [Means(walls=Walls.LANDLOCK, is_privileged=right) for right in rights]
    return (*namespaces, *((*others, Means(walls=Walls.NONE)) if is_filtered else ()))


def _problem(means: Means) -> str | None:
    """Return why these means cannot be had; None: they work."""
    if means.walls is Walls.LANDLOCK and landlock.version() < landlock.LEAST_VERSION:
        return "the kernel has none that is new enough (Linux 6.2), or it is switched off"
    try:
        done = stay(means, Stay(argv=("true",), timeout_seconds=_SECONDS))
    except CoppiceError as problem:
        return problem.message
    if done.returncode == 0:
        return None
    said = done.combined.strip().splitlines()
    return said[-1] if said else f"a trial ended with status {done.returncode}"
