# SPDX-License-Identifier: Apache-2.0
"""Two subscriptions to one list: whoever signs it for one of them must be whom the other believes, too.

Both name an endorser, but a name means what the trust anchors make of it: an authority of the same name and another
key, trusted by one subscription only, could otherwise sign the list that both follow. The subscription that has
followed the list for longer decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import (
    ListIdentifierError,
    RevocationExpiredError,
    RevocationForgedError,
    RevocationUnknownError,
    SignerExpiredError,
    TrustError,
)
from coppice.formats.cms import open_message
from coppice.subscription.path import check_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from coppice.formats.limits import ListLimits
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import Subscription, VerifiedImageList
    from coppice.subscription.sources import Source

_OWN_TROUBLES = (RevocationUnknownError, RevocationExpiredError, RevocationForgedError, SignerExpiredError)
"""What is wrong with the other subscription's files, or with the day; not with who signed."""


def longer_followers(source: Source, sources: Iterable[Source], list_identifier: str) -> tuple[Subscription, ...]:
    """Return the subscriptions that have followed a list for longer than ``source``, by other trust anchors."""
    mine = source.in_force
    own = None if mine is None or mine.identifier != list_identifier else (mine.since, source.subscription.name)
    return tuple(
        each.subscription
        for each in sources
        if each.in_force is not None
        and each.in_force.identifier == list_identifier
        and each.subscription.name != source.subscription.name
        and each.subscription.trust.anchors != source.subscription.trust.anchors
        and (own is None or (each.in_force.since, each.subscription.name) < own)
    )


def check_follower(
    verified: VerifiedImageList,
    message: bytes,
    other: Subscription,
    anchors: TrustAnchors,
    *,
    now: datetime,
    limits: ListLimits,
) -> None:
    """Check that ``other``, which follows the same list, would believe its signer.

    Raises:
        ListIdentifierError: By its trust anchors, the signer is somebody else.
    """
    opened = open_message(message, limits=limits, allow_sha1=True)
    try:
        check_path(
            opened.signer_certificate, opened.other_certificates, anchors, trust=other.trust, dates_at=now, now=now
        )
    except _OWN_TROUBLES:
        return
    except TrustError as problem:
        identifier = verified.content.identifier
        raise ListIdentifierError(
            f"the list has the identifier {identifier}, as the list of subscription {other.name!r}, by whose trust "
            f"anchors {verified.signer} is not who signed it",
            details=f"Neither list may touch the other's images. [{problem.code}] {problem.message}",
            resolution="Have both subscriptions use the same trust anchors; or ask the publisher of this one for an "
            "identifier of its own.",
            context={"list": identifier, "subscription": other.name},
        ) from problem
