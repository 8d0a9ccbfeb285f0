# SPDX-License-Identifier: Apache-2.0
"""`ImageCache`: brings the file of a listed image here, and lets nothing be seen that is not what was signed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice import atomic
from coppice.cache.model import CachedImage
from coppice.cache.objects import PIECE_BYTES, CacheEntry, Layout, fingerprint, hash_file
from coppice.clock import Clock, SystemClock
from coppice.errors import (
    AddressRefusedError,
    ChecksumMismatchError,
    ImageRefusedError,
    NoSpaceError,
    SizeMismatchError,
    TransferCutError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.http.access import credential_for, server_anchors_for
from coppice.model.checksum import Checksum
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import BinaryIO

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.imagelist.model import ListedImage
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor, Task

RESERVE_BYTES = 16 * 1024 * 1024
"""What is left free on the file system beside an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheVerification:
    """What `ImageCache.verify` found.

    Attributes:
        intact: Objects whose bytes are what their name says.
        quarantined: Objects whose bytes were not; they were moved aside.
    """

    intact: tuple[CacheEntry, ...]
    quarantined: tuple[CacheEntry, ...]


class ImageCache:
    """A directory of verified image files, addressed by content, shared by any number of runs at once.

    Args:
        directory: Where the files are; made when first needed.
        client: Fetches.
        clock: Tells when.
        allow_file_uris: Whether ``file://`` URIs may be read; only where lists come from this machine.
    """

    def __init__(
        self, directory: Path, *, client: Client, clock: Clock | None = None, allow_file_uris: bool = False
    ) -> None:
        self.directory = directory
        self._client = client
        self._clock = clock or SystemClock()
        self._allow_file_uris = allow_file_uris
        self._layout = Layout(directory)
        self._verified: dict[Checksum, tuple[int, ...]] = {}

    def find(self, checksum: Checksum, size_bytes: int) -> Path | None:
        """Return the file with that checksum if it is here with the right size; its bytes are not read."""
        path = self._layout.path(checksum)
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and state.st_size == size_bytes:
                return path
        return None

    def obtain(
        self, key: ImageKey, listed: ListedImage, monitor: Monitor = SILENT, *, accesses: Sequence[Access] = ()
    ) -> CachedImage:
        """Return the image's file, its bytes verified by this process; fetch it if it is not here.

        Args:
            key: Which image.
            listed: What its list says of it.
            monitor: Where progress is told.
            accesses: How the servers of its list are approached.

        Raises:
            CredentialError: The credential for the image's server cannot be read.
            TransferError: It could not be fetched, or is too large.
            SizeMismatchError: It is shorter than signed.
            ChecksumMismatchError: It has another checksum than signed.
            NoSpaceError: It does not fit on the disk; where that is known before, nothing is fetched.
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
        self._layout.sweep()
        wait = settings.total_timeout_seconds
        tell = f"waiting for another run that fetches {listed.title!r}"
        with self._layout.locked(listed.checksum.hexdigest, wait_seconds=wait, on_wait=lambda: monitor.message(tell)):
            state = self._held(listed, monitor)
            reused = state is not None
            if state is None:
                state = self._fetch(key, listed, accesses, monitor)
        return CachedImage(
            key=key,
            version=listed.version,
            path=self._layout.path(listed.checksum),
            checksum=listed.checksum,
            listed_checksum=listed.checksum,
            size_bytes=listed.size_bytes,
            declared_format=listed.declared_format,
            reused=reused,
            fingerprint=state,
        )

    def entries(self) -> tuple[CacheEntry, ...]:
        """Return what this cache holds."""
        return tuple(self._layout.entries())

    def verify(self, monitor: Monitor = SILENT) -> CacheVerification:
        """Read all objects again; those whose bytes are not what their name says go to ``quarantine/``."""
        intact: list[CacheEntry] = []
        quarantined: list[CacheEntry] = []
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        with monitor.task("verifying the cache", total=total, unit=Unit.BYTES) as task:
            for entry in entries:
                with self._layout.locked(entry.checksum.hexdigest, wait_seconds=60.0):
                    good = self._rehash(entry.checksum, task) is not None
                (intact if good else quarantined).append(entry)
        return CacheVerification(intact=tuple(intact), quarantined=tuple(quarantined))

    def prune(self, needed: Collection[Checksum]) -> tuple[CacheEntry, ...]:
        """Remove what this cache made and nothing needs; return it. Other files are left alone."""
        self._layout.sweep()
        removed: list[CacheEntry] = []
        for entry in self.entries():
            if entry.checksum in needed:
                continue
            with (
                self._layout.locked(entry.checksum.hexdigest, wait_seconds=60.0),
                atomic.storage_errors("removing", entry.path),
            ):
                # The record goes last: a run that dies between leaves no file that nobody owns.
                entry.path.unlink(missing_ok=True)
                self._layout.record(entry.checksum).unlink(missing_ok=True)
            self._verified.pop(entry.checksum, None)
            removed.append(entry)
        return tuple(removed)

    def _held(self, listed: ListedImage, monitor: Monitor) -> tuple[int, ...] | None:
        """Return the state of the object if it is here and good; move it aside if it is here and bad."""
        path = self._layout.path(listed.checksum)
        if not os.path.lexists(path):
            return None
        known = self._verified.get(listed.checksum)
        if known is not None and known == fingerprint(path.lstat()):
            return known
        with monitor.task(f"verifying {listed.title!r}", total=listed.size_bytes, unit=Unit.BYTES) as task:
            state = self._rehash(listed.checksum, task)
        if state is None:
            monitor.message(f"the cached file of {listed.title!r} was altered and is fetched again")
        elif not self._layout.record(listed.checksum).exists():
            self._record(listed)
        return state

    def _rehash(self, checksum: Checksum, task: Task) -> tuple[int, ...] | None:
        path = self._layout.path(checksum)
        with contextlib.suppress(OSError, ImageRefusedError):
            found, state = hash_file(path, checksum.algorithm, task.advance)
            if found.matches(checksum):
                self._verified[checksum] = state
                return state
        self._verified.pop(checksum, None)
        with atomic.storage_errors("moving aside", path):
            self._layout.quarantine.mkdir(parents=True, exist_ok=True)
            path.rename(self._layout.quarantine / f"{path.name}-{secrets.token_hex(4)}")
            self._layout.record(checksum).unlink(missing_ok=True)
        return None

    def _fetch(
        self, key: ImageKey, listed: ListedImage, accesses: Sequence[Access], monitor: Monitor
    ) -> tuple[int, ...]:
        destination = self._layout.path(listed.checksum)
        for directory in (self._layout.partial, destination.parent):
            with atomic.storage_errors("making", directory):
                directory.mkdir(parents=True, exist_ok=True)
        self._admit(key, listed)
        temporary = self._layout.partial / (
            f"{atomic.PARTIAL_PREFIX}{listed.checksum.hexdigest}-{secrets.token_hex(6)}{atomic.PARTIAL_SUFFIX}"
        )
        try:
            with (
                atomic.storage_errors("writing", temporary),
                monitor.task(f"fetching {listed.title!r}", total=listed.size_bytes, unit=Unit.BYTES) as task,
                temporary.open("xb") as stream,
            ):
                found = self._receive(listed, accesses, stream, task)
                stream.flush()
                os.fchmod(stream.fileno(), 0o444)
                os.fsync(stream.fileno())
            if not found.matches(listed.checksum):
                raise _wrong_checksum(key, listed, found)
            with atomic.storage_errors("writing", destination):
                temporary.rename(destination)
                atomic.fsync_directory(destination.parent)
        finally:
            temporary.unlink(missing_ok=True)
        self._record(listed)
        state = fingerprint(destination.lstat())
        self._verified[listed.checksum] = state
        return state

    def _record(self, listed: ListedImage) -> None:
        # User information in a URI is a secret.
        uri = urlsplit(listed.uri)._replace(netloc=urlsplit(listed.uri).netloc.rpartition("@")[2]).geturl()
        self._layout.write_record(listed.checksum, size_bytes=listed.size_bytes, fetched_at=self._clock.now(), uri=uri)

    def _admit(self, key: ImageKey, listed: ListedImage) -> None:
        with atomic.storage_errors("asking for the free space of", self.directory):
            figures = os.statvfs(self._layout.partial)
        free = figures.f_bavail * figures.f_frsize
        if free < listed.size_bytes + RESERVE_BYTES:
            raise NoSpaceError(
                f"image {key} has {listed.size_bytes} bytes; {self.directory} has room for {max(0, free)}",
                resolution="Free space there (`coppice cache prune` removes what nothing needs), then run again.",
                context={"path": str(self.directory), "free_bytes": free, "size_bytes": listed.size_bytes},
            )

    def _receive(self, listed: ListedImage, accesses: Sequence[Access], stream: BinaryIO, task: Task) -> Checksum:
        """Write the published bytes to ``stream``; return their checksum."""
        algorithm = listed.checksum.algorithm
        digest = hashlib.new(algorithm)

        def take(piece: bytes) -> None:
            with atomic.storage_errors("writing to", self._layout.partial):
                stream.write(piece)
            digest.update(piece)

        def restart() -> None:
            nonlocal digest
            digest = hashlib.new(algorithm)
            stream.seek(0)
            stream.truncate()

        if _scheme(listed) == "file":
            self._copy(listed, take, task)
        else:
            try:
                self._client.download(
                    listed.uri,
                    expected_size_bytes=listed.size_bytes,
                    sink=take,
                    monitor_task=task,
                    restart=restart,
                    credential=credential_for(listed.uri, accesses),
                    server_anchors=server_anchors_for(accesses),
                )
            except TransferCutError as problem:
                if not problem.context.get("complete"):
                    raise
                raise _wrong_size(listed, problem.context.get("received")) from problem
        return Checksum(algorithm, digest.hexdigest())

    def _copy(self, listed: ListedImage, take: Callable[[bytes], None], task: Task) -> None:
        parts = urlsplit(listed.uri)
        if not self._allow_file_uris or parts.netloc not in {"", "localhost"}:
            raise AddressRefusedError(
                f"the image {listed.title!r} is listed at a file:// URI, and such are not read here",
                resolution="Only lists that come from this machine may name its files.",
                context={"uri": listed.uri},
            )
        path = Path(unquote(parts.path))
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError) as problem:
            raise UnreachableError(f"the image file {path} cannot be read", details=str(problem)) from problem
        with os.fdopen(handle, "rb", buffering=0) as source:
            size = os.fstat(handle).st_size
            if not stat.S_ISREG(os.fstat(handle).st_mode) or size != listed.size_bytes:
                raise _wrong_size(listed, size)
            received = 0
            while received < size and (piece := source.read(min(PIECE_BYTES, size - received))):
                take(piece)
                received += len(piece)
                task.reach(received, size)
            if received != size:
                raise _wrong_size(listed, received)


def _scheme(listed: ListedImage) -> str:
    try:
        return urlsplit(listed.uri).scheme.lower()
    except ValueError as problem:
        raise AddressRefusedError(
            f"the URI of the image {listed.title!r} cannot be read: {problem}",
            resolution="Tell whoever publishes the list.",
            context={"uri": listed.uri[:200]},
        ) from problem


def _wrong_size(listed: ListedImage, received: object) -> SizeMismatchError:
    return SizeMismatchError(
        f"the file of {listed.title!r} has {received} bytes; its list says {listed.size_bytes}",
        resolution="Nothing of it is used. Tell whoever publishes the list.",
        context={"uri": listed.uri, "size_bytes": received, "expected_bytes": listed.size_bytes},
    )


def _wrong_checksum(key: ImageKey, listed: ListedImage, found: Checksum) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the file of {listed.title!r} (image {key}) is not the one that was signed: its checksum differs",
        details=f"signed {listed.checksum}\nfound  {found}",
        resolution="Nothing of it is used. Tell whoever publishes the list; a new run fetches it again.",
        context={"image": str(key), "expected": str(listed.checksum), "found": str(found)},
    )
