# SPDX-License-Identifier: Apache-2.0
"""`ImageCache`: brings the bytes of a listed image here, and lets nothing be seen that is not what was signed.

Bytes are gathered in ``partial/``, verified, and renamed to the place of their sha512, so that the same bytes are here
once whoever lists them. What a caller gets was hashed by its own process; what nobody asks for is not read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.assembly import sweep_assemblies
from coppice.cache.bring import Arrived, Errand, bring_assembled, bring_whole, left_assembled, wrong_size
from coppice.cache.handout import HandOut
from coppice.cache.model import CachedImage, Held
from coppice.cache.objects import ALGORITHM, CacheEntry, answering, public_uri
from coppice.cache.partial import progress_path
from coppice.cache.room import Room
from coppice.cache.shelf import Shelf
from coppice.clock import Clock, SystemClock
from coppice.errors import DeltaError, LockedError, NoSpaceError, QuotaError, TransferError, TransferTooLargeError
from coppice.formats.delta_limits import BLOCK_BYTES, HASH_BYTES
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from coppice.cache.assembly import Seed
    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor

    Seeds = Callable[[ImageKey, ListedImage], Sequence[Seed]]
    """Says which disks that are held here an image may have much in common with, most promising first."""
    Removable = Callable[[], Iterable[Checksum]]
    """Says which objects nothing needs, what was needed least recently first."""

MAXIMUM_DISK_BYTES = 1024**4
SECOND_LOCK_SECONDS = 300.0
"""How long a run that holds a lock waits for another one. Lists say which digests go together, and may say it in a
circle: then nobody waits for long, and what is here in another form is fetched instead."""


def _nothing() -> Iterable[Checksum]:
    return ()


class ImageCache:
    """A directory of verified image files, addressed by content, shared by any number of runs at once.

    Args:
        directory: Where the files are; made when first needed.
        client: Fetches.
        clock: Tells when.
        allow_file_uris: Whether ``file://`` URIs may be read; only where lists come from this machine.
        quota_bytes: Most bytes that the cache may hold; None: as much as fits.
        removable: What may be removed when room is short.
        seeds: What deltas may start from; None: no deltas are used.
        maximum_disk_bytes: Largest disk that is put together from a delta.
        shelf: Where its objects are, when other caches of this run share them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        client: Client,
        clock: Clock | None = None,
        allow_file_uris: bool = False,
        quota_bytes: int | None = None,
        removable: Removable = _nothing,
        seeds: Seeds | None = None,
        maximum_disk_bytes: int = MAXIMUM_DISK_BYTES,
        shelf: Shelf | None = None,
    ) -> None:
        self.directory = directory
        self.shelf = shelf or Shelf(directory)
        self.layout = self.shelf.layout
        self._client = client
        self._clock = clock or SystemClock()
        self._allow_file_uris = allow_file_uris
        self._removable = removable
        self._seeds = seeds
        self._maximum_disk_bytes = maximum_disk_bytes
        self._room = Room(self.layout, quota_bytes=quota_bytes, make_room=self._make_room)

    def close(self) -> None:
        """Give back what was used: from now on it may be removed."""
        self.shelf.leases.close()

    def entries(self) -> tuple[CacheEntry, ...]:
        """Return what this cache holds; no bytes are read."""
        return tuple(self.layout.entries())

    def find(self, listed: ListedImage, *, whole: bool = False) -> CacheEntry | None:
        """Return what is held of an image; its bytes are not read.

        Args:
            listed: What its list says of it.
            whole: Whether the published file is wanted, and no other form of the disk will do.
        """
        entry = self.layout.find(listed.checksum)
        if entry is None and listed.delta is not None and not whole:
            entry = self.layout.entry(listed.delta.guest_checksum)
        return entry

    def obtain(
        self,
        key: ImageKey,
        listed: ListedImage,
        monitor: Monitor = SILENT,
        *,
        accesses: Sequence[Access] = (),
        whole: bool = False,
    ) -> CachedImage:
        """Return the image's bytes, verified by this process; bring them here if they are not.

        Until `close`, nobody removes them.

        Args:
            key: Which image.
            listed: What its list says of it.
            monitor: Where progress is told.
            accesses: How the servers of its list are approached.
            whole: Whether the published file is wanted, and no other form of the disk will do.

        Raises:
            CredentialError: The credential for the image's server cannot be read.
            TransferError: It could not be fetched, or is too large.
            SizeMismatchError: It is shorter than signed.
            ChecksumMismatchError: It has another checksum than signed.
            NoSpaceError: It does not fit on the disk; where that is known before, nothing is fetched.
            QuotaError: It does not fit into the quota, even without what nothing needs.
            StorageError: The cache's directory cannot be used.
            LockedError: Another run works on the same image for too long.
        """
        settings = self._client.settings
        if not 0 < listed.size_bytes <= settings.image_size_limit_bytes:
            raise TransferTooLargeError(
                f"image {key} is listed with {listed.size_bytes} bytes; "
                f"this site takes from 1 to {settings.image_size_limit_bytes}",
                resolution="Raise transfer.image_size_limit_bytes if such images are wanted.",
                context={"image": str(key), "size_bytes": listed.size_bytes},
            )
        tell = f"waiting for another run that fetches {listed.title!r}"
        errand = Errand(
            key=key,
            listed=listed,
            client=self._client,
            accesses=accesses,
            monitor=monitor,
            allow_file_uris=self._allow_file_uris,
        )
        with self.shelf.locked(
            listed.checksum, wait_seconds=settings.total_timeout_seconds, on_wait=lambda: monitor.message(tell)
        ):
            entry = self._held(errand, whole=whole)
            if entry is not None:
                self._tidy(listed.checksum)
                return self._result(errand, entry)
            for directory in (self.layout.partial, self.layout.objects):
                with atomic.storage_errors("making", directory):
                    directory.mkdir(parents=True, exist_ok=True)
            return self._bring(errand, whole=whole)

    def _tidy(self, checksum: Checksum) -> None:
        """Remove what a run left that was killed when its image had just got its place; the lock on it is held."""
        partial = self.layout.partial_path(checksum)
        with atomic.storage_errors("removing", partial):
            if not os.path.lexists(partial):
                progress_path(partial).unlink(missing_ok=True)
        self._room.forget(checksum)

    def _result(
        self, errand: Errand, entry: CacheEntry, arrived: Arrived | None = None, fallback: str | None = None
    ) -> CachedImage:
        listed = errand.listed
        return CachedImage(
            key=errand.key,
            version=listed.version,
            path=entry.path,
            checksum=entry.checksum,
            listed_checksum=listed.checksum,
            size_bytes=entry.size_bytes,
            declared_format=listed.declared_format,
            reused=arrived is None,
            held=entry.held,
            fingerprint=self.shelf.state_of(entry.checksum),
            method=arrived.method if arrived is not None else None,
            fetched_bytes=arrived.fetched_bytes if arrived is not None else 0,
            fallback=fallback,
        )

    def _held(self, errand: Errand, *, whole: bool) -> CacheEntry | None:
        """Return the object if it is here and good; move it aside if it is here and bad."""
        listed, monitor = errand.listed, errand.monitor
        for checksum, expected, held in self._candidates(listed, whole=whole):
            with contextlib.suppress(LockedError), self._object_lock(checksum, listed):
                path = self.layout.path(checksum)
                if not os.path.lexists(path):
                    continue
                # From here on nobody removes it.
                self.shelf.leases.take(checksum)
                if len(expected) > 1 or not self.shelf.is_verified(checksum):
                    size = path.lstat().st_size
                    with monitor.task(f"verifying {listed.title!r}", total=size, unit=Unit.BYTES) as task:
                        good = self.shelf.rehash(checksum, expected, task.advance) is not None
                    if not good:
                        monitor.message(f"the cached file of {listed.title!r} was altered and is fetched again")
                        continue
                return self._known(checksum, expected, held, errand)
        return None

    def _candidates(self, listed: ListedImage, *, whole: bool) -> Iterator[tuple[Checksum, tuple[Checksum, ...], Held]]:
        """Yield what may be held of an image: its sha512, every checksum that it must have, and which bytes it is."""
        if listed.checksum.algorithm == ALGORITHM:
            yield listed.checksum, (listed.checksum,), Held.PUBLISHED
        else:
            entry = self.layout.find(listed.checksum)
            if entry is not None:
                yield entry.checksum, (entry.checksum, listed.checksum), Held.PUBLISHED
        delta = listed.delta
        if delta is not None and not whole and delta.guest_checksum != listed.checksum:
            yield delta.guest_checksum, (delta.guest_checksum,), Held.GUEST

    def _known(self, checksum: Checksum, expected: tuple[Checksum, ...], held: Held, errand: Errand) -> CacheEntry:
        """Return the entry of an object that is here and good, and note what was learnt of it."""
        state = self.shelf.state_of(checksum)
        listed, size = errand.listed, state[2]
        if size != (
            listed.size_bytes if held is Held.PUBLISHED or listed.delta is None else listed.delta.guest_size_bytes
        ):
            raise wrong_size(listed, size)
        entry = self.layout.entry(checksum)
        if entry is None:
            # Somebody else's file: its bytes are the signed ones, so they serve; it does not become this cache's.
            path = self.layout.path(checksum)
            return CacheEntry(
                checksum=checksum, size_bytes=size, path=path, fetched_at=self._clock.now(), uri="", held=held
            )
        known = replace(answering(entry, errand.key, listed.checksum, expected), fingerprint=state)
        if known != entry:
            self.layout.write_record(known)
        # The same bytes may be one list's file and another's disk.
        return replace(known, held=held)

    def _bring(self, errand: Errand, *, whole: bool) -> CachedImage:
        listed, delta = errand.listed, errand.listed.delta
        fallback = None
        if self._seeds is not None and delta is not None and (not whole or delta.guest_checksum == listed.checksum):
            try:
                cached = self._assemble(errand, self._seeds(errand.key, listed))
            except (DeltaError, TransferError, NoSpaceError, QuotaError, LockedError) as problem:
                # A disk takes more room than the file that was published, which may still fit.
                told = f"the delta of {listed.title!r} does not serve ({problem.message}); its file is fetched"
                errand.monitor.message(told)
                fallback = f"{problem.code}: {problem.message}"
            else:
                if cached is not None:
                    return cached
        path = self.layout.partial_path(listed.checksum)
        with self._room.reserved(listed.checksum, listed.size_bytes, path, name=f"image {errand.key}"):
            arrived = bring_whole(errand, path)
            entry = self._put(errand, arrived, Held.PUBLISHED)
        return self._result(errand, entry, arrived, fallback)

    def _assemble(self, errand: Errand, seeds: Sequence[Seed]) -> CachedImage | None:
        """Return what a delta gave; None: the file is fetched as if there were no delta."""
        listed, delta = errand.listed, errand.listed.delta
        if delta is None or not seeds:
            return None
        for seed in seeds:
            self.shelf.leases.take(seed.checksum)
        path = self.layout.partial / f"guest-{self.layout.partial_path(listed.checksum).name}"
        name = f"the disk of image {errand.key}"
        # Zeros take no room, and the index has a hash of each block that is not all zeros.
        most = min(delta.guest_size_bytes, delta.index.size_bytes // HASH_BYTES * BLOCK_BYTES)
        with self._room.reserved(listed.checksum, most, path, name=name):
            arrived = left_assembled(errand, path) or bring_assembled(
                errand, path, seeds=seeds, directory=self.directory, limit_bytes=self._maximum_disk_bytes
            )
            if arrived is None:
                return None
            held = Held.PUBLISHED if delta.guest_checksum == listed.checksum else Held.GUEST
            try:
                entry = self._put(errand, arrived, held)
            except LockedError:
                # Once the whole file is here, nobody would ask for it.
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)
                raise
            return self._result(errand, entry, arrived)

    def _put(self, errand: Errand, arrived: Arrived, held: Held) -> CacheEntry:
        checksum = arrived.checksum
        with self._object_lock(checksum, errand.listed):
            known = self.layout.entry(checksum)
            entry = known or CacheEntry(
                checksum=checksum,
                size_bytes=arrived.size_bytes,
                path=self.layout.path(checksum),
                fetched_at=self._clock.now(),
                uri=public_uri(arrived.uri),
                held=held,
            )
            return self.shelf.put(arrived.path, answering(entry, errand.key, errand.listed.checksum, arrived.also))

    def _make_room(self, short_bytes: int) -> None:
        """Remove what was set aside, what nothing needs (least recently needed first), and what rests half-fetched."""
        aim = self._room.used_bytes() - short_bytes
        HandOut(self.shelf).prune(taken_back_before=self._clock.now())
        self.shelf.old_quarantine(older_than_seconds=0)
        steps = (self.shelf.drop(checksum) for checksum in self._removable())
        for _ in itertools.chain([None], steps, self.shelf.idle_partials()):
            if self._room.used_bytes() <= aim:
                return
        sweep_assemblies(self.directory, older_than_seconds=0)

    def _object_lock(self, checksum: Checksum, listed: ListedImage) -> AbstractContextManager[object]:
        """Lock an object, unless it is what the lock on the wanted digest stands for already."""
        if checksum == listed.checksum:
            return contextlib.nullcontext()
        return self.shelf.locked(checksum, wait_seconds=SECOND_LOCK_SECONDS)
