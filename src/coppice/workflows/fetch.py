# SPDX-License-Identifier: Apache-2.0
"""Fetch: a cache run, for sites whose hooks register images: every selected image is here, and what left is told.

New bytes are fetched and verified first, side by side; only then leaves what is replaced, is withdrawn or has expired,
so that there is no gap; then what came is handed out. A list of which nothing is known today takes nothing away until
the dates of its images do. What failed is tried again by the next run; nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coppice.cache.handed import HandedImage, HandedOut, HandState
from coppice.cache.handout import HandOut, name_of
from coppice.errors import CoppiceError, DatabaseError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.events.payload import new_session, run_facts
from coppice.schedule.lock import run_lock
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.listed import recall_lists
from coppice.workflows.needed import Pruned
from coppice.workflows.obtain import Obtainer, how_it_came
from coppice.workflows.parallel import in_parallel
from coppice.workflows.refresh import refresh
from coppice.workflows.select import select
from coppice.workflows.tell import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from coppice.cache.model import CachedImage
    from coppice.clock import Clock
    from coppice.cloud.model import Desired, DesiredImage
    from coppice.database import Database
    from coppice.http import Client
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

LOCK_NAME = "cache.lock"
"""Name of the lock file in the state directory: whatever changes what is handed out holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image in a cache run.

    Attributes:
        key: Which image of which list.
        version: Its version.
        title: Its title, where it is known.
        change: ``fetched``, ``handed-out``, ``taken-back``, or ``failed``; what would be done, in a dry run.
        reason: Why it left, or how it came.
        error: Why it failed.
    """

    key: ImageKey
    version: str
    title: str
    change: str
    reason: str | None = None
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReport:
    """What became of a cache run.

    Attributes:
        wanted: How many images are selected by the lists that are known, and have not expired.
        images: What was done, in its order.
        unknown: Subscriptions of whose list nothing is known today, with why.
        pruned: What was removed from the cache.
        list_errors: Why lists are not fresh, where they were asked for.
    """

    wanted: int
    images: tuple[ImageOutcome, ...]
    unknown: tuple[tuple[str, CoppiceError], ...] = ()
    pruned: Pruned = field(default_factory=Pruned)
    list_errors: tuple[CoppiceError, ...] = ()

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why images could not be had, lists not be refreshed, and files not be removed."""
        images = (each.error for each in self.images if each.error is not None)
        return (*self.list_errors, *images, *self.pruned.errors)


