# SPDX-License-Identifier: Apache-2.0
"""Refresh: fetch and verify each subscribed list; where that fails, go on with what was verified last.

A list that cannot be fetched or is refused changes nothing: the last verified one is recalled while its dates hold,
and otherwise the list is unknown. Both are told; neither ever becomes an empty list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import CoppiceError
from coppice.subscription.anchors import load_anchors
from coppice.subscription.fetch import fetch_list
from coppice.subscription.rules import verify_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.clock import Clock
    from coppice.http import Client
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.store import SubscriptionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOutcome:
    """What became of one subscription.

    Attributes:
        subscription: Which.
        verified: Its list, fresh or recalled; None: nothing that is known of it holds today.
        fresh: True when the list was fetched and verified in this run.
        error: Why it is not fresh.
    """

    subscription: Subscription
    verified: VerifiedImageList | None
    fresh: bool
    error: CoppiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What became of all of them, in their order."""

    outcomes: tuple[ListOutcome, ...]

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """Why lists are not fresh."""
        return tuple(outcome.error for outcome in self.outcomes if outcome.error is not None)


def refresh(
    subscriptions: Iterable[Subscription],
    *,
    store: SubscriptionStore,
    client: Client,
    clock: Clock,
    settings: Settings,
    monitor: Monitor,
) -> RefreshReport:
    """Fetch, verify and record the list of each subscription; one that fails never stops the others.

    Raises:
        DatabaseError: What became of them cannot be recorded.
    """
    wanted = tuple(subscriptions)
    outcomes: list[ListOutcome] = []
    with monitor.task("image lists", total=len(wanted)) as task:
        for subscription in wanted:
            task.note(subscription.name)
            try:
                verified = _fetch_and_verify(subscription, store, client, clock, settings)
            except CoppiceError as problem:
                store.record_failure(subscription.name, problem, clock.now())
                recalled = _recall(subscription, store, clock)
                outcomes.append(ListOutcome(subscription=subscription, verified=recalled, fresh=False, error=problem))
            else:
                outcomes.append(ListOutcome(subscription=subscription, verified=verified, fresh=True))
            task.advance(1)
    return RefreshReport(outcomes=tuple(outcomes))


def _fetch_and_verify(
    subscription: Subscription, store: SubscriptionStore, client: Client, clock: Clock, settings: Settings
) -> VerifiedImageList:
    anchors = load_anchors(subscription.trust.anchors)
    # Without validators there is always something to verify.
    message = fetch_list(subscription, client, settings.transfer.list_size_limit_bytes).body or b""
    identifier = subscription.list_identifier
    last = store.last_trusted(identifier) if identifier is not None else None
    verified = verify_list(message, subscription=subscription, anchors=anchors, last=last, now=clock.now())
    store.record(verified, message)
    return verified


def _recall(subscription: Subscription, store: SubscriptionStore, clock: Clock) -> VerifiedImageList | None:
    try:
        recalled = store.recall(subscription.name, load_anchors(subscription.trust.anchors), clock.now())
    except CoppiceError:
        # What was verified once is not trusted today (its date, a revocation, missing anchors): nothing is known, and
        # the reason why the fresh list failed is told already.
        return None
    if recalled is None or recalled.content.validity.is_expired(clock.now()):
        return None
    return recalled
