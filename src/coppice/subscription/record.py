# SPDX-License-Identifier: Apache-2.0
"""Record what became of a subscription's list; each function works in one transaction, with the events it tells of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.errors import ListIdentifierError, StateError, TransferError, WrongSignerError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.identifiers import ListIdentifier
from coppice.subscription import archive, floor, freshness
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import TrustBasis
from coppice.subscription.rows import canonical, find_row, read_row, write_row
from coppice.subscription.source.drivers import HEPIX
from coppice.subscription.tables import (
    ArchivedListRow,
    CurrentListRow,
    SubscriptionRow,
    UnsubscribedListRow,
)
from coppice.subscription.told_images import tell_images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.errors import CoppiceError
    from coppice.http import Validators
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.model import ListWarning, Subscription, VerifiedImageList

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is said of a list in force that was judged anew, without the list.

    Attributes:
        warnings: As `coppice.subscription.model.VerifiedImageList` has them.
        anchors_state: Likewise.
    """

    warnings: tuple[ListWarning, ...]
    anchors_state: str


def record_verified(
    session: Session,
    verified: VerifiedImageList,
    message: bytes,
    *,
    as_of: Subscription | None,
    etag: str | None,
    last_modified: str | None,
    terms: SubscriptionsSettings | None,
) -> tuple[ListWarning, ...]:
    """Keep a verified list as the bytes that were signed; the first one fixes the subscription's list.

    The floor against rollback only rises: it is looked at once more in the transaction that raises it. Another run,
    or another subscription to the same list, may have raised it meanwhile, and a subscription that did not know its
    list yet had no floor.

    Args:
        session: The transaction.
        verified: The list.
        message: Its bytes.
        as_of: The subscription that it was verified for; None: as it is kept.
        etag: What the source said of these bytes, for the next request.
        last_modified: Likewise.
        terms: How far ahead to warn, and how much is archived; None: the defaults of the settings.

    Returns:
        What the site should know beyond the list's own warnings: image identifiers that other lists use, too.

    Raises:
        NotFoundError: The subscription is gone.
        StateError: The subscription was changed meanwhile: the list was verified by rules that hold no more.
        WrongSignerError: The subscription does not trust the signer any more.
        ListIdentifierError: The subscription follows another list, or the identifier is another endorser's list.
        OlderListError: A higher version of this list was verified before.
        ChangedListError: This version was verified before with other content.
    """
    terms = terms or DEFAULT_TERMS
    row = find_row(session, verified.subscription)
    subscription = read_row(row)
    _check_still(subscription, as_of, verified)
    floor.refuse_taken(session, subscription, verified)
    if verified.newly_pinned is not None and not subscription.trust.endorsers:
        subscription = _pin_first(session, row, subscription, verified)
    floor.raise_floor(session, subscription, verified)
    if row.list_identifier is None:
        row.list_identifier = verified.content.identifier
    follow(session, row.list_identifier)
    kept, is_new = archive.keep(session, row.name, verified, message)
    freshness.note_images(session, verified.content)
    shared = freshness.shared_identifiers(session, verified.content.identifier)
    known = session.get(CurrentListRow, row.name)
    current = known or CurrentListRow(subscription=row.name, told=[])
    current.archived = kept.number
    current.images = len(verified.content.images)
    current.anchors_state = verified.anchors_state
    freshness.keep_warnings(current, verified.warnings)
    session.add(current)
    session.flush()
    archive.prune(session, row.name, terms.archive_keep)
    if is_new:
        _tell_verified(session, row, verified)
    tell_images(session, subscription, verified, had_list=known is not None)
    freshness.tell_dates(session, current, kept, now=verified.verified_at, warn_list_days=terms.warn_list_days)
    row.etag, row.last_modified = etag, last_modified
    row.checked_at = row.fetched_at = verified.verified_at
    row.last_attempt_at = verified.verified_at
    row.last_error_code = row.last_error = None
    return shared