def fetch(
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    client: Client,
    refresh_lists: bool = False,
    retry: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> FetchReport:
    """Bring here what the lists that were verified last select, and hand it out to hooks.

    Args:
        settings: All settings.
        database: Where subscriptions and the journal are.
        clock: Tells the time.
        monitor: Where progress is told.
        client: Fetches.
        refresh_lists: Ask the sources of the lists first.
        retry: Try also what was given up.
        dry_run: Do nothing, and say what would be done.
        wait_seconds: How long to wait for another run to end.

    Raises:
        LockedError: Another run is at work.
        DatabaseError: The database failed.
    """
    with run_lock(settings.state_directory / LOCK_NAME, wait_seconds):
        store = SubscriptionStore(database)
        errors: tuple[CoppiceError, ...] = ()
        if refresh_lists:
            report = refresh(store.all(), store=store, client=client, clock=clock, settings=settings, monitor=monitor)
            outcomes = report.outcomes
            errors = tuple(each.error.told_of(each.subscription.name) for each in outcomes if each.error is not None)
        else:
            outcomes = recall_lists(store, clock, settings.lists)
        with Obtainer(
            settings=settings, client=client, clock=clock, database=database, outcomes=outcomes, monitor=monitor
        ) as obtainer:
            if retry and not dry_run:
                obtainer.attempts.forget()
            done = cache_run(
                select(outcomes, store.unsubscribed(), store.taken_back()),
                obtainer=obtainer,
                settings=settings,
                database=database,
                clock=clock,
                monitor=monitor,
                dry_run=dry_run,
            )
    if not dry_run:
        tell(settings, database, clock, monitor)
    return replace(done, list_errors=errors)


def cache_run(
    desired: Desired,
    *,
    obtainer: Obtainer,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    dry_run: bool = False,
) -> FetchReport:
    """Fetch what is selected, take back what left, hand out what came. The caller holds the lock `LOCK_NAME`.

    Args:
        desired: What `coppice.workflows.select` makes of the lists.
        obtainer: Gets images.
        settings: All settings.
        database: Where it is kept what is handed out.
        clock: Tells the time.
        monitor: Where progress is told.
        dry_run: Do nothing, and say what would be done.

    Raises:
        DatabaseError: The database failed.
    """
    run = _Run(desired, obtainer, settings=settings, database=database, clock=clock, monitor=monitor)
    return run.preview() if dry_run else run.carry_out()


class _Run:
    def __init__(
        self,
        desired: Desired,
        obtainer: Obtainer,
        *,
        settings: Settings,
        database: Database,
        clock: Clock,
        monitor: Monitor,
    ) -> None:
        self._desired = desired
        self._obtainer = obtainer
        self._settings = settings
        self._clock = clock
        self._monitor = monitor
        self._journal = Journal(database)
        self._handed_out = HandedOut(database)
        self._files = HandOut(obtainer.shelf)
        self._session = new_session()
        self._done: list[ImageOutcome] = []
        self._names: dict[ImageKey, str] | None = None
        now = clock.now()
        self._wanted = {image.key: image for one in desired.lists for image in one.images if image.expires > now}

    def carry_out(self) -> FetchReport:
        """Do it."""
        begun = self._clock.now()
        self._tell(EventKind.CACHE_RUN_BEGUN, run_facts(self._session, images=len(self._wanted)), begun)
        handed = self._handed_out.all()
        self._confirm(handed)
        came = self._fetch([each for each in self._wanted.values() if not self._is_settled(each, handed)])
        for image in handed:
            reason = self._why_it_leaves(image, came.keys(), self._clock.now())
            if reason is not None:
                self._take_back(image, reason)
        for wanted in self._wanted.values():
            if wanted.key in came:
                self._hand_out(wanted, came[wanted.key])
        pruning = self._obtainer.pruning()
        pruned = pruning.prune()
        failed = sum(each.error is not None for each in self._done)
        facts = run_facts(self._session, images=len(self._wanted), changes=len(self._done) - failed, failed=failed)
        self._tell(EventKind.CACHE_RUN_ENDED, facts, self._clock.now())
        return FetchReport(
            wanted=len(self._wanted), images=tuple(self._done), unknown=pruning.demand.unknown, pruned=pruned
        )

    def preview(self) -> FetchReport:
        """Say what would be done."""
        handed = self._handed_out.all()
        missing = [each for each in self._wanted.values() if not self._is_settled(each, handed)]
        for image in handed:
            reason = self._why_it_leaves(image, {each.key for each in missing}, self._clock.now())
            if reason is not None:
                self._note(image.key, image.version, _title(image), "taken-back", reason)
        for each in missing:
            is_here = self._obtainer.find(each, whole=True) is not None
            self._note(each.key, each.listed.version, each.listed.title, "handed-out" if is_here else "fetched")
        pruning = self._obtainer.pruning()
        pruned = pruning.prune(dry_run=True)
        return FetchReport(
            wanted=len(self._wanted), images=tuple(self._done), unknown=pruning.demand.unknown, pruned=pruned
        )

    def _fetch(self, missing: Sequence[DesiredImage]) -> Mapping[ImageKey, CachedImage]:
        """Bring images here, several at a time; those that fail are told, and stop no other."""

        def bring(image: DesiredImage) -> CachedImage | CoppiceError:
            try:
                return self._obtainer.fetch(image, whole=True, told=False)
            except DatabaseError:
                raise
            except CoppiceError as problem:
                return problem

        if not missing:
            return {}
        with self._monitor.task("images", total=len(missing)) as task:
            results = in_parallel(
                missing,
                bring,
                threads=self._settings.transfer.images_parallel,
                on_done=lambda _: task.advance(1),
            )
        came: dict[ImageKey, CachedImage] = {}
        for image, result in zip(missing, results, strict=True):
            if isinstance(result, CoppiceError):
                self._note(image.key, image.listed.version, image.listed.title, "failed", error=result)
                continue
            came[image.key] = result
            if not result.reused:
                self._note(image.key, image.listed.version, image.listed.title, "fetched", result.method)
        return came

    def _is_settled(self, image: DesiredImage, handed: Iterable[HandedImage]) -> bool:
        """Tell whether an image is handed out as it is wanted, and nobody touched its file; nothing is read."""
        known = next((each for each in handed if each.key == image.key and _is_version(each, image)), None)
        if known is None or known.state is not HandState.HERE:
            return False
        entry = self._obtainer.shelf.layout.entry(known.checksum)
        return (
            entry is not None and entry.is_untouched() and self._files.is_as_given(known.file_name, known.given, entry)
        )

    def _why_it_leaves(self, image: HandedImage, came: Iterable[ImageKey], now: datetime) -> str | None:
        """Return why an image is handed out no more; None: it stays."""
        if image.state is HandState.LEAVING:
            return str(image.facts.get("reason") or "withdrawn")
        wanted = self._wanted.get(image.key)
        if wanted is not None:
            if _is_version(image, wanted):
                return None
            # Without the new one, the old one stays: no gap.
            if image.key in set(came):
                return "superseded"
        elif (reason := self._what_became_of_it(image)) is not None:
            return reason
        return "expired" if image.expires <= now else None

    def _what_became_of_it(self, image: HandedImage) -> str | None:
        identifier = image.key.list_identifier
        if identifier in self._desired.unsubscribed:
            return "unsubscribed"
        if identifier in self._desired.distrusted:
            return "distrusted"
        known = next((one for one in self._desired.lists if one.identifier == identifier), None)
        if known is None or image.key.image_identifier in known.unknown:
            return None
        named = {each.key for each in known.images}
        # What is named and wanted, and is not among the wanted of this run, has expired.
        return "expired" if image.key in named else "withdrawn"

    def _take_back(self, image: HandedImage, reason: str) -> None:
        try:
            told: dict[str, object] = {"session": self._session, "reason": reason}
            if image.state is not HandState.LEAVING:
                image = self._handed_out.leaves(image, self._clock.now(), **told)
            self._files.take_back(image.file_name, self._clock.now())
            self._handed_out.is_gone(image, self._clock.now(), **told)
        except DatabaseError:
            raise
        except CoppiceError as problem:
            self._note(image.key, image.version, _title(image), "failed", reason, error=problem)
        else:
            self._note(image.key, image.version, _title(image), "taken-back", reason)

    def _hand_out(self, image: DesiredImage, cached: CachedImage) -> None:
        now = self._clock.now()
        listed = image.listed
        try:
            handed = self._handed_out.all_of(image.key)
            if any(not _is_version(each, image) for each in handed):
                # The version before could not be taken back; the next run goes on.
                return
            known = handed[0] if handed else self._coming(image, cached, now)
            given = self._files.give(cached, known.file_name)
            self._handed_out.is_here(known, self._clock.now(), given=given, session=self._session)
        except DatabaseError:
            raise
        except CoppiceError as problem:
            self._note(image.key, listed.version, listed.title, "failed", error=problem)
        else:
            self._note(image.key, listed.version, listed.title, "handed-out")

    def _coming(self, image: DesiredImage, cached: CachedImage, now: datetime) -> HandedImage:
        if self._names is None:
            self._names = {each.key: each.file_name for each in self._handed_out.all()}
        self._names[image.key] = name = name_of(image.key, self._names.items())
        facts = self._obtainer.facts(
            image,
            file_name=name,
            sha512=cached.checksum,
            session=self._session,
            **{**how_it_came(cached), "path": str(self._files.directory / name)},
        )
        coming = HandedImage(
            number=0,
            key=image.key,
            version=image.listed.version,
            digest=image.listed.checksum,
            checksum=cached.checksum,
            file_name=name,
            state=HandState.COMING,
            expires=image.expires,
            since=now,
            facts=facts,
        )
        return self._handed_out.comes(coming, now)

    def _confirm(self, handed: Iterable[HandedImage]) -> None:
        expiries = {}
        for image in handed:
            wanted = self._wanted.get(image.key)
            if wanted is not None and _is_version(image, wanted) and wanted.expires != image.expires:
                expiries[image.number] = wanted.expires
        self._handed_out.confirm(expiries)

    def _tell(self, kind: EventKind, facts: Mapping[str, object], at: datetime) -> None:
        self._journal.record(kind, subject="cache", facts=facts, at=at)

    def _note(
        self,
        key: ImageKey,
        version: str,
        title: str,
        change: str,
        reason: str | None = None,
        *,
        error: CoppiceError | None = None,
    ) -> None:
        self._done.append(
            ImageOutcome(key=key, version=version, title=title, change=change, reason=reason, error=error)
        )


def _is_version(image: HandedImage, wanted: DesiredImage) -> bool:
    return (image.version, image.digest) == (wanted.listed.version, wanted.listed.checksum)


def _title(image: HandedImage) -> str:
    listed = image.facts.get("listed")
    return str(listed.get("title", "")) if isinstance(listed, dict) else ""
