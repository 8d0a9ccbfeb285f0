# SPDX-License-Identifier: Apache-2.0
"""Listed: what the lists that were verified last name and still hold; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import CoppiceError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.selection import Selector, Wish
from coppice.workflows.refresh import ListOutcome, is_distrusted
from coppice.workflows.sources import judging_sources

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ListedImage
    from coppice.subscription.store import SubscriptionStore


def recall_lists(
    store: SubscriptionStore, clock: Clock, limits: ListLimits = DEFAULT_LIMITS
) -> tuple[ListOutcome, ...]:
    """Return what is known of each subscription's list today, as a refresh does that asks no source.

    Raises:
        DatabaseError: The database failed.
    """
    outcomes = []
    sources = judging_sources(store.database, clock, limits)
    for subscription in store.all():
        try:
            verified = store.recall(subscription.name, sources, clock.now(), limits=limits)
            outcomes.append(ListOutcome(subscription=subscription, verified=verified, fresh=False))
        except CoppiceError as problem:
            outcomes.append(
                ListOutcome(
                    subscription=subscription,
                    verified=None,
                    fresh=False,
                    error=problem,
                    distrusted=is_distrusted(problem, subscription),
                )
            )
    return tuple(outcomes)


def listed_images(
    store: SubscriptionStore, clock: Clock, limits: ListLimits = DEFAULT_LIMITS
) -> tuple[tuple[tuple[str, ListedImage], ...], tuple[tuple[str, CoppiceError], ...]]:
    """Return the wanted images, each with its subscription; and the subscriptions whose list is unknown, with why.

    An image of which it cannot be told whether it is wanted is among them: what is known of it may still be needed.

    Raises:
        DatabaseError: The database failed.
    """
    known: list[tuple[str, ListedImage]] = []
    unknown: list[tuple[str, CoppiceError]] = []
    for outcome in recall_lists(store, clock, limits):
        name = outcome.subscription.name
        if outcome.verified is None:
            unknown.append((name, outcome.error or CoppiceError("its list is not known")))
            continue
        try:
            known += [(name, image) for image in maybe_wanted(outcome)]
        except CoppiceError as problem:
            unknown.append((name, problem))
    return tuple(known), tuple(unknown)


def maybe_wanted(outcome: ListOutcome) -> tuple[ListedImage, ...]:
    """Return the images of a known list that are wanted, or of which that cannot be told.

    Raises:
        InputError: The selection's expression is none.
    """
    if outcome.verified is None:
        return ()
    selector, content = Selector(outcome.subscription.selection), outcome.verified.content
    return tuple(image for image in content.images if selector.wish(image, content.vo) is not Wish.UNWANTED)
