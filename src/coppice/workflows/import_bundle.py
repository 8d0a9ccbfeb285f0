# SPDX-License-Identifier: Apache-2.0
"""Import a bundle: its lists are judged as if their sources had given them; what they then name comes into the cache.

The whole bundle is read and held against its manifest first: a damaged one changes nothing. Nothing in it is believed
otherwise: lists are judged by this site's subscriptions, files by what those lists sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.cache.origin.bundle import bundle_uri, open_bundle
from coppice.cache.store import ImageCache
from coppice.errors import BundleError, CoppiceError, DatabaseError, NotFoundError, StateError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.formats.bundle import check_contents, read_layout, read_pieces
from coppice.monitor import Unit
from coppice.schedule.lock import run_lock
from coppice.subscription.source.gathered import check_carried
from coppice.subscription.source.protocol import Circumstances
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.converge import LOCK_NAME
from coppice.workflows.listed import recall_lists
from coppice.workflows.obtain import Obtainer, cache_directory, how_it_came, open_converter
from coppice.workflows.refresh import ListOutcome, refresh
from coppice.workflows.seeds import SeedFinder
from coppice.workflows.select import select
from coppice.workflows.sources import open_sources
from coppice.workflows.tell import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from coppice.clock import Clock
    from coppice.cloud.model import DesiredImage
    from coppice.database import Database
    from coppice.formats.bundle import BundledList, BundleLayout
    from coppice.http import Client
    from coppice.imagelist.model import ImageDelta, ListedImage, RemoteFile
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription

_NOWHERE = 999_999
"""Number of a file that no bundle has."""
_TOO_LARGE = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedImage:
    """What became of an image.

    Attributes:
        title: Its title.
        version: Its version.
        change: ``came``, ``here`` already, ``carried`` (a dry run), ``failed``.
        method: How it came: ``whole``, ``patch`` or ``blocks``.
        error: Why it did not come.
    """

    title: str
    version: str
    change: str
    method: str | None = None
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a bundle.

    Attributes:
        outcomes: Of the lists that subscriptions follow.
        images: Of the images that they name.
        not_followed: Addresses of lists that nobody here follows.
    """

    outcomes: tuple[ListOutcome, ...]
    images: tuple[ImportedImage, ...]
    not_followed: tuple[str, ...]

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why lists were refused, and images did not come."""
        return (
            *(each.error for each in self.outcomes if each.error is not None),
            *(each.error for each in self.images if each.error is not None),
        )


def import_bundle(
    path: Path,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    client: Client,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> ImportReport:
    """Take what a bundle carries.

    Args:
        path: Of the bundle.
        settings: All settings.
        database: Where subscriptions are.
        clock: Tells the time.
        monitor: Where progress is told.
        client: For its limits; nothing is asked of any server.
        dry_run: Judge all, and change nothing.
        wait_seconds: How long to wait for another run to end.

    Raises:
        BundleError: It is none, or is not what it says; nothing was changed.
        StateError: Nobody here follows a list of it.
        LockedError: Another run is at work.
        DatabaseError: The database failed.
    """
    with run_lock(settings.state_directory / LOCK_NAME, wait_seconds), open_bundle(path) as stream:
        layout = _checked(stream, monitor)
        store = SubscriptionStore(database)
        carried, not_followed = _followed(store.all(), layout)
        messages = {
            name: _message(stream, layout, number, settings.transfer.list_size_limit_bytes)
            for name, number in carried.items()
        }
        followers = [each for each in store.all() if each.name in messages]
        chosen = [each for each in followers if each.paused_at is None]
        paused = tuple(_paused(each) for each in followers if each.paused_at is not None)
        if dry_run:
            outcomes = _judged(chosen, messages, settings=settings, database=database, clock=clock)
        else:
            outcomes = refresh(
                chosen,
                store=store,
                client=client,
                clock=clock,
                settings=settings,
                monitor=monitor,
                messages=messages,
            ).outcomes
        outcomes = (*outcomes, *paused)
        good = tuple(each for each in outcomes if each.fresh and each.verified is not None)
        # What the other lists need must not go to make room.
        others = (each for each in recall_lists(store, clock, settings.lists) if each.subscription.name not in messages)
        with Obtainer(
            settings=settings,
            client=client,
            clock=clock,
            database=database,
            outcomes=(*outcomes, *others),
            monitor=monitor,
        ) as obtainer:
            run = _Import(
                path,
                layout,
                settings=settings,
                obtainer=obtainer,
                client=client,
                clock=clock,
                monitor=monitor,
                journal=Journal(database),
            )
            wanted = [image for each in select(good, ()).lists for image in each.images if image.expires > clock.now()]
            images = tuple(run.preview(image) if dry_run else run.bring(image) for image in wanted)
    if not dry_run:
        tell(settings, database, clock, monitor)
    return ImportReport(outcomes=outcomes, images=images, not_followed=not_followed)


def _checked(stream: BinaryIO, monitor: Monitor) -> BundleLayout:
    layout = read_layout(stream)
    total = sum(size for _, size, _ in layout.manifest.members())
    with monitor.task("checking the bundle", total=total, unit=Unit.BYTES) as task:
        check_contents(stream, layout, task.advance)
    return layout


def _followed(subscriptions: Sequence[Subscription], layout: BundleLayout) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return which list each subscription finds in the bundle, and the addresses of lists that none follows."""
    found: dict[str, int] = {}
    followed: set[int] = set()
    for subscription in subscriptions:
        for number, each in enumerate(layout.manifest.lists):
            if _is_of(subscription, each):
                followed.add(number)
                found.setdefault(subscription.name, number)
    others = tuple(each.uri for number, each in enumerate(layout.manifest.lists) if number not in followed)
    if not found:
        raise StateError(
            "nobody here follows a list of this bundle",
            details="\n".join(others),
            resolution="`coppice subscription add` follows a list, and says whom to trust for it.",
        )
    return found, others


