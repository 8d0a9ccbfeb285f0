# SPDX-License-Identifier: Apache-2.0
"""The images that builds start from: vouched for, fetched, looked at, and laid out raw for the factory.

What vouches for the bytes is a checksum in the definition, a signed file of checksums with pinned keys, or the
catalogue. Nothing opens an image before its digest is right and this project's own readers have judged it.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coppice import atomic
from coppice.catalogue.catalogue import Catalogue
from coppice.conversion.files import state_of
from coppice.conversion.options import Options
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.database import Database
from coppice.digests import new_digest
from coppice.errors import BuildError, ChecksumMismatchError, NotFoundError, TransferTooLargeError
from coppice.factory.lock import is_free, locked
from coppice.factory.model import StartDisk
from coppice.http import Client
from coppice.http.location import show
from coppice.http.ranges import Part
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import Unit
from coppice.workflows.image_limits import limits_of
from coppice.workflows.start_checksums import vouched_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.catalogue.model import ApplianceVersion
    from coppice.definition.model import Start
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

RAW_NAME = "start.raw"
_LOCK = ".lock"
_CHUNK_BYTES = 1024 * 1024
_UNUSED_SECONDS = 60 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedImage:
    """A file that was vouched for.

    Attributes:
        name: How it is called.
        url: Where it is fetched from; empty: it is on this machine.
        checksum: What its bytes must have.
        path: Where it lies; None: it has to be fetched.
    """

    name: str
    url: str
    checksum: Checksum
    path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartImages:
    """Gives the factory the images that builds start from.

    Attributes:
        settings: Bounds, and where what was fetched is kept.
        known: What was found in the catalogue before, by what it is called in a definition.
    """

    settings: Settings
    known: Mapping[str, VouchedImage] = field(default_factory=dict)

    def catalogued(self, start: Start | None) -> dict[str, VouchedImage]:
        """Return what the catalogue has of ``start``, for one that cannot look into it.

        Raises:
            NotFoundError: There is no such appliance, or no such version of it.
        """
        if start is None or not start.catalogue:
            return {}
        return {start.catalogue: self._in_catalogue(start.catalogue)}

    def identity(self, start: Start) -> str:
        """Return the digest that the catalogue has of what it names; empty for what it does not name.

        Raises:
            NotFoundError: There is no such appliance, or no such version of it.
        """
        return str(self._in_catalogue(start.catalogue).checksum) if start.catalogue else ""

    def take(self, start: Start, into: Path, monitor: Monitor) -> StartDisk:
        """Return the disk of ``start``, laid into the directory ``into``.

        Raises:
            NotFoundError: The catalogue has no such thing.
            TransferError: It could not be had.
            TrustError: Its checksums are not signed as they must be, or are older than those that were seen.
            ChecksumMismatchError: Its bytes are others than what vouches for them says.
            ImageRefusedError: It is no disk image, or dangerous.
            ConversionError: It cannot be read.
            StorageError: The disk failed.
        """
        published = self._in_catalogue(start.catalogue) if start.catalogue else self._at_address(start, monitor)
        if published.path is not None:
            return self._laid_out(published, published.path, into, monitor)
        with self._fetched(published, monitor) as path:
            try:
                return self._laid_out(published, path, into, monitor)
            except ChecksumMismatchError as problem:
                # It was right when it was put there.
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)
                raise ChecksumMismatchError(
                    f"what was kept of {published.name} since it was fetched has other bytes by now",
                    details=problem.details,
                    resolution="It was removed; run again to fetch it anew. See whether the disk is sound.",
                    context=problem.context,
                ) from problem

    def _in_catalogue(self, reference: str) -> VouchedImage:
        if reference in self.known:
            return self.known[reference]
        name, _, version = reference.partition("@")
        with closing(Database(self.settings.database_url)) as database:
            versions = Catalogue(database).versions(name)
        found = [each for each in versions if not version or each.version == version]
        if not found:
            known = ", ".join(each.version for each in versions[-5:]) or "none"
            raise NotFoundError(
                f"the catalogue has no version {version!r} of {name}" if version else f"{name} has no version yet",
                resolution=f"Name one that it has in start.catalogue; the newest: {known}.",
            )
        return _held(found[-1])

    def _at_address(self, start: Start, monitor: Monitor) -> VouchedImage:
        if start.checksum:
            checksum = Checksum.parse(start.checksum)
        else:
            checksum = vouched_for(start, self._read_small, self._place / "seen", monitor)
        local = file_of(start.url)
        name = unquote(urlsplit(start.url).path).rpartition("/")[2]
        return VouchedImage(name=name, url="" if local else start.url, checksum=checksum, path=local)

    def _read_small(self, url: str, limit_bytes: int) -> bytes:
        local = file_of(url)
        if local is None:
            return Client(self.settings.transfer).get_bytes(url, limit_bytes=limit_bytes)
        with atomic.storage_errors("reading", local), local.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise TransferTooLargeError(f"{local} is longer than {limit_bytes} bytes")
        return data

    @property
    def _place(self) -> Path:
        return self.settings.state_directory / "factory" / "starts"

    @contextmanager
    def _fetched(self, published: VouchedImage, monitor: Monitor) -> Iterator[Path]:
        """Yield the file, fetched now or before; while the block runs nobody takes it away."""
        checksum = published.checksum
        path = self._place / f"{checksum.algorithm}-{checksum.hexdigest}"
        wait = f"Another run is fetching {published.name}; waiting for it."
        with locked(path.with_name(f"{path.name}{_LOCK}"), on_wait=lambda: monitor.message(wait)):
            if not path.exists():
                atomic.sweep_partials(self._place, older_than_seconds=0, of=path.name)
                with atomic.replacing(path, mode=0o600) as temporary:
                    self._fetch(published, temporary, monitor)
            with atomic.storage_errors("marking", path):
                # Never made here: an empty file is no image.
                os.utime(path)
            self._forget_unused()
            yield path

    def _fetch(self, published: VouchedImage, path: Path, monitor: Monitor) -> None:
        limit = self.settings.transfer.image_size_limit_bytes
        client = Client(self.settings.transfer)
        digest, done = new_digest(published.checksum.algorithm), 0
        with (
            monitor.task(f"fetching {published.name}", unit=Unit.BYTES) as task,
            client.opened(published.url, Part(), deadline=client.deadline()) as body,
            atomic.storage_errors("writing", path),
            path.open("wb") as stream,
        ):
            for piece in body.pieces:
                done += len(piece)
                if done > limit:
                    raise TransferTooLargeError(
                        f"{show(published.url)} has more than {limit} bytes",
                        resolution="Raise transfer.image-size-limit if it is meant to be so large.",
                    )
                digest.update(piece)
                stream.write(piece)
                task.reach(done, body.end)
        _compare(published, digest.hexdigest())

    def _laid_out(self, published: VouchedImage, path: Path, into: Path, monitor: Monitor) -> StartDisk:
        limits = limits_of(self.settings.conversion)
        raw = into / RAW_NAME
        # A link may lead elsewhere by the time that the next one follows it.
        path = path.resolve()
        if not path.is_file():
            raise BuildError(
                f"there is no image at {path} to start from",
                resolution="Correct start.url, or put the image back.",
                context={"path": str(path)},
            )
        # What was hashed, looked at and read must be one and the same.
        hashed = state_of(path)
        _compare(published, _digest_of(path, published.checksum.algorithm))
        with opened_disk(path, limits, spool=into, monitor=monitor, name=published.name) as disk:
            replace(disk, state=hashed).require_unchanged()
            options = Options(require_cage=self.settings.conversion.require_cage)
            found = disk.inspection
            transform(disk, DiskFormat.RAW, raw, options=options, limits=limits, monitor=monitor)
            disk.require_unchanged()
        return StartDisk(
            raw=raw,
            name=published.name,
            # What follows a question mark may be somebody's leave to fetch it.
            uri=published.url.partition("?")[0],
            checksum=published.checksum,
            format=found.disk.format,
            original=path if found.packaging is None and not found.disk.must_be_rewritten else None,
        )

    def _forget_unused(self) -> None:
        for path in self._place.glob("sha*-*"):
            lock = path.with_name(f"{path.name}{_LOCK}")
            # A lock that went away while it is held would be held by two; a file whose lock is held is in use.
            if path.suffix == _LOCK or (lock.exists() and not is_free(lock)):
                continue
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                    path.unlink()


def file_of(url: str) -> Path | None:
    """Return the file of this machine that ``url`` names; None: it is elsewhere."""
    return Path(unquote(url.removeprefix("file://"))) if url.startswith("file://") else None


def _held(version: ApplianceVersion) -> VouchedImage:
    if version.path is None or not isinstance(version.image, Image):
        raise NotFoundError(
            f"version {version.version} of {version.appliance.name} is listed by reference: its image is not here",
            resolution="Start from its address instead: start.url, with its checksum.",
        )
    name = f"{version.appliance.name} {version.version}"
    return VouchedImage(name=name, url="", checksum=version.image.checksum, path=version.path)


def _compare(published: VouchedImage, hexdigest: str) -> None:
    if hexdigest == published.checksum.hexdigest:
        return
    raise ChecksumMismatchError(
        f"{published.name} has other bytes than its checksum says",
        details=f"wanted {published.checksum}\nhad    {published.checksum.algorithm}:{hexdigest}",
        resolution="Whoever publishes it may have replaced it, or somebody else has. Ask them, then correct start; "
        "nothing was built of it.",
        context={"wanted": str(published.checksum), "found": hexdigest},
    )


def _digest_of(path: Path, algorithm: str) -> str:
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
