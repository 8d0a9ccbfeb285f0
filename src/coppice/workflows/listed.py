# SPDX-License-Identifier: Apache-2.0
"""Listed: what the lists that were verified last name and still hold; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import CoppiceError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.selection import Selector, Wish
from coppice.subscription.source.drivers import judging_shelf

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ListedImage
    from coppice.subscription.store import SubscriptionStore


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
    sources = judging_shelf(clock, limits)
    for subscription in store.all():
        try:
            recalled = store.recall(subscription.name, sources, clock.now(), limits=limits)
            selector = Selector(subscription.selection)
        except CoppiceError as problem:
            unknown.append((subscription.name, problem))
            continue
        vo = recalled.content.vo
        known += [
            (subscription.name, image)
            for image in recalled.content.images
            if selector.wish(image, vo) is not Wish.UNWANTED
        ]
    return tuple(known), tuple(unknown)
