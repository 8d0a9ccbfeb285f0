# SPDX-License-Identifier: Apache-2.0
"""Obtain: from an image that a list names to the file that a cloud takes: fetch → verify → convert.

What a list may name, and what its servers are shown, comes from those who follow that list, and from nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cache.store import ImageCache
from coppice.conversion.convert import Converter
from coppice.conversion.model import ConversionLimits
from coppice.events.model import EventKind
from coppice.http.access import Access

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coppice.cache.model import CachedImage
    from coppice.clock import Clock
    from coppice.cloud.model import DesiredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.events.journal import Journal
    from coppice.http import Client
    from coppice.model.identifiers import ListIdentifier
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.refresh import ListOutcome

_LOCAL_DRIVERS = frozenset({"catalogue", "descriptors"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """How what the lists name may be fetched.

    Attributes:
        local: Lists that come from this machine alone; only such may name files of this machine.
        accesses: How the servers of each list are approached: as those who follow it said, and never for another list.
    """

    local: frozenset[ListIdentifier] = frozenset()
    accesses: Mapping[ListIdentifier, Sequence[Access]] = field(default_factory=dict)


def approach_of(outcomes: Iterable[ListOutcome]) -> Approach:
    """Return how what these lists name may be fetched."""
    accesses: dict[ListIdentifier, list[Access]] = {}
    # A list that is followed at two places counts as local only when both are.
    local: set[ListIdentifier] = set()
    distant: set[ListIdentifier] = set()
    for outcome in outcomes:
        if outcome.verified is None:
            continue
        one, identifier = outcome.subscription, outcome.verified.content.identifier
        is_local = one.uri.startswith("file:") or one.source.driver in _LOCAL_DRIVERS
        (local if is_local else distant).add(identifier)
        access = Access(url=one.uri, credential=one.credential, server_anchors=one.server_anchors)
        accesses.setdefault(identifier, []).append(access)
    return Approach(local=frozenset(local - distant), accesses=accesses)


def open_cache(settings: Settings, client: Client, clock: Clock, *, allow_file_uris: bool = False) -> ImageCache:
    """Return the site's cache."""
    return ImageCache(settings.state_directory / "cache", client=client, clock=clock, allow_file_uris=allow_file_uris)


def open_converter(settings: Settings) -> Converter:
    """Return the site's converter."""
    return Converter(
        settings.state_directory / "conversion",
        ConversionLimits(
            maximum_virtual_size_bytes=settings.conversion.maximum_virtual_size_bytes,
            memory_bytes=settings.conversion.memory_bytes,
            timeout_seconds=settings.conversion.timeout_seconds,
        ),
    )


class Obtainer:
    """Gets images for one run.

    Args:
        settings: All settings.
        client: Fetches.
        clock: Tells the time.
        journal: Is told of each image that came.
        approach: How what the lists name may be fetched.
    """

    def __init__(
        self, *, settings: Settings, client: Client, clock: Clock, journal: Journal, approach: Approach
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._approach = approach
        self._caches = {
            is_local: open_cache(settings, client, clock, allow_file_uris=is_local) for is_local in (True, False)
        }
        self._converter = open_converter(settings)

    def fetch(self, desired: DesiredImage, monitor: Monitor) -> CachedImage:
        """Return the image's verified bytes; they are fetched if they are not here."""
        followed = desired.key.list_identifier
        cached = self._caches[followed in self._approach.local].obtain(
            desired.key, desired.listed, monitor, accesses=self._approach.accesses.get(followed, ())
        )
        if not cached.reused:
            facts = {"version": cached.version, "checksum": str(cached.checksum), "path": str(cached.path)}
            now = self._clock.now()
            self._journal.record(EventKind.IMAGE_NEW, subject=str(desired.key), facts=facts, at=now)
            self._journal.record(EventKind.IMAGE_CACHED, subject=str(desired.key), facts=facts, at=now)
        return cached

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        """Return the image in a format of ``formats``."""
        return self._converter.convert(self.fetch(desired, monitor), formats, monitor)
