# SPDX-License-Identifier: Apache-2.0
"""Sync: what the subscribed lists say becomes what the clouds have.

Refresh → select → describe the clouds → plan → for each action: fetch → convert → register → flip → hide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.store import ImageCache
from coppice.conversion.convert import Converter
from coppice.conversion.model import ConversionLimits
from coppice.errors import NotFoundError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.http.access import Access
from coppice.schedule.lock import run_lock
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.converge import LOCK_NAME, SyncReport, converge, policy_of
from coppice.workflows.refresh import ListOutcome, RefreshReport, refresh
from coppice.workflows.select import select, unreadable_entries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from coppice.clock import Clock
    from coppice.cloud.apply import Obtain
    from coppice.cloud.model import Cloud, DesiredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.database import Database
    from coppice.http import Client
    from coppice.model.identifiers import ListIdentifier
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription


def sync(
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    clouds: Mapping[str, Cloud],
    client: Client,
    only: Collection[str] | None = None,
    dry_run: bool = False,
    allow_withdrawals: bool = False,
    wait_seconds: float = 0,
) -> SyncReport:
    """Bring ``clouds`` to what the subscribed lists say; a list or a cloud that fails never stops the others.

    Args:
        settings: All settings.
        database: Where subscriptions and the journal are.
        clock: Tells the time.
        monitor: Where progress is told.
        clouds: By name.
        client: Fetches lists and images.
        only: Names of the subscriptions to follow in this run; the other lists stay as they are. None: all.
        dry_run: Fetch and verify the lists, and plan; change no cloud and fetch no image.
        allow_withdrawals: The administrator confirmed what the cap on withdrawals would hold.
        wait_seconds: How long to wait for another run to end.

    Raises:
        LockedError: Another run is at work.
        NotFoundError: ``only`` names a subscription that there is not.
        DatabaseError: The database failed.
    """
    with run_lock(settings.state_directory / LOCK_NAME, wait_seconds):
        store, journal = SubscriptionStore(database), Journal(database)
        followed = tuple(store.all())
        chosen = _chosen(followed, only)
        refreshed = refresh(chosen, store=store, client=client, clock=clock, settings=settings, monitor=monitor)
        # What is not looked at in this run is followed still: it is unknown, not unsubscribed.
        idle = tuple(
            ListOutcome(subscription=each, verified=None, fresh=False) for each in followed if each not in chosen
        )
        desired = select((*refreshed.outcomes, *idle), store.unsubscribed(), store.taken_back())
        reports = converge(
            desired,
            clouds,
            policy=policy_of(settings.plan, allow_withdrawals=allow_withdrawals),
            obtain=_obtain(settings, client, clock, journal, refreshed),
            clock=clock,
            monitor=monitor,
            journal=journal,
            dry_run=dry_run,
        )
        return SyncReport(refreshed=refreshed, unreadable=unreadable_entries(refreshed.outcomes), clouds=reports)


def _chosen(followed: tuple[Subscription, ...], only: Collection[str] | None) -> tuple[Subscription, ...]:
    if only is None:
        return followed
    missing = sorted(set(only) - {each.name for each in followed})
    if missing:
        raise NotFoundError(
            f"there is no subscription {', '.join(missing)}",
            resolution="`coppice subscription list` shows those that there are.",
        )
    return tuple(each for each in followed if each.name in only)


def _local_lists(refreshed: RefreshReport) -> frozenset[ListIdentifier]:
    known = [outcome for outcome in refreshed.outcomes if outcome.verified is not None]
    # A list that is followed at two places counts as local only when both are.
    local, distant = (
        {
            outcome.verified.content.identifier
            for outcome in known
            if outcome.verified is not None and outcome.subscription.uri.startswith("file:") is is_local
        }
        for is_local in (True, False)
    )
    return frozenset(local - distant)


def _accesses(refreshed: RefreshReport) -> dict[ListIdentifier, list[Access]]:
    """Return how the servers of each list are approached: as those who follow it said, and never for another list."""
    found: dict[ListIdentifier, list[Access]] = {}
    for outcome in refreshed.outcomes:
        if outcome.verified is not None:
            one = outcome.subscription
            access = Access(url=one.uri, credential=one.credential, server_anchors=one.server_anchors)
            found.setdefault(outcome.verified.content.identifier, []).append(access)
    return found


def _obtain(settings: Settings, client: Client, clock: Clock, journal: Journal, refreshed: RefreshReport) -> Obtain:
    local, accesses = _local_lists(refreshed), _accesses(refreshed)
    # Only a list that comes from this machine may name files of this machine.
    caches = {
        is_local: ImageCache(settings.state_directory / "cache", client=client, clock=clock, allow_file_uris=is_local)
        for is_local in (True, False)
    }
    converter = Converter(
        settings.state_directory / "conversion",
        ConversionLimits(
            maximum_virtual_size_bytes=settings.conversion.maximum_virtual_size_bytes,
            memory_bytes=settings.conversion.memory_bytes,
            timeout_seconds=settings.conversion.timeout_seconds,
        ),
    )

    def obtain(desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        followed = desired.key.list_identifier
        cached = caches[followed in local].obtain(
            desired.key, desired.listed, monitor, accesses=accesses.get(followed, ())
        )
        if not cached.reused:
            facts = {"version": cached.version, "checksum": str(cached.checksum), "path": str(cached.path)}
            journal.record(EventKind.IMAGE_NEW, subject=str(desired.key), facts=facts, at=clock.now())
            journal.record(EventKind.IMAGE_CACHED, subject=str(desired.key), facts=facts, at=clock.now())
        return converter.convert(cached, formats, monitor)

    return obtain