def record_rolled_forward(
    session: Session,
    verified: VerifiedImageList,
    message: bytes,
    *,
    as_of: Subscription,
    terms: SubscriptionsSettings | None,
) -> None:
    """Put an archived list in force that was verified anew; what became of the source stays as it was noted.

    Raises:
        CoppiceError: As `record_verified`.
    """
    row = find_row(session, verified.subscription)
    noted = (row.checked_at, row.fetched_at, row.last_attempt_at, row.last_error_code, row.last_error)
    record_verified(session, verified, message, as_of=as_of, etag=None, last_modified=None, terms=terms)
    row.checked_at, row.fetched_at, row.last_attempt_at, row.last_error_code, row.last_error = noted
    facts = {"change": "rolled forward", "list": verified.content.identifier, "version": verified.content.version}
    write_event(session, EventKind.SUBSCRIPTION_CHANGED, subject=row.name, facts=facts, at=verified.verified_at)


def record_unchanged(
    session: Session,
    names: Sequence[str],
    now: datetime,
    *,
    warn_list_days: float,
    judged: Mapping[str, Judged],
    as_of: Mapping[str, Subscription],
    validators: Mapping[str, tuple[str | None, Validators]],
) -> None:
    """Note that sources have what is in force already.

    A subscription that is gone meanwhile is passed over, and one that was changed: it may trust others now.
    """
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        for row in session.scalars(select(SubscriptionRow).where(SubscriptionRow.name.in_(chunk))):
            if row.name in as_of and not _is_still(read_row(row), as_of[row.name]):
                continue
            row.checked_at = row.last_attempt_at = now
            row.last_error_code = row.last_error = None
            asked_with, said = validators.get(row.name, (None, None))
            if said is not None and row.etag == asked_with:
                # A source may say more of the same list than it could before; another run took no other one meanwhile.
                row.etag, row.last_modified = said.etag, said.last_modified
    for current, _ in _in_force(session, names):
        if current.subscription in judged:
            freshness.keep_warnings(current, judged[current.subscription].warnings)
            current.anchors_state = judged[current.subscription].anchors_state
    tell_dates(session, names, now, warn_list_days=warn_list_days)


def tell_dates(session: Session, names: Sequence[str], now: datetime, *, warn_list_days: float) -> None:
    """Write events for what of the lists in force ends soon or has ended, each once."""
    for current, kept in _in_force(session, names):
        freshness.tell_dates(session, current, kept, now=now, warn_list_days=warn_list_days)


def _in_force(session: Session, names: Sequence[str]) -> list[tuple[CurrentListRow, ArchivedListRow]]:
    found: list[tuple[CurrentListRow, ArchivedListRow]] = []
    for start in range(0, len(names), _CHUNK):
        rows = session.execute(
            select(CurrentListRow, ArchivedListRow)
            .join(ArchivedListRow, ArchivedListRow.number == CurrentListRow.archived)
            .where(CurrentListRow.subscription.in_(names[start : start + _CHUNK]))
            .order_by(CurrentListRow.subscription)
        )
        found += [(current, kept) for current, kept in rows]
    return found


def record_failure(session: Session, name: str, error: CoppiceError, now: datetime, *, warn_list_days: float) -> None:
    """Note that a list could not be had, or was refused.

    Raises:
        NotFoundError: The subscription is gone.
    """
    row = find_row(session, name)
    row.last_attempt_at = now
    row.last_error_code = error.code
    row.last_error = error.message
    if not isinstance(error, TransferError):
        # What is in force was not confirmed: the next request asks for the whole list, not whether it changed.
        row.etag = row.last_modified = None
    facts = {"subscription": name, "uri": row.uri, "list": row.list_identifier, "error": error.as_dict()}
    write_event(session, EventKind.LIST_REFUSED, subject=name, facts=facts, at=now)
    tell_dates(session, [name], now, warn_list_days=warn_list_days)


