# SPDX-License-Identifier: Apache-2.0
"""Old builds: of those that a later build of the same definition has followed, the images and trees go.

The catalogue holds the images of its versions by itself. What tells of a build stays: it is small, and says where the
files of what is built upon it came from.
"""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import NotFoundError, StorageError
from coppice.factory.build import is_intact, load_build_result
from coppice.factory.lock import is_free, locked
from coppice.workflows.build import factory_root

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.factory.model import BuildResult
    from coppice.settings.model import Settings

FOLLOWED_FOR = timedelta(days=1)
"""No build takes so long: whatever began upon an old build has ended."""
_KEY = re.compile(r"[0-9a-f]{64}")


def forget_old_builds(settings: Settings, clock: Clock) -> tuple[str, ...]:
    """Remove images and trees of builds that a later one has followed for a day; return their keys.

    Raises:
        StorageError: They cannot be removed.
    """
    root = factory_root(settings) / "builds"
    newest: dict[str, BuildResult] = {}
    found = _builds(root)
    for each in found:
        known = newest.get(each.definition.name)
        if known is None or each.provenance.started_at > known.provenance.started_at:
            newest[each.definition.name] = each
    gone: list[str] = []
    for each in found:
        follower = newest[each.definition.name]
        lock = root / f"{each.key}.lock"
        is_old = follower.key != each.key and follower.provenance.started_at <= clock.now() - FOLLOWED_FOR
        if is_old and is_free(lock):
            with locked(lock):
                _empty(each)
            gone.append(each.key)
    return tuple(gone)


def _builds(root: Path) -> list[BuildResult]:
    try:
        names = sorted(path.name for path in root.iterdir() if _KEY.fullmatch(path.name))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            result = load_build_result(root / name)
        except (NotFoundError, StorageError):
            # Not a whole build: whoever builds it next makes it anew.
            continue
        if result.key == name and is_intact(result, rehash=False):
            found.append(result)
    return found


def _empty(result: BuildResult) -> None:
    for path in (*(built.path for built in result.images), result.tree):
        if path is None or path.parent != result.directory:
            continue
        with storage_errors("removing", path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
