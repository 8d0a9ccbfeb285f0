# SPDX-License-Identifier: Apache-2.0
"""What lists say: of those that were archived, and of what a source has now, without recording anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DocumentError, StateError
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.subscription.anchors import load_anchors
from coppice.subscription.fetch import fetch_list
from coppice.subscription.rules import verify_list

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.http import Client
    from coppice.imagelist.model import ImageList
    from coppice.settings.model import Settings
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.store import SubscriptionStore


def archived_content(message: bytes, subscription: Subscription, limits: ListLimits) -> ImageList:
    """Return what an archived list says, to be shown and compared: it was verified when it was archived.

    Its signature is checked once more; certificates and dates are not. Nothing may be registered from it.

    Raises:
        TrustError: Its signature does not hold.
        StateError: It cannot be read as the subscription demands today (its profile changed, or the limits).
    """
    opened = open_message(message, limits=limits, allow_sha1=True)
    try:
        return read_list(opened.payload, profile=subscription.trust.profile, limits=limits)
    except DocumentError as problem:
        raise StateError(
            f"an archived list of {subscription.name!r} cannot be read under the profile {subscription.trust.profile}: "
            f"{problem.message}",
            details=problem.details,
            resolution="It was archived under another profile or other limits.",
        ) from problem


def fetch_and_verify(
    subscription: Subscription, store: SubscriptionStore, client: Client, settings: Settings, now: datetime
) -> VerifiedImageList:
    """Return what the source of a subscription has now, verified by every rule; nothing is recorded.

    Raises:
        TransferError: It could not be had.
        TrustError: A rule failed.
        CredentialError: The credential cannot be had.
    """
    identifier = subscription.list_identifier
    return verify_list(
        fetch_list(subscription, client, settings.lists.message_bytes).body or b"",
        subscription=subscription,
        anchors=load_anchors(subscription.trust.anchors),
        last=None if identifier is None else store.last_trusted(identifier),
        now=now,
        limits=settings.lists,
        terms=settings.subscriptions,
    )
