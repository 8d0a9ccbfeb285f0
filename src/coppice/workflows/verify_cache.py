# SPDX-License-Identifier: Apache-2.0
"""Verify the cache: read every file again, move aside what is corrupt, fetch again what a list names."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import ChecksumMismatchError, CoppiceError, LockedError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.monitor import Unit
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.listed import recall_lists
from coppice.workflows.obtain import Obtainer
from coppice.workflows.select import select

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.cache.objects import CacheEntry
    from coppice.clock import Clock
    from coppice.cloud.model import DesiredImage
    from coppice.database import Database
    from coppice.http import Client
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.needed import Needer

_LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheVerification:
    """What was found.

    Attributes:
        intact: Objects whose bytes are what their name says.
        quarantined: Objects whose bytes were not; they were moved aside.
        fetched_again: Of these, those that are here again.
        busy: Objects that a run worked on; they were not read.
        foreign: What lies among the objects and was not made by Coppice.
        errors: One for each corrupt object that is not here again, and what hindered it.
    """

    intact: tuple[CacheEntry, ...]
    quarantined: tuple[CacheEntry, ...]
    fetched_again: tuple[CacheEntry, ...]
    busy: tuple[CacheEntry, ...]
    foreign: tuple[Path, ...]
    errors: tuple[CoppiceError, ...]


def verify_cache(
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    client: Client,
    fetch_again: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> CacheVerification:
    """Read every object again.

    Args:
        settings: All settings.
        database: Where subscriptions and the journal are.
        clock: Tells the time.
        monitor: Where progress is told.
        client: Fetches.
        fetch_again: Whether what is corrupt is fetched again where a list names it.
        sleep: Takes the place of `time.sleep`, with which the rate is kept.

    Raises:
        DatabaseError: The database failed.
        StorageError: A corrupt object cannot be moved aside.
    """
    outcomes = recall_lists(SubscriptionStore(database), clock, settings.lists)
    with Obtainer(
        settings=settings, client=client, clock=clock, database=database, outcomes=outcomes, monitor=monitor
    ) as obtainer:
        demand = obtainer.demand()
        desired = {image.key: image for one in select(outcomes, ()).lists for image in one.images}
        entries = tuple(obtainer.shelf.layout.entries())
        sorted_out = _Sorted(Journal(database), clock)
        rate = _Rate(settings.cache.verify_rate_bytes_per_second, clock, sleep)
        total = sum(entry.size_bytes for entry in entries)
        with monitor.task("verifying the cache", total=total, unit=Unit.BYTES) as task:

            def on_piece(count: int) -> None:
                task.advance(count)
                rate.pay(count)

            for entry in entries:
                try:
                    good = obtainer.shelf.check(entry.checksum, on_piece)
                except LockedError:
                    sorted_out.busy.append(entry)
                    continue
                if good:
                    sorted_out.intact.append(entry)
                    continue
                named = _named(demand.needers.get(entry.checksum, ()), desired) if fetch_again else None
                sorted_out.corrupt(entry, named, obtainer)
        return CacheVerification(
            intact=tuple(sorted_out.intact),
            quarantined=tuple(sorted_out.quarantined),
            fetched_again=tuple(sorted_out.fetched_again),
            busy=tuple(sorted_out.busy),
            foreign=obtainer.shelf.layout.foreign(),
            errors=tuple(sorted_out.errors),
        )


class _Sorted:
    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self.intact: list[CacheEntry] = []
        self.quarantined: list[CacheEntry] = []
        self.fetched_again: list[CacheEntry] = []
        self.busy: list[CacheEntry] = []
        self.errors: list[CoppiceError] = []

    def corrupt(self, entry: CacheEntry, named: DesiredImage | None, obtainer: Obtainer) -> None:
        """Tell of an object that was moved aside, and fetch it again where a list names it."""
        self.quarantined.append(entry)
        facts = {"digest": str(entry.checksum), "size_bytes": entry.size_bytes, "images": list(entry.images)}
        self._journal.record(EventKind.IMAGE_CORRUPT, subject=str(entry.checksum), facts=facts, at=self._clock.now())
        hint = "Check the disk."
        if named is not None:
            try:
                obtainer.fetch(named, whole=entry.held == "published")
            except CoppiceError as problem:
                hint = f"It could not be fetched again: {problem.message}"
                self.errors.append(problem)
            else:
                self.fetched_again.append(entry)
                return
        else:
            hint += " No list that is known today names it; it is fetched when one does."
        self.errors.append(
            ChecksumMismatchError(
                f"{entry.path} is not what its name says; it was moved aside",
                resolution=hint,
                context={"path": str(entry.path)},
            )
        )


class _Rate:
    """Keeps reading at a rate; None: at any."""

    def __init__(self, bytes_per_second: int | None, clock: Clock, sleep: Callable[[float], object]) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._begun = clock.monotonic()
        self._read = 0

    def pay(self, count: int) -> None:
        """Wait until so many more bytes may have been read."""
        if self._rate is None:
            return
        self._read += count
        while (ahead := self._read / self._rate - (self._clock.monotonic() - self._begun)) > 0:
            self._sleep(min(ahead, _LONGEST_PAUSE_SECONDS))


def _named(needers: tuple[Needer, ...], desired: dict[ImageKey, DesiredImage]) -> DesiredImage | None:
    for needer in needers:
        for key, image in desired.items():
            named = (needer.list_identifier, needer.image_identifier, needer.version)
            if named == (key.list_identifier, key.image_identifier, image.listed.version):
                return image
    return None