def reset_version(
    session: Session, name: str, *, reason: str, now: datetime, list_identifier: ListIdentifier | None
) -> tuple[ListIdentifier, str]:
    """Take back the floor of a subscription's list; see `coppice.subscription.store.SubscriptionStore.reset_version`.

    Raises:
        NotFoundError: There is no such subscription, or no version of its list was ever verified.
        StateError: Which list it is is not known, or it is another one.
    """
    row = find_row(session, name)
    subscription = read_row(row)
    wanted = None if list_identifier is None else canonical(list_identifier)
    identifier = row.list_identifier or wanted
    if identifier is None:
        raise StateError(
            f"which list the subscription {name!r} is to is not known yet", resolution="Name it with --list."
        )
    if wanted is not None and wanted != identifier:
        raise StateError(
            f"the subscription {name!r} is to the list {identifier}, not to {wanted[:80]}",
            resolution="Name the subscription to that list.",
        )
    before = floor.reset_floor(session, subscription, identifier, now)
    followers = select(SubscriptionRow).where(
        (SubscriptionRow.list_identifier == identifier) | (SubscriptionRow.name == name)
    )
    for follower in session.scalars(followers).all():
        follower.etag = follower.last_modified = None
        session.execute(delete(CurrentListRow).where(CurrentListRow.subscription == follower.name))
    facts = {"list": identifier, "version": before, "reason": reason}
    write_event(session, EventKind.VERSION_FLOOR_RESET, subject=name, facts=facts, at=now)
    return ListIdentifier(identifier), before


def follow(session: Session, list_identifier: str) -> None:
    """Note that a list is followed, whatever was said before."""
    session.execute(
        delete(UnsubscribedListRow).where(UnsubscribedListRow.list_identifier == canonical(list_identifier))
    )


def check_unchanged(subscription: Subscription, as_of: Subscription) -> None:
    """Check that a subscription is still what a list was verified by.

    Raises:
        StateError: It was changed meanwhile.
    """
    if not _is_still(subscription, as_of):
        raise StateError(
            f"the subscription {subscription.name!r} was changed while its list was verified",
            resolution="Nothing of the list was recorded; refresh again.",
        )


def _is_still(subscription: Subscription, as_of: Subscription) -> bool:
    return (as_of.uri, as_of.trust, as_of.source) == (subscription.uri, subscription.trust, subscription.source)


def _check_still(subscription: Subscription, as_of: Subscription | None, verified: VerifiedImageList) -> None:
    if as_of is not None:
        check_unchanged(subscription, as_of)
    trust = subscription.trust
    if (subscription.source.driver == HEPIX) != (verified.trusted_by.basis is TrustBasis.X509):
        raise WrongSignerError(
            f"the list is trusted by {verified.trusted_by.basis}, as none of the subscription {subscription.name!r} to "
            f"the source {subscription.source.driver} can be"
        )
    pinned = trust.pins(verified.signer, verified.signer_issuer, verified.signer_fingerprint)
    is_first = not trust.endorsers and verified.newly_pinned is not None and trust.trust_on_first_use
    if subscription.source.driver == HEPIX and not pinned and not is_first:
        raise WrongSignerError(
            f"the list is signed by {verified.signer}, whom the subscription {subscription.name!r} does not name"
        )
    expected = subscription.list_identifier
    if expected is not None and verified.content.identifier != expected:
        raise ListIdentifierError(
            f"the list {verified.content.identifier} is not the one subscribed to", details=f"expected {expected}"
        )


def _pin_first(
    session: Session, row: SubscriptionRow, subscription: Subscription, verified: VerifiedImageList
) -> Subscription:
    """Pin the endorser of the first list, and trust nobody on first use from then on."""
    from dataclasses import replace

    pinned = verified.newly_pinned
    if pinned is None:
        return subscription
    trust = replace(subscription.trust, endorsers=(pinned,), trust_on_first_use=False)
    now = replace(subscription, trust=trust)
    write_row(row, now, now=verified.verified_at)
    facts = {
        "subject": str(pinned.subject),
        "issuer": str(pinned.issuer),
        "fingerprint": str(verified.signer_fingerprint),
        "first_use": True,
        "list": verified.content.identifier,
    }
    write_event(session, EventKind.ENDORSER_PINNED, subject=row.name, facts=facts, at=verified.verified_at)
    return now


def _tell_verified(session: Session, row: SubscriptionRow, verified: VerifiedImageList) -> None:
    facts = {
        "subscription": row.name,
        "uri": row.uri,
        "list": verified.content.identifier,
        "version": verified.content.version,
        "payload": str(verified.payload_checksum),
        "basis": str(verified.trusted_by.basis),
        "signer": verified.trusted_by.signer,
        "signer_fingerprint": None if verified.trusted_by.fingerprint is None else str(verified.trusted_by.fingerprint),
        "warnings": [each.text for each in verified.warnings],
    }
    write_event(session, EventKind.LIST_VERIFIED, subject=row.name, facts=facts, at=verified.verified_at)
