# SPDX-License-Identifier: Apache-2.0
"""Two subscriptions to one list: whoever vouches for it to one of them must be whom the other believes, too.

Both name an endorser, but a name means what the trust anchors make of it: an authority of the same name and another
key, trusted by one subscription only, could otherwise sign the list that both follow. Likewise, one subscription may
believe a server what another believes only a key. The subscription that has followed the list for longer decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import (
    KeyringError,
    ListIdentifierError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerExpiredError,
    TrustAnchorError,
    TrustError,
)
from coppice.formats.cms import open_message
from coppice.subscription.path import check_path
from coppice.subscription.source.drivers import HEPIX
from coppice.subscription.source.protocol import Circumstances

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from coppice.settings.model import Settings
    from coppice.subscription.known import KnownSubscription
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.source.drivers import SourceShelf

_OWN_TROUBLES = (
    KeyringError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerExpiredError,
    TrustAnchorError,
)
"""What is wrong with the other subscription's files, or with the day; not with who signed. Its own refresh says so:
what cannot be judged for it stops nobody else."""


def longer_followers(
    one: KnownSubscription, others: Iterable[KnownSubscription], list_identifier: str
) -> tuple[Subscription, ...]:
    """Return the subscriptions that have followed a list for longer than ``one``, and believe by other means."""
    mine = one.in_force
    own = None if mine is None or mine.identifier != list_identifier else (mine.since, one.subscription.name)
    return tuple(
        each.subscription
        for each in others
        if each.in_force is not None
        and each.in_force.identifier == list_identifier
        and each.subscription.name != one.subscription.name
        and _means(each.subscription) != _means(one.subscription)
        and (own is None or (each.in_force.since, each.subscription.name) < own)
    )


def check_follower(
    verified: VerifiedImageList,
    message: bytes,
    other: Subscription,
    sources: SourceShelf,
    *,
    now: datetime,
    settings: Settings,
) -> None:
    """Check that ``other``, which follows the same list, would believe who vouches for it.

    Raises:
        ListIdentifierError: To it, that is somebody else.
    """
    try:
        if other.source.driver == HEPIX:
            opened = open_message(message, limits=settings.lists, allow_sha1=True)
            anchors = sources.supplies.anchors.load(other.trust.anchors)
            check_path(
                opened.signer_certificate, opened.other_certificates, anchors, trust=other.trust, dates_at=now, now=now
            )
        else:
            circumstances = Circumstances(last=None, now=now, limits=settings.lists, terms=settings.subscriptions)
            sources.open(other.source).verify(message, other, circumstances)
    except _OWN_TROUBLES:
        return
    except TrustError as problem:
        identifier = verified.content.identifier
        means = "trust anchors" if other.source.driver == HEPIX else "keys"
        raise ListIdentifierError(
            f"the list has the identifier {identifier}, as the list of subscription {other.name!r}, by whose {means} "
            f"{verified.trusted_by.signer} is not who vouches for it",
            details=f"Neither list may touch the other's images. [{problem.code}] {problem.message}",
            resolution=f"Have both subscriptions use the same {means}; or ask the publisher of this one for an "
            "identifier of its own.",
            context={"list": identifier, "subscription": other.name},
        ) from problem


def _means(subscription: Subscription) -> tuple[object, ...]:
    return subscription.trust.anchors, subscription.source.driver, subscription.source.options
