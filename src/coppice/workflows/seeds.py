# SPDX-License-Identifier: Apache-2.0
"""Seeds: which disks that are held here an image may have much in common with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.assembly import Seed
from coppice.cache.model import Held
from coppice.conversion.model import Source
from coppice.errors import CoppiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cache.objects import CacheEntry
    from coppice.cache.shelf import Shelf
    from coppice.conversion.convert import Converter
    from coppice.imagelist.model import ListedImage
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor

MAXIMUM_SEEDS = 6
MAXIMUM_CONVERTED = 2
"""Of published files that are no raw disks: each is converted once to serve."""


class SeedFinder:
    """Finds seeds among what the cache holds: what a patch starts from, versions of the same image, the newest others.

    Args:
        shelf: Of the cache.
        converter: Makes raw disks of published files.
        monitor: Where progress is told.
    """

    def __init__(self, shelf: Shelf, converter: Converter, monitor: Monitor) -> None:
        self._shelf = shelf
        self._converter = converter
        self._monitor = monitor

    def find(self, key: ImageKey, listed: ListedImage) -> Sequence[Seed]:
        """Return the seeds of an image, most promising first; what cannot serve is left out."""
        origins = {patch.origin for patch in listed.delta.patches} if listed.delta is not None else set()
        entries = sorted(self._shelf.layout.entries(), key=lambda entry: entry.fetched_at, reverse=True)
        entries.sort(key=lambda entry: (entry.checksum not in origins, str(key) not in entry.images))
        seeds: list[Seed] = []
        converted = 0
        for entry in entries:
            if len(seeds) >= MAXIMUM_SEEDS:
                break
            if entry.held is Held.PUBLISHED and converted >= MAXIMUM_CONVERTED:
                continue
            seed = self._seed(entry)
            if seed is not None:
                seeds.append(seed)
                converted += seed.path != entry.path
        return tuple(seeds)

    def _seed(self, entry: CacheEntry) -> Seed | None:
        if entry.held is Held.GUEST:
            return Seed(path=entry.path, checksum=entry.checksum)
        source = Source(
            path=entry.path,
            checksum=entry.checksum,
            size_bytes=entry.size_bytes,
            name=f"{entry.checksum.hexdigest[:16]}…",
            fingerprint=entry.fingerprint,
        )
        try:
            made = self._converter.guest_bytes(source, self._monitor)
        except CoppiceError:
            # A file that no tool may open, or for whose disk there is no room, serves nothing; nothing is lost by it.
            return None
        return Seed(path=made.path, checksum=made.checksum)