def _paused(subscription: Subscription) -> ListOutcome:
    problem = StateError(
        f"the subscription {subscription.name!r} is paused: nothing is taken for it",
        resolution=f"`coppice subscription resume {subscription.name}` follows it again; then import once more.",
    )
    return ListOutcome(subscription=subscription, verified=None, fresh=False, error=problem)


def _is_of(subscription: Subscription, carried: BundledList) -> bool:
    # Who is followed decides nothing but which rules are asked: what comes must keep them all.
    same_source = (subscription.source.driver, subscription.uri) == (carried.driver, carried.uri)
    return same_source or subscription.list_identifier == carried.list_identifier


def _message(stream: BinaryIO, layout: BundleLayout, number: int, limit_bytes: int) -> bytes:
    size = layout.manifest.lists[number].size_bytes
    if size > limit_bytes:
        raise BundleError(
            f"a list of the bundle has {size} bytes; up to {limit_bytes} are read",
            resolution="Raise transfer.list_size_limit_bytes if such lists are wanted.",
        )
    return b"".join(read_pieces(stream, layout.list_at(number), size))


def _judged(
    subscriptions: Sequence[Subscription],
    messages: Mapping[str, bytes],
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
) -> tuple[ListOutcome, ...]:
    """Judge lists and change nothing."""
    store = SubscriptionStore(database)
    sources = open_sources(database, None, clock, settings)
    outcomes = []
    for subscription in subscriptions:
        identifier = subscription.list_identifier
        circumstances = Circumstances(
            last=None if identifier is None else store.last_trusted(identifier),
            now=clock.now(),
            limits=settings.lists,
            terms=settings.subscriptions,
            previous=lambda name=subscription.name: store.last_message(name),  # type: ignore[misc]
            earlier=lambda name=subscription.name: store.earlier_messages(name),  # type: ignore[misc]
        )
        try:
            source = sources.open(subscription.source)
            verified = source.verify(messages[subscription.name], subscription, circumstances)
            check_carried(verified)
            outcomes.append(ListOutcome(subscription=subscription, verified=verified, fresh=True))
        except CoppiceError as problem:
            outcomes.append(ListOutcome(subscription=subscription, verified=None, fresh=False, error=problem))
    return tuple(outcomes)


