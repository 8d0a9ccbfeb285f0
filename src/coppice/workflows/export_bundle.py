# SPDX-License-Identifier: Apache-2.0
"""Export a bundle: the lists in force as they were signed, and of their images what the other side lacks."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.assembly_blocks import BlockAssembly
from coppice.cache.assembly_choice import LARGEST_INDEX_BYTES, HeldDisk, Work, patch_name, read_index_file
from coppice.cache.assembly_remote import ClientRemote
from coppice.cache.locks import locked
from coppice.cache.seed_blocks import open_seed
from coppice.errors import CoppiceError, DatabaseError, DeltaError, ImageError, NotFoundError, StateError, TransferError
from coppice.formats.bundle import BundledFile, BundledList, Manifest, write_bundle
from coppice.model.checksum import Checksum
from coppice.monitor import Unit
from coppice.subscription.archive import ListArchive
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.bundle import Inventory, signed_only
from coppice.workflows.listed import recall_lists
from coppice.workflows.obtain import Obtainer, cache_directory, open_converter
from coppice.workflows.seeds import SeedFinder
from coppice.workflows.select import select
from coppice.workflows.sources import open_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.cloud.model import DesiredImage
    from coppice.database import Database
    from coppice.http import Client
    from coppice.imagelist.model import ImageDelta, ListedImage
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.refresh import ListOutcome

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedImage:
    """What a bundle has of an image.

    Attributes:
        title: Its title.
        version: Its version.
        form: ``whole``, ``patch``, ``blocks``; ``there``: the other side has it; ``failed``.
        size_bytes: That it takes in the bundle.
        error: Why it is not in it.
    """

    title: str
    version: str
    form: str
    size_bytes: int = 0
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The bundle.
        size_bytes: Its length.
        lists: Subscription, and version of its list.
        images: What it has of each.
        list_errors: Why lists are not in it.
    """

    path: Path
    size_bytes: int
    lists: tuple[tuple[str, str], ...]
    images: tuple[ExportedImage, ...]
    list_errors: tuple[CoppiceError, ...] = ()

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why lists or images are not in it."""
        return (*self.list_errors, *(each.error for each in self.images if each.error is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A file that goes in: what the manifest says of it, and where its bytes are."""

    file: BundledFile
    path: Path

    def read(self) -> Iterator[bytes]:
        """Yield what is carried."""
        with atomic.storage_errors("reading", self.path), self.path.open("rb") as stream:
            for start, length in self.file.ranges or ((0, self.file.whole_bytes),):
                stream.seek(start)
                left = length
                while left and (piece := stream.read(min(_PIECE_BYTES, left))):
                    left -= len(piece)
                    yield piece


def export_bundle(
    path: Path,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    client: Client,
    names: Collection[str] = (),
    there: Inventory | None = None,
    since: datetime | None = None,
) -> ExportReport:
    """Write a bundle.

    Args:
        path: Of the bundle; it appears whole, or not at all.
        settings: All settings.
        database: Where subscriptions are.
        clock: Tells the time.
        monitor: Where progress is told.
        client: Fetches what is not here.
        names: Of subscriptions; empty: all.
        there: What the other side holds; None: not known.
        since: The other side holds what the lists named that were verified before; None: that is not known.

    Raises:
        NotFoundError: There is no such subscription.
        StateError: No list is known that could be exported.
        StorageError: The bundle cannot be written.
        DatabaseError: The database failed.
    """
    store = SubscriptionStore(database)
    missing = sorted(set(names) - {each.name for each in store.all()})
    if missing:
        raise NotFoundError(
            f"there is no subscription {', '.join(missing)}",
            resolution="`coppice subscription list` shows those that there are.",
        )
    followed = recall_lists(store, clock, settings.lists)
    outcomes = tuple(signed_only(each) for each in followed if not names or each.subscription.name in names)
    errors = tuple(each.error for each in outcomes if each.error is not None)
    known = [each for each in outcomes if each.verified is not None]
    if not known:
        raise StateError(
            "no list is known that could be exported",
            details="\n".join(each.message for each in errors),
            resolution="`coppice subscription refresh` fetches and verifies lists.",
        )
    messages = [_message(database, each) for each in known]
    held = _held_there(known, there, since, settings=settings, database=database, clock=clock)
    with (
        Obtainer(
            settings=settings, client=client, clock=clock, database=database, outcomes=followed, monitor=monitor
        ) as obtainer,
        ExitStack() as stack,
    ):
        run = _Export(settings, obtainer, client, monitor, stack, there=held)
        desired = select(outcomes, ())
        images = [run.add(image) for each in desired.lists for image in each.images if image.expires > clock.now()]
        manifest = Manifest(
            created_at=clock.now().replace(microsecond=0),
            lists=tuple(described for described, _ in messages),
            files=tuple(piece.file for piece in run.pieces),
        )
        contents = (*([message] for _, message in messages), *(piece.read() for piece in run.pieces))
        with (
            atomic.replacing(path) as temporary,
            monitor.task(
                "writing the bundle", total=sum(each[1] for each in manifest.members()), unit=Unit.BYTES
            ) as task,
            temporary.open("xb") as stream,
        ):
            write_bundle(stream, manifest, (_counted(each, task.advance) for each in contents))
        run.forget()
    return ExportReport(
        path=path,
        size_bytes=path.stat().st_size,
        lists=tuple((each.subscription.name, each.verified.content.version) for each in known if each.verified),
        images=tuple(images),
        list_errors=errors,
    )


