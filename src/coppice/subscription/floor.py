# SPDX-License-Identifier: Apache-2.0
"""The floor against rollback, and whose list an identifier is: both outlive the subscription.

Every function works in the session that it is handed, so that what it found holds until the transaction ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.errors import ListIdentifierError, NotFoundError
from coppice.subscription.list_rules import check_version
from coppice.subscription.model import TrustBasis
from coppice.subscription.rows import canonical, name_pairs, read_row, read_trusted
from coppice.subscription.tables import ArchivedListRow, SubscriptionRow, TrustedVersionRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.model.identifiers import ListIdentifier
    from coppice.subscription.model import Subscription, TrustedVersion, VerifiedImageList


def floor_of(session: Session, list_identifier: str) -> TrustedVersion | None:
    """Return what no version of a list may be behind; None: it was never verified here, or its floor was reset."""
    row = session.get(TrustedVersionRow, canonical(list_identifier))
    return None if row is None or row.is_open else read_trusted(row)


def raise_floor(session: Session, subscription: Subscription, verified: VerifiedImageList) -> None:
    """Make a verified list the floor, unless it is behind what is the floor now.

    Raises:
        OlderListError: A higher version of this list was verified before.
        ChangedListError: This version was verified before with other content.
    """
    content = verified.content
    check_version(content, verified.payload_checksum, floor_of(session, content.identifier))
    row = session.get(TrustedVersionRow, content.identifier)
    if row is None:
        row = TrustedVersionRow(list_identifier=content.identifier)
        session.add(row)
    row.version = content.version
    row.payload_sha512 = verified.payload_checksum.hexdigest
    row.created = content.validity.created
    row.seen_at = verified.verified_at
    row.is_open = False
    row.endorsers = sorted(_pairs(subscription, verified))
    row.vouchers = None if verified.trusted_by.basis is TrustBasis.X509 else [_voucher(verified)]


def refuse_taken(session: Session, subscription: Subscription, verified: VerifiedImageList) -> None:
    """Refuse a list whose identifier is another endorser's list: it would take that list's place.

    A list is the same endorser's when every other subscription that follows it trusts the signer, too; and when this
    subscription followed it before, or trusts one of those who vouched for it before. A list of one kind of source is
    never one of another. Whether two sources of a kind other than ``hepix`` trust the same is judged where their
    messages are at hand: `coppice.subscription.followers`.

    Raises:
        ListIdentifierError: It is another's.
    """
    identifier = verified.content.identifier
    others = select(SubscriptionRow).where(
        SubscriptionRow.list_identifier == identifier, SubscriptionRow.name != subscription.name
    )
    for row in session.scalars(others):
        other = read_row(row)
        trust = other.trust
        pins = trust.pins(verified.signer, verified.signer_issuer, verified.signer_fingerprint)
        if other.source.driver != subscription.source.driver:
            raise _taken(
                verified,
                f"as the list of subscription {row.name!r}, whose source is {other.source.driver}",
                "Ask the publisher of this one for an identifier of its own.",
                {"subscription": row.name},
            )
        if trust.endorsers and not pins:
            raise _taken(
                verified,
                f"as the list of subscription {row.name!r}, which does not trust {verified.trusted_by.signer}",
                f"If the list has a new endorser, name it with `coppice subscription endorser add {row.name}` first. "
                "Otherwise ask the publisher of this one for an identifier of its own.",
                {"subscription": row.name},
            )
    known = session.get(TrustedVersionRow, identifier)
    if known is None or known.endorsers is None or _followed_before(session, subscription.name, identifier):
        return
    is_same = any(pair in known.endorsers for pair in _pairs(subscription, verified))
    if not is_same and _voucher(verified) not in (known.vouchers or []):
        raise _taken(
            verified,
            "as a list that was followed here before, and that others vouched for",
            "If it is the same list with a new endorser, and its publisher confirms it, let "
            f"`coppice subscription reset-version {subscription.name} --list {identifier}` forget the others.",
            {},
        )


def reset_floor(session: Session, subscription: Subscription, list_identifier: str, now: datetime) -> str:
    """Let any version of a list be the next one, vouched for by the subscription's endorsers; return the old floor.

    Raises:
        NotFoundError: No version of that list was ever verified here.
    """
    row = session.get(TrustedVersionRow, canonical(list_identifier))
    if row is None:
        raise NotFoundError(
            f"no version of the list {list_identifier[:80]!r} was ever verified here",
            resolution="There is no floor to reset.",
        )
    row.reset_from = row.version
    row.is_open = True
    row.seen_at = now
    row.endorsers = [[name_pairs(each.subject), name_pairs(each.issuer)] for each in subscription.trust.endorsers]
    row.endorsers = row.endorsers or None
    row.vouchers = None
    return row.version


def taken_back(session: Session) -> dict[ListIdentifier, str]:
    """Return the version that an administrator took back last, of each list of which one was."""
    from coppice.model.identifiers import ListIdentifier

    rows = session.scalars(select(TrustedVersionRow).where(TrustedVersionRow.reset_from.is_not(None)))
    return {ListIdentifier(row.list_identifier): str(row.reset_from) for row in rows}


def _pairs(subscription: Subscription, verified: VerifiedImageList) -> list[list[list[list[str]]]]:
    """Return subject and issuer of whose certificates vouch for a list; empty where none does."""
    pinned = {(each.subject, each.issuer) for each in subscription.trust.endorsers}
    if verified.signer is not None and verified.signer_issuer is not None:
        pinned.add((verified.signer, verified.signer_issuer))
    return [[name_pairs(subject), name_pairs(issuer)] for subject, issuer in pinned]


def _voucher(verified: VerifiedImageList) -> list[str]:
    return [str(verified.trusted_by.basis), verified.trusted_by.signer]


def _followed_before(session: Session, name: str, list_identifier: str) -> bool:
    kept = select(ArchivedListRow.number).where(
        ArchivedListRow.subscription == name, ArchivedListRow.list_identifier == list_identifier
    )
    return session.scalars(kept.limit(1)).first() is not None


def _taken(verified: VerifiedImageList, whose: str, resolution: str, context: dict[str, object]) -> ListIdentifierError:
    identifier = verified.content.identifier
    return ListIdentifierError(
        f"the list has the identifier {identifier}, {whose}",
        details=f"Neither list may touch the other's images. This one is vouched for by {verified.trusted_by.signer}",
        resolution=resolution,
        context={"list": identifier, **context},
    )