class _Import:
    """Brings images out of one bundle."""

    def __init__(
        self,
        path: Path,
        layout: BundleLayout,
        *,
        settings: Settings,
        obtainer: Obtainer,
        client: Client,
        clock: Clock,
        monitor: Monitor,
        journal: Journal,
    ) -> None:
        self._path = path
        self._obtainer = obtainer
        self._clock = clock
        self._monitor = monitor
        self._journal = journal
        seeds = SeedFinder(obtainer.shelf, open_converter(settings), monitor)
        self._cache = ImageCache(
            cache_directory(settings),
            client=client,
            clock=clock,
            # Every address is one of this bundle.
            allow_file_uris=True,
            quota_bytes=settings.cache.quota_bytes,
            removable=lambda: obtainer.pruning().removable(),
            seeds=seeds.find,
            maximum_disk_bytes=settings.conversion.maximum_virtual_size_bytes,
            shelf=obtainer.shelf,
        )
        self._whole: dict[Checksum, int] = {}
        self._any: dict[Checksum, int] = {}
        for number, file in enumerate(layout.manifest.files):
            for checksum in file.checksums:
                self._any.setdefault(checksum, number)
                if file.ranges is None:
                    self._whole.setdefault(checksum, number)

    def preview(self, image: DesiredImage) -> ImportedImage:
        """Say what would become of an image."""
        listed = image.listed
        if self._cache.find(listed) is not None:
            return ImportedImage(title=listed.title, version=listed.version, change="here")
        if self._carried(listed) is None:
            return self._failed(image, self._not_carried(image))
        return ImportedImage(title=listed.title, version=listed.version, change="carried")

    def bring(self, image: DesiredImage) -> ImportedImage:
        """Bring an image into the cache."""
        listed = image.listed
        carried = listed if self._cache.find(listed) is not None else self._carried(listed)
        if carried is None:
            return self._failed(image, self._not_carried(image))
        if carried is listed:
            return ImportedImage(title=listed.title, version=listed.version, change="here")
        try:
            cached = self._cache.obtain(image.key, carried, self._monitor)
        except DatabaseError:
            raise
        except CoppiceError as problem:
            return self._failed(image, problem)
        self._obtainer.attempts.succeeded(image.key)
        facts = self._obtainer.facts(image, **how_it_came(cached))
        self._journal.record(EventKind.IMAGE_CACHED, subject=str(image.key), facts=facts, at=self._clock.now())
        return ImportedImage(title=listed.title, version=listed.version, change="came", method=cached.method)

    def _carried(self, listed: ListedImage) -> ListedImage | None:
        """Return the image with addresses in the bundle; what is signed of it stays. None: it is not carried."""
        number = self._whole.get(listed.checksum)
        delta = self._carried_delta(listed.delta) if listed.delta is not None and number is None else None
        if number is None and delta is None:
            return None
        uri = bundle_uri(self._path, _NOWHERE if number is None else number)
        return replace(listed, uri=uri, mirrors=(), delta=delta)

    def _carried_delta(self, delta: ImageDelta) -> ImageDelta | None:
        patches = tuple(
            replace(each, file=self._moved(each.file)) for each in delta.patches if each.file.checksum in self._whole
        )
        index = self._moved(delta.index)
        if delta.index.checksum not in self._whole:
            # What is too large is not looked into.
            index = replace(index, size_bytes=_TOO_LARGE)
            if not patches:
                return None
        return replace(delta, index=index, packs=tuple(map(self._moved, delta.packs)), patches=patches)

    def _moved(self, file: RemoteFile) -> RemoteFile:
        return replace(file, uri=bundle_uri(self._path, self._any.get(file.checksum, _NOWHERE)))

    def _not_carried(self, image: DesiredImage) -> NotFoundError:
        return NotFoundError(
            f"the bundle does not carry the image {image.listed.title!r} version {image.listed.version}, and it is "
            "not here",
            resolution="Have a bundle exported with `--have` an inventory of this site, or without `--since`.",
            context={"image": str(image.key)},
        )

    def _failed(self, image: DesiredImage, problem: CoppiceError) -> ImportedImage:
        return ImportedImage(title=image.listed.title, version=image.listed.version, change="failed", error=problem)
