# SPDX-License-Identifier: Apache-2.0
"""Obtain: from an image that a list names to the file that a cloud takes: fetch → verify → convert.

What a list may name, and what its servers are shown, comes from those who follow that list, and from nobody else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from coppice.cache.attempts import FetchAttempts
from coppice.cache.locks import Leases
from coppice.cache.shelf import Shelf
from coppice.cache.store import ImageCache
from coppice.conversion.convert import Converter
from coppice.conversion.declared import DeclaredFormat
from coppice.conversion.options import Options, Qcow2Compression
from coppice.errors import CoppiceError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.events.payload import image_facts
from coppice.http.access import Access
from coppice.model.version import Version
from coppice.workflows.image_limits import limits_of
from coppice.workflows.needed import Demand, Pruning, demand_of
from coppice.workflows.prefetch import Prefetch
from coppice.workflows.seeds import SeedFinder
from coppice.workflows.supply import Supply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.cache.objects import CacheEntry
    from coppice.clock import Clock
    from coppice.cloud.model import DesiredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.database import Database
    from coppice.http import Client
    from coppice.imagelist.model import ImageList
    from coppice.model.identifiers import ListIdentifier
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.refresh import ListOutcome

_LOCAL_DRIVERS = frozenset({"catalogue", "descriptors"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """How what the lists name may be fetched, and what is told of it.

    Attributes:
        local: Lists that come from this machine alone; only such may name files of this machine.
        accesses: How the servers of each list are approached: as those who follow it said, and never for another list.
        lists: The highest version that is known of each list, with a subscription that follows it.
    """

    local: frozenset[ListIdentifier] = frozenset()
    accesses: Mapping[ListIdentifier, Sequence[Access]] = field(default_factory=dict)
    lists: Mapping[ListIdentifier, tuple[str, ImageList]] = field(default_factory=dict)


def approach_of(outcomes: Iterable[ListOutcome]) -> Approach:
    """Return how what these lists name may be fetched."""
    accesses: dict[ListIdentifier, list[Access]] = {}
    lists: dict[ListIdentifier, tuple[str, ImageList]] = {}
    # A list that is followed at two places counts as local only when both are.
    local: set[ListIdentifier] = set()
    distant: set[ListIdentifier] = set()
    for outcome in outcomes:
        if outcome.verified is None:
            continue
        one, content = outcome.subscription, outcome.verified.content
        is_local = one.uri.startswith("file:") or one.source.driver in _LOCAL_DRIVERS
        (local if is_local else distant).add(content.identifier)
        access = Access(url=one.uri, credential=one.credential, server_anchors=one.server_anchors)
        accesses.setdefault(content.identifier, []).append(access)
        known = lists.get(content.identifier)
        if known is None or Version(content.version) > Version(known[1].version):
            lists[content.identifier] = (one.name, content)
    return Approach(local=frozenset(local - distant), accesses=accesses, lists=lists)


def cache_directory(settings: Settings) -> Path:
    """Return where the site's cache is."""
    return settings.state_directory / "cache"


def conversion_directory(settings: Settings) -> Path:
    """Return where what was converted is kept."""
    return settings.state_directory / "conversion"


def conversion_leases(settings: Settings) -> Leases:
    """Return what tells, and asks, which converted files are used."""
    return Leases(conversion_directory(settings) / "leases")


def open_converter(settings: Settings, leases: Leases | None = None) -> Converter:
    """Return the site's converter.

    Args:
        settings: All settings.
        leases: Of what it gives; None: its own, which end with it.
    """
    given = settings.conversion
    return Converter(
        conversion_directory(settings),
        limits_of(given),
        leases=leases or conversion_leases(settings),
        options=Options(qcow2_compression=Qcow2Compression(given.qcow2_compression), require_cage=given.require_cage),
        quota_bytes=given.quota_bytes,
        declared_format=DeclaredFormat(given.declared_format),
    )


