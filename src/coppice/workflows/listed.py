# SPDX-License-Identifier: Apache-2.0
"""Listed: what the lists that were verified last name and still hold; nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import CoppiceError
from coppice.subscription.anchors import load_anchors

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.imagelist.model import ListedImage
    from coppice.subscription.store import SubscriptionStore


def listed_images(
    store: SubscriptionStore, clock: Clock
) -> tuple[tuple[tuple[str, ListedImage], ...], tuple[tuple[str, CoppiceError], ...]]:
    """Return the wanted images, each with its subscription; and the subscriptions whose list is unknown, with why.

    Raises:
        DatabaseError: The database failed.
    """
    known: list[tuple[str, ListedImage]] = []
    unknown: list[tuple[str, CoppiceError]] = []
    for subscription in store.all():
        try:
            recalled = store.recall(subscription.name, load_anchors(subscription.trust.anchors), clock.now())
        except CoppiceError as problem:
            unknown.append((subscription.name, problem))
            continue
        known += [
            (subscription.name, image)
            for image in recalled.content.images
            if not subscription.selection.images or image.identifier in subscription.selection.images
        ]
    return tuple(known), tuple(unknown)
