# SPDX-License-Identifier: Apache-2.0
"""What changed among the packages between two builds: pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.formats.deb_version import DebVersion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.factory.model import Package


class Change(StrEnum):
    """What became of a package."""

    ADDED = "added"
    REMOVED = "removed"
    UPDATED = "updated"
    DOWNGRADED = "downgraded"
    CHANGED = "changed"
    """Another version, of which it cannot be told whether it is newer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChange:
    """A package that is not the same in two builds.

    Attributes:
        name: Of the package.
        architecture: Of the newer one, where there is one.
        change: What became of it.
        before: Its version before; None: it was not there.
        after: Its version now; None: it is gone.
    """

    name: str
    architecture: str
    change: Change
    before: str | None
    after: str | None


def package_difference(before: Iterable[Package], after: Iterable[Package]) -> tuple[PackageChange, ...]:
    """Return what changed, by name: a package that stayed the same is not in it.

    A package that is there for another architecture than before counts as changed, not as another one.
    """
    older = {(package.name, package.architecture): package for package in before}
    newer = {(package.name, package.architecture): package for package in after}
    gone = {key: older[key] for key in older.keys() - newer.keys()}
    come = {key: newer[key] for key in newer.keys() - older.keys()}
    pairs: list[tuple[Package | None, Package | None]] = [
        (older[key], newer[key]) for key in older.keys() & newer.keys()
    ]
    for name in {name for name, _ in gone} & {name for name, _ in come}:
        old, new = ([key for key in side if key[0] == name] for side in (gone, come))
        if len(old) == len(new) == 1:
            pairs.append((gone.pop(old[0]), come.pop(new[0])))
    pairs += [(package, None) for package in gone.values()]
    pairs += [(None, package) for package in come.values()]
    changes = [_change(old, new) for old, new in pairs]
    return tuple(
        sorted((each for each in changes if each is not None), key=lambda each: (each.name, each.architecture))
    )


def _change(before: Package | None, after: Package | None) -> PackageChange | None:
    known = after or before
    assert known is not None  # noqa: S101 - one of the two is there
    if before is not None and after is not None:
        if (before.version, before.architecture) == (after.version, after.architecture):
            return None
        kind = _direction(before, after)
    else:
        kind = Change.ADDED if before is None else Change.REMOVED
    return PackageChange(
        name=known.name,
        architecture=known.architecture,
        change=kind,
        before=None if before is None else before.version,
        after=None if after is None else after.version,
    )


def _direction(before: Package, after: Package) -> Change:
    if (before.manager, after.manager) != ("deb", "deb"):
        return Change.CHANGED
    try:
        older, newer = DebVersion(before.version), DebVersion(after.version)
    except ValueError:
        return Change.CHANGED
    if older == newer:
        return Change.CHANGED
    return Change.UPDATED if older < newer else Change.DOWNGRADED