class Obtainer:
    """Gets images for one run; use it as a context, or close it: until then, nobody removes what it got.

    Args:
        settings: All settings.
        client: Fetches.
        clock: Tells the time.
        database: Where the journal is, and what failed before.
        outcomes: What is known of every subscription's list.
        monitor: Where progress is told.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        client: Client,
        clock: Clock,
        database: Database,
        outcomes: Sequence[ListOutcome],
        monitor: Monitor,
    ) -> None:
        self._clock = clock
        self._database = database
        self._settings = settings
        self._outcomes = outcomes
        self._monitor = monitor
        self.approach = approach_of(outcomes)
        self.shelf = Shelf(cache_directory(settings))
        self.attempts = FetchAttempts(database, settings.transfer.image_attempts)
        self._journal = Journal(database)
        self._conversions = conversion_leases(settings)
        self._converter = open_converter(settings, self._conversions)
        self._differing: set[tuple[str, str, str]] = set()
        self._differing_lock = threading.Lock()
        seeds = SeedFinder(self.shelf, self._converter, monitor)
        self._caches = {
            is_local: ImageCache(
                cache_directory(settings),
                client=client,
                clock=clock,
                allow_file_uris=is_local,
                quota_bytes=settings.cache.quota_bytes,
                removable=lambda: self.pruning().removable(),
                seeds=seeds.find if settings.cache.deltas else None,
                maximum_disk_bytes=settings.conversion.maximum_virtual_size_bytes,
                shelf=self.shelf,
            )
            for is_local in (True, False)
        }
        self._prefetch = Prefetch(self.fetch, settings.transfer.images_parallel)
        self.supply = Supply(self._prefetch, self.obtain, monitor)

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was got."""
        self.close()

    def close(self) -> None:
        """Give back what was got: from now on it may be removed."""
        self.supply.stop()
        self.shelf.leases.close()
        self._conversions.close()

    def demand(self) -> Demand:
        """Return what of the cache is needed now.

        Raises:
            DatabaseError: The database failed.
        """
        return demand_of(self._outcomes, self.shelf, self._database, self._clock.now())

    def pruning(self) -> Pruning:
        """Return what may be removed now.

        Raises:
            DatabaseError: The database failed.
        """
        return Pruning(self._settings, self._database, self.shelf, self.demand(), self._clock.now())

    def find(self, desired: DesiredImage, *, whole: bool = False) -> CacheEntry | None:
        """Return what is held of an image; its bytes are not read."""
        return self._caches[False].find(desired.listed, whole=whole)

    def facts(self, desired: DesiredImage, **more: object) -> dict[str, object]:
        """Return what is told of an image."""
        followed = self.approach.lists.get(desired.key.list_identifier)
        if followed is None:
            return {"list": desired.key.list_identifier, "image": desired.key.image_identifier, **more}
        name, content = followed
        return image_facts(name, content, desired.listed, **more)  # type: ignore[arg-type]

    def fetch(self, desired: DesiredImage, *, whole: bool = False, told: bool = True) -> CachedImage:
        """Return the image's verified bytes; they are fetched if they are not here.

        Args:
            desired: Which image.
            whole: Whether the published file is wanted, and no other form of the disk will do.
            told: Whether the journal is told that it came; a cache run tells so itself.

        Raises:
            GivenUpError: It failed in too many runs.
            CoppiceError: It cannot be had; see `ImageCache.obtain`.
        """
        key, listed = desired.key, desired.listed
        if self.find(desired, whole=whole) is None:
            self.attempts.check(key, listed, desired.list_version, self._clock.now())
        partial = self.shelf.layout.partial_path(listed.checksum)
        before = _progress(partial)
        try:
            cached = self._caches[key.list_identifier in self.approach.local].obtain(
                key,
                listed,
                self._monitor,
                accesses=self.approach.accesses.get(key.list_identifier, ()),
                whole=whole,
            )
        except CoppiceError as problem:
            self.attempts.failed(
                key,
                listed,
                desired.list_version,
                problem,
                got_further=_progress(partial) > before,
                facts=self.facts(desired),
                now=self._clock.now(),
            )
            raise
        self.attempts.succeeded(key)
        if told and not cached.reused:
            facts = self.facts(desired, sha512=_sha512(cached), **how_it_came(cached))
            self._journal.record(EventKind.IMAGE_CACHED, subject=str(key), facts=facts, at=self._clock.now())
        return cached

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        """Return the image in a format of ``formats``.

        Raises:
            CoppiceError: It cannot be had, or not be converted.
        """
        listed = desired.listed
        converted = self._converter.convert(
            self._prefetch.result(desired), formats, monitor, name=listed.title, requirements=listed.requirements
        )
        if converted.differs is not None and self._is_news(desired, converted):
            monitor.message(f"{converted.differs}; what it is counts")
            facts = self.facts(desired, differs=converted.differs)
            key = str(desired.key)
            self._journal.record(EventKind.IMAGE_DIFFERS, subject=key, facts=facts, at=self._clock.now())
        return converted

    def _is_news(self, desired: DesiredImage, converted: ConvertedImage) -> bool:
        """Tell whether this is the first time that an image is converted in this run, however many clouds get it."""
        told = (str(desired.key), desired.listed.version, str(converted.source_checksum))
        with self._differing_lock:
            is_news = told not in self._differing
            self._differing.add(told)
        return is_news


def how_it_came(cached: CachedImage) -> dict[str, object]:
    """Return the facts of an event about bytes that came."""
    return {
        "path": str(cached.path),
        "held": str(cached.held),
        "method": cached.method,
        "fetched_bytes": cached.fetched_bytes,
        "fallback": cached.fallback,
    }


def _sha512(cached: CachedImage) -> object:
    return cached.checksum if cached.held == "published" else None


def _progress(path: Path) -> int:
    """Return what grows while a file comes: its length, and what is filled of it where its end came first."""
    try:
        state = path.lstat()
    except OSError:
        return 0
    return state.st_size + state.st_blocks * 512
