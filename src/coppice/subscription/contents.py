# SPDX-License-Identifier: Apache-2.0
"""What lists say: of those that were archived, and of what a source has now, without recording anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.errors import DocumentError, StateError
from coppice.subscription.source.protocol import Circumstances

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.imagelist.model import ImageList
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.source.drivers import SourceShelf
    from coppice.subscription.store import SubscriptionStore


def archived_content(
    message: bytes, subscription: Subscription, sources: SourceShelf, limits: ListLimits, *, version: str
) -> ImageList:
    """Return what an archived list says, to be shown and compared: it was verified when it was archived.

    Its signature is checked once more where the message is all that takes; certificates and dates are not. Nothing may
    be registered from it.

    Args:
        message: As it was archived.
        subscription: Whose it is.
        sources: Read it.
        limits: How much a list may be.
        version: As it was archived: where nobody signs one, the message alone does not tell it.

    Raises:
        TrustError: Its signature does not hold.
        StateError: It cannot be read as the subscription demands today (its profile changed, or the limits).
    """
    try:
        content = sources.open(subscription.source).read(message, subscription, limits)
    except DocumentError as problem:
        raise StateError(
            f"an archived list of {subscription.name!r} cannot be read under the profile {subscription.trust.profile}: "
            f"{problem.message}",
            details=problem.details,
            resolution="It was archived under another profile or other limits.",
        ) from problem
    return replace(content, version=version)


def fetch_and_verify(
    subscription: Subscription, store: SubscriptionStore, sources: SourceShelf, settings: Settings, now: datetime
) -> VerifiedImageList:
    """Return what the source of a subscription has now, verified by every rule; nothing is recorded.

    Raises:
        TransferError: It could not be had.
        TrustError: A rule failed.
        CredentialError: The credential cannot be had.
    """
    identifier = subscription.list_identifier
    source = sources.open(subscription.source)
    circumstances = Circumstances(
        last=None if identifier is None else store.last_trusted(identifier),
        now=now,
        limits=settings.lists,
        terms=settings.subscriptions,
        previous=None if identifier is None else lambda: store.last_message(subscription.name),
        earlier=None if identifier is None else lambda: store.earlier_messages(subscription.name),
    )
    return source.verify(source.fetch(subscription, None).body or b"", subscription, circumstances)
