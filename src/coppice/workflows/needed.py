# SPDX-License-Identifier: Apache-2.0
"""Needed: who needs which file of the cache, and what of it may be removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.cache.assembly import sweep_assemblies
from coppice.cache.handed import HandedOut
from coppice.cache.handout import HandOut
from coppice.cache.locks import Leases
from coppice.cache.needs import Needs
from coppice.conversion.bound import keep_within, prune_guest_bytes, prune_results, sweep_leftovers
from coppice.errors import CoppiceError, ExpiredListError
from coppice.model.identifiers import ImageKey
from coppice.workflows.listed import maybe_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.cache.objects import CacheEntry
    from coppice.cache.shelf import Shelf
    from coppice.database import Database
    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.settings.model import Settings
    from coppice.workflows.refresh import ListOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Needer:
    """Why an object is needed.

    Attributes:
        by: ``subscription``, or ``handed-out``.
        subscription: Its name; None where hooks have the image, whatever became of the subscription.
        list_identifier: The list.
        list_version: Its version; None: not known today.
        image_identifier: The image.
        version: Its version.
        title: Its title.
    """

    by: str
    subscription: str | None
    list_identifier: str
    list_version: str | None
    image_identifier: str
    version: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What of the cache is needed.

    Attributes:
        needers: Of each object that is here, by its sha512.
        wanted: Checksums, as lists have them, of all that is wanted, whether it is here or not.
        images: Keys of all images that are wanted, as records have them.
        unknown: Subscriptions of whose list nothing is known today, with why.
    """

    needers: Mapping[Checksum, tuple[Needer, ...]] = field(default_factory=dict)
    wanted: frozenset[Checksum] = frozenset()
    images: frozenset[str] = frozenset()
    unknown: tuple[tuple[str, CoppiceError], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        removed: Objects.
        files: Other files of the cache: half-fetched, moved aside, expired, made for deltas alone.
        errors: Why some could not be removed.
    """

    removed: tuple[CacheEntry, ...] = ()
    files: tuple[Path, ...] = ()
    errors: tuple[CoppiceError, ...] = ()


def demand_of(outcomes: Iterable[ListOutcome], shelf: Shelf, database: Database, now: datetime) -> Demand:
    """Return what of the cache is needed, as far as the lists are known.

    A list that has expired needs nothing any more; one that is distrusted neither.

    Raises:
        DatabaseError: The database failed.
    """
    needers: dict[Checksum, list[Needer]] = {}
    wanted: set[Checksum] = set()
    images: set[str] = set()
    unknown: list[tuple[str, CoppiceError]] = []
    doubted: set[str | None] = set()
    for outcome in outcomes:
        name = outcome.subscription.name
        if outcome.verified is None:
            if not outcome.distrusted and not isinstance(outcome.error, ExpiredListError):
                unknown.append((name, outcome.error or CoppiceError("its list is not looked at in this run")))
                doubted.add(outcome.subscription.list_identifier)
            continue
        content = outcome.verified.content
        try:
            found = maybe_wanted(outcome)
        except CoppiceError as problem:
            unknown.append((name, problem))
            doubted.add(content.identifier)
            continue
        for listed in found:
            if listed.expires is not None and listed.expires <= now:
                continue
            wanted.add(listed.checksum)
            images.add(str(ImageKey(content.identifier, listed.identifier)))
            entry = _entry(shelf, listed)
            if entry is not None:
                needers.setdefault(entry.checksum, []).append(
                    Needer(
                        by="subscription",
                        subscription=name,
                        list_identifier=content.identifier,
                        list_version=content.version,
                        image_identifier=listed.identifier,
                        version=listed.version,
                        title=listed.title,
                    )
                )
    for checksum, needer in _handed_out(database, images, doubted):
        needers.setdefault(checksum, []).append(needer)
    return Demand(
        needers={checksum: tuple(found) for checksum, found in needers.items()},
        wanted=frozenset(wanted),
        images=frozenset(images),
        unknown=tuple(unknown),
    )


class Pruning:
    """Says what may be removed, and removes it.

    Args:
        settings: All settings.
        database: Where it is kept what nothing needs.
        shelf: Of the cache.
        demand: What is needed.
        now: This instant.
    """

    def __init__(self, settings: Settings, database: Database, shelf: Shelf, demand: Demand, now: datetime) -> None:
        self._settings = settings
        self._needs = Needs(database)
        self._shelf = shelf
        self.demand = demand
        self._now = now

    def unneeded(self) -> Mapping[Checksum, datetime]:
        """Return what nothing needs and since when, what was needed least recently first; seeds for deltas last.

        Raises:
            DatabaseError: The database failed.
        """
        held = {entry.checksum: entry for entry in self._shelf.layout.entries()}
        since = self._needs.note(
            held.keys(), self.demand.needers.keys(), all_known=not self.demand.unknown, now=self._now
        )
        # An earlier version of what is wanted may save most of the next one's bytes.
        order = sorted(
            (each for each in since if each in held),
            key=lambda each: (bool(self.demand.images.intersection(held[each].images)), since[each]),
        )
        return {each: since[each] for each in order}

    def noted(self) -> Mapping[Checksum, datetime]:
        """Return what was noted before, and note nothing.

        Raises:
            DatabaseError: The database failed.
        """
        return self._needs.unneeded()

    def removable(self) -> Iterable[Checksum]:
        """Yield what may be removed when room is short, in the order in which it goes.

        Raises:
            DatabaseError: The database failed.
        """
        return tuple(self.unneeded())

    def prune(self, *, at_once: bool = False, dry_run: bool = False) -> Pruned:
        """Remove what nothing has needed for `cache.keep_unneeded_days`.

        Args:
            at_once: Remove what nothing needs however lately it was needed.
            dry_run: Remove nothing; return what would be.

        Raises:
            DatabaseError: The database failed.
        """
        keep = timedelta(0) if at_once else timedelta(days=self._settings.cache.keep_unneeded_days)
        due = [each for each, since in self.unneeded().items() if self._now - since >= keep]
        if dry_run:
            found = (self._shelf.layout.entry(each) for each in due if not self._shelf.leases.is_used(each))
            return Pruned(removed=tuple(entry for entry in found if entry is not None))
        seconds = keep.total_seconds()
        removed: list[CacheEntry] = []
        files: list[Path] = []
        errors: list[CoppiceError] = []
        shelf, wanted = self._shelf, self.demand.wanted
        steps: list[Callable[[], Iterable[Path]]] = [
            lambda: shelf.old_quarantine(older_than_seconds=seconds),
            lambda: HandOut(shelf).prune(taken_back_before=self._now - keep),
            lambda: sweep_assemblies(shelf.layout.directory),
            *self._conversion_steps(keep),
        ]
        if not self.demand.unknown:
            steps.append(lambda: shelf.idle_partials(keep=wanted, older_than_seconds=seconds))
        # What cannot be removed today stops nothing; the next run tries again.
        for each in due:
            try:
                entry = shelf.drop(each)
            except CoppiceError as problem:
                errors.append(problem)
            else:
                removed += [] if entry is None else [entry]
        for step in steps:
            try:
                files += step()
            except CoppiceError as problem:
                errors.append(problem)
        return Pruned(removed=tuple(removed), files=tuple(files), errors=tuple(errors))

    def _conversion_steps(self, keep: timedelta) -> Iterator[Callable[[], Iterable[Path]]]:
        """Yield what removes converted files that nothing needs; those that a run uses are leased, and stay."""
        directory = self._settings.state_directory / "conversion"
        leases = Leases(directory / "leases")
        yield lambda: sweep_leftovers(directory, leases)
        yield lambda: prune_guest_bytes(directory, leases)
        if not self.demand.unknown:
            yield lambda: prune_results(directory, leases, needed=self.demand.needers.keys(), keep=keep)
        yield lambda: keep_within(directory, self._settings.conversion.quota_bytes, leases)


def _handed_out(
    database: Database, images: Collection[str], doubted: Collection[str | None]
) -> Iterator[tuple[Checksum, Needer]]:
    """Yield what hooks have and keep, as far as is known: what is withdrawn makes room for what comes."""
    for each in HandedOut(database).all():
        # A subscription that does not know its list yet may be to any list.
        if str(each.key) not in images and None not in doubted and each.key.list_identifier not in doubted:
            continue
        yield (
            each.checksum,
            Needer(
                by="handed-out",
                subscription=None,
                list_identifier=each.key.list_identifier,
                list_version=None,
                image_identifier=each.key.image_identifier,
                version=each.version,
            ),
        )


def _entry(shelf: Shelf, listed: ListedImage) -> CacheEntry | None:
    entry = shelf.layout.find(listed.checksum)
    if entry is None and listed.delta is not None:
        entry = shelf.layout.entry(listed.delta.guest_checksum)
    return entry