def _counted(pieces: Iterable[bytes], tell: Callable[[int], object]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        tell(len(piece))


def _message(database: Database, outcome: ListOutcome) -> tuple[BundledList, bytes]:
    subscription = outcome.subscription
    archived, message = ListArchive(database).message(subscription.name)
    described = BundledList(
        driver=subscription.source.driver,
        uri=subscription.uri,
        list_identifier=archived.list_identifier,
        version=archived.version,
        size_bytes=len(message),
        content=Checksum.of(message),
    )
    return described, message


def _held_there(
    known: Sequence[ListOutcome],
    there: Inventory | None,
    since: datetime | None,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
) -> Inventory:
    """Return what the other side holds; what lists of the archive tell of it is added."""
    archive = ListArchive(database)
    sources = open_sources(database, None, clock, settings)
    listed: list[ListedImage] = []
    objects = set(there.objects) if there is not None else set()
    answers = there.answers if there is not None else frozenset()
    for outcome in known:
        subscription = outcome.subscription
        versions = archive.versions(subscription.name)
        before = next((each for each in versions if since is not None and each.verified_at < since), None)
        for each in versions:
            try:
                _, message = archive.message(subscription.name, each.version)
                images = sources.open(subscription.source).read(message, subscription, settings.lists).images
            except DatabaseError:
                raise
            except CoppiceError:
                # What cannot be read tells of nothing that is there: more is carried than need be.
                continue
            listed += images
            if before is not None and each.number == before.number:
                objects |= {image.checksum for image in images}
    return Inventory(objects=frozenset(objects), answers=answers).with_disks_of(listed)


class _Export:
    """Gathers what goes into one bundle.

    Args:
        settings: All settings.
        obtainer: Gets whole files.
        client: Fetches files of deltas.
        monitor: Where progress is told.
        stack: What is opened or locked is given back with it.
        there: What the other side holds.
    """

    def __init__(
        self,
        settings: Settings,
        obtainer: Obtainer,
        client: Client,
        monitor: Monitor,
        stack: ExitStack,
        *,
        there: Inventory,
    ) -> None:
        self._directory = cache_directory(settings)
        self._obtainer = obtainer
        self._client = client
        self._monitor = monitor
        self._stack = stack
        self._there = there
        self._seeds = SeedFinder(obtainer.shelf, open_converter(settings), monitor)
        self._folders: list[Path] = []
        self.pieces: list[_Piece] = []

    def add(self, image: DesiredImage) -> ExportedImage:
        """Add what the other side lacks of an image; say what that is."""
        listed = image.listed
        if self._there.has(listed):
            return ExportedImage(title=listed.title, version=listed.version, form="there")
        try:
            form, pieces = self._delta(image) or ("whole", [self._whole(image)])
        except DatabaseError:
            raise
        except CoppiceError as problem:
            return ExportedImage(title=listed.title, version=listed.version, form="failed", error=problem)
        known = {piece.file.content for piece in self.pieces}
        new = [piece for piece in pieces if piece.file.content not in known]
        self.pieces += new
        size = sum(piece.file.size_bytes for piece in new)
        return ExportedImage(title=listed.title, version=listed.version, form=form, size_bytes=size)

    def forget(self) -> None:
        """Remove what was fetched for the bundle alone."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _whole(self, image: DesiredImage) -> _Piece:
        cached = self._obtainer.fetch(image, whole=True)
        checksums = tuple(dict.fromkeys((cached.checksum, image.listed.checksum)))
        file = BundledFile(
            checksums=checksums,
            whole_bytes=cached.size_bytes,
            ranges=None,
            size_bytes=cached.size_bytes,
            content=cached.checksum,
        )
        return _Piece(file=file, path=cached.path)

    def _delta(self, image: DesiredImage) -> tuple[str, list[_Piece]] | None:
        """Return a patch or blocks where the other side has what they start from, and they are smaller."""
        delta = image.listed.delta
        if delta is None:
            return None
        try:
            return self._smaller(image, delta)
        except (DeltaError, TransferError, ImageError) as problem:
            self._monitor.message(f"the delta of {image.listed.title!r} does not serve ({problem.message})")
            return None

    def _smaller(self, image: DesiredImage, delta: ImageDelta) -> tuple[str, list[_Piece]] | None:
        listed = image.listed
        usable = [patch for patch in delta.patches if patch.origin in self._there.objects]
        patch = min(usable, key=lambda each: each.file.size_bytes, default=None)
        best = min([listed.size_bytes, *(each.file.size_bytes for each in usable)])
        work = self._work(image, delta)
        blocks = self._blocks(work, best)
        if blocks is not None:
            return "blocks", blocks
        if patch is None or patch.file.size_bytes >= listed.size_bytes:
            return None
        path = work.fetch(patch.file, patch_name(patch), "a patch")
        return "patch", [_piece(path, (patch.file.checksum,), patch.file.size_bytes)]

    def _work(self, image: DesiredImage, delta: ImageDelta) -> Work:
        name = f"{delta.guest_checksum.hexdigest}-export"
        folder = self._directory / "partial" / "deltas" / name
        if folder not in self._folders:
            lock = self._directory / "locks" / f"delta-{name}"
            self._stack.enter_context(locked(lock, what=f"the bundle of {image.listed.title!r}", wait_seconds=0))
            self._folders.append(folder)
        approach = self._obtainer.approach
        held = []
        for seed in self._seeds.find(image.key, image.listed):
            if seed.checksum in self._there.objects and (handle := open_seed(seed.path)) is not None:
                self._stack.callback(os.close, handle)
                held.append(HeldDisk(checksum=seed.checksum, handle=handle))
        return Work(
            listed=image.listed,
            delta=delta,
            held=held,
            remote=ClientRemote(
                self._client,
                approach.accesses.get(image.key.list_identifier, ()),
                allow_file_uris=image.key.list_identifier in approach.local,
            ),
            folder=folder,
            directory=self._directory,
            monitor=self._monitor,
        )

    def _blocks(self, work: Work, best: int) -> list[_Piece] | None:
        """Return the index and the parts of packs that are needed where the other side has what is held here."""
        index = work.delta.index
        if not work.held or index.size_bytes > LARGEST_INDEX_BYTES or index.size_bytes >= best:
            return None
        path = work.fetch(index, "index", "the index")
        blocks = BlockAssembly(work.delta, read_index_file(path, index), work.folder, work.remote)
        with self._monitor.task(f"looking for what is missing of {work.listed.title!r}", unit=Unit.BYTES) as task:
            disks = [(each.checksum, each.handle) for each in work.held]
            blocks.look_for(disks, self._directory / "blocks", task)
            if index.size_bytes + blocks.cost_bytes() >= best:
                return None
            blocks.fetch_tables(task)
            blocks.fetch_blocks(task)
        pieces = [_piece(path, (index.checksum,), index.size_bytes)]
        for pack, spool, ranges in blocks.fetched_parts():
            pieces.append(_piece(spool, (pack.checksum,), pack.size_bytes, tuple(ranges)))
        return pieces if sum(each.file.size_bytes for each in pieces) < best else None


def _piece(
    path: Path, checksums: tuple[Checksum, ...], whole_bytes: int, ranges: tuple[tuple[int, int], ...] | None = None
) -> _Piece:
    size = whole_bytes if ranges is None else sum(length for _, length in ranges)
    digest = hashlib.sha512()
    nothing = BundledFile(
        checksums=checksums, whole_bytes=whole_bytes, ranges=ranges, size_bytes=size, content=Checksum.of(b"")
    )
    for data in _Piece(file=nothing, path=path).read():
        digest.update(data)
    content = Checksum("sha512", digest.hexdigest())
    file = BundledFile(checksums=checksums, whole_bytes=whole_bytes, ranges=ranges, size_bytes=size, content=content)
    return _Piece(file=file, path=path)
