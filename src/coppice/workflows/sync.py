# SPDX-License-Identifier: Apache-2.0
"""Sync: what the subscribed lists say becomes what the clouds have.

Refresh → select → describe the clouds → plan → for each action: fetch → convert → register → flip → hide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.revocations import Revocations
from coppice.errors import NotFoundError
from coppice.schedule.lock import run_lock
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.converge import LOCK_NAME, Site, SyncReport, converge
from coppice.workflows.fetch import LOCK_NAME as CACHE_LOCK_NAME
from coppice.workflows.fetch import cache_run
from coppice.workflows.obtain import Obtainer
from coppice.workflows.refresh import ListOutcome, refresh
from coppice.workflows.select import select, unreadable_entries
from coppice.workflows.tell import tell

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.database import Database
    from coppice.http import Client
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription

FETCH_ALL = "all"
"""Value of `cache.fetch` at sites whose hooks register images."""


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
        store = SubscriptionStore(database)
        site = Site(settings=settings, database=database, clock=clock, monitor=monitor)
        followed = tuple(store.all())
        chosen = _chosen(followed, only)
        refreshed = refresh(chosen, store=store, client=client, clock=clock, settings=settings, monitor=monitor)
        # What is not looked at in this run is followed still: it is unknown, not unsubscribed.
        idle = tuple(
            ListOutcome(subscription=each, verified=None, fresh=False) for each in followed if each not in chosen
        )
        outcomes = (*refreshed.outcomes, *idle)
        revocations = Revocations(database).in_force()
        desired = select(outcomes, store.unsubscribed(), store.taken_back(), revocations)
        with Obtainer(
            settings=settings, client=client, clock=clock, database=database, outcomes=outcomes, monitor=monitor
        ) as obtainer:
            cache = None
            if settings.cache.fetch == FETCH_ALL:
                with run_lock(settings.state_directory / CACHE_LOCK_NAME, wait_seconds):
                    cache = cache_run(
                        desired,
                        obtainer=obtainer,
                        settings=settings,
                        database=database,
                        clock=clock,
                        monitor=monitor,
                        dry_run=dry_run,
                    )
            reports = converge(
                desired,
                clouds,
                site,
                supplies=obtainer.supply,
                dry_run=dry_run,
                allow_withdrawals=allow_withdrawals,
                wait_seconds=wait_seconds,
            )
            pruned = obtainer.pruning().prune() if cache is None and not dry_run else None
        report = SyncReport(
            refreshed=refreshed,
            unreadable=unreadable_entries(refreshed.outcomes),
            clouds=reports,
            cache=cache,
            pruned=pruned,
        )
    if not dry_run:
        # Hooks may take their time: the next run need not wait for them.
        tell(settings, database, clock, monitor)
    return report


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
