# SPDX-License-Identifier: Apache-2.0
"""Cached: what the cache holds, who needs it, and what of it may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cache.shelf import Shelf
from coppice.errors import CoppiceError, NotFoundError, StateError
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.listed import recall_lists
from coppice.workflows.needed import Demand, Needer, Pruned, Pruning, demand_of
from coppice.workflows.obtain import cache_directory

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.cache.objects import CacheEntry
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.settings.model import Settings

SHORTEST_DIGEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedObject:
    """One object of the cache.

    Attributes:
        entry: What its record says.
        needers: Why it is needed.
        in_use: Whether a run uses it just now.
        unneeded_since: Since when nothing needs it, as far as that was noted.
    """

    entry: CacheEntry
    needers: tuple[Needer, ...]
    in_use: bool
    unneeded_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheContents:
    """What the cache holds.

    Attributes:
        objects: In the order of their digests.
        foreign: What lies among them and was not made by Coppice.
        unknown: Subscriptions of whose list nothing is known today, with why.
    """

    objects: tuple[CachedObject, ...]
    foreign: tuple[Path, ...]
    unknown: tuple[tuple[str, CoppiceError], ...]

    def named(self, digest: str) -> CachedObject:
        """Return the object that has a checksum which begins so.

        Raises:
            NotFoundError: There is none.
            StateError: There are several, or the digest is too short to mean one.
        """
        wanted = digest.rpartition(":")[2].lower()
        found = [
            each
            for each in self.objects
            if any(
                checksum.hexdigest.startswith(wanted)
                for checksum in (each.entry.checksum, *each.entry.also, *each.entry.answers)
            )
        ]
        if len(wanted) < SHORTEST_DIGEST:
            raise StateError(f"give at least {SHORTEST_DIGEST} digits of a checksum")
        if not found:
            raise NotFoundError(
                f"the cache has no file whose checksum begins with {digest[:140]!r}",
                resolution="`coppice cache list` shows those that there are.",
            )
        if len(found) > 1:
            raise StateError(
                f"{len(found)} files have a checksum that begins with {digest[:140]!r}",
                details="\n".join(str(each.entry.checksum) for each in found),
                resolution="Give more digits.",
            )
        return found[0]


def describe_cache(settings: Settings, database: Database, clock: Clock) -> CacheContents:
    """Return what the cache holds; no bytes of it are read, and nothing is fetched.

    Raises:
        DatabaseError: The database failed.
        StorageError: The cache cannot be read.
    """
    shelf = Shelf(cache_directory(settings))
    demand, pruning = _look(settings, database, clock, shelf)
    since = pruning.noted()
    objects = tuple(
        CachedObject(
            entry=entry,
            needers=demand.needers.get(entry.checksum, ()),
            in_use=shelf.leases.is_used(entry.checksum),
            unneeded_since=None if entry.checksum in demand.needers else since.get(entry.checksum),
        )
        for entry in shelf.layout.entries()
    )
    return CacheContents(objects=objects, foreign=shelf.layout.foreign(), unknown=demand.unknown)


def prune_cache(
    settings: Settings, database: Database, clock: Clock, *, at_once: bool = False, dry_run: bool = False
) -> tuple[Pruned, Demand]:
    """Remove what nothing has needed for long; nothing at all while a list is not known.

    Args:
        settings: All settings.
        database: Where it is kept what nothing needs.
        clock: Tells the time.
        at_once: Remove what nothing needs however lately it was needed.
        dry_run: Remove nothing, and return what would be.

    Raises:
        DatabaseError: The database failed.
        StorageError: Something cannot be removed.
    """
    shelf = Shelf(cache_directory(settings))
    demand, pruning = _look(settings, database, clock, shelf)
    if demand.unknown:
        return Pruned(), demand
    return pruning.prune(at_once=at_once, dry_run=dry_run), demand


def _look(settings: Settings, database: Database, clock: Clock, shelf: Shelf) -> tuple[Demand, Pruning]:
    now = clock.now()
    outcomes = recall_lists(SubscriptionStore(database), clock, settings.lists)
    demand = demand_of(outcomes, shelf, database, now)
    return demand, Pruning(settings, database, shelf, demand, now)
