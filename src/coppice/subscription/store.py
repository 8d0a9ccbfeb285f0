# SPDX-License-Identifier: Apache-2.0
"""Subscriptions, the last verified list of each, and the floor against rollback, in the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy import delete, select

from coppice.errors import DatabaseError, ExistsError, InputError, ListIdentifierError, NotFoundError
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ImageIdentifier, ListIdentifier, is_name, is_uuid
from coppice.model.version import Version
from coppice.subscription.model import (
    ImageSelection,
    PinnedEndorser,
    RevocationPolicy,
    Subscription,
    TrustedVersion,
    TrustPolicy,
)
from coppice.subscription.rules import check_version, verify_list
from coppice.subscription.tables import SubscriptionRow, TrustedVersionRow, UnsubscribedListRow, VerifiedListRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.subscription.anchors import TrustAnchors
    from coppice.subscription.model import VerifiedImageList


class SubscriptionStore:
    """The subscriptions of one site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, subscription: Subscription) -> None:
        """Subscribe.

        Raises:
            InputError: Name, address or an identifier cannot be one.
            ExistsError: There is a subscription of that name.
        """
        _check(subscription)
        with self._database.session() as session:
            if session.get(SubscriptionRow, subscription.name) is not None:
                raise ExistsError(
                    f"there is a subscription {subscription.name!r} already", resolution="Choose another name."
                )
            session.add(_row_of(subscription))
            if subscription.list_identifier is not None:
                _follow(session, subscription.list_identifier)

    def get(self, name: str) -> Subscription:
        """Return the subscription ``name``.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.session() as session:
            return _subscription(_row(session, name))

    def all(self) -> tuple[Subscription, ...]:
        """Return every subscription, by name."""
        with self._database.session() as session:
            rows = session.scalars(select(SubscriptionRow).order_by(SubscriptionRow.name))
            return tuple(_subscription(row) for row in rows)

    def remove(self, name: str, *, now: datetime) -> None:
        """Unsubscribe; which version of the list was verified last stays known.

        Raises:
            NotFoundError: There is no such subscription.
        """
        with self._database.session() as session:
            row = _row(session, name)
            others = select(SubscriptionRow.name).where(
                SubscriptionRow.list_identifier == row.list_identifier, SubscriptionRow.name != name
            )
            if row.list_identifier is not None and session.scalars(others).first() is None:
                session.merge(UnsubscribedListRow(list_identifier=row.list_identifier, removed_at=now))
            session.execute(delete(VerifiedListRow).where(VerifiedListRow.subscription == name))
            session.delete(row)

    def unsubscribed(self) -> tuple[ListIdentifier, ...]:
        """Return the lists whose subscription was removed and that are not followed again."""
        with self._database.session() as session:
            rows = session.scalars(select(UnsubscribedListRow).order_by(UnsubscribedListRow.list_identifier))
            return tuple(ListIdentifier(row.list_identifier) for row in rows)

    def last_trusted(self, list_identifier: ListIdentifier) -> TrustedVersion | None:
        """Return what was verified last of a list, whatever became of its subscription; None: nothing."""
        with self._database.session() as session:
            row = session.get(TrustedVersionRow, list_identifier.lower())
            if row is None:
                return None
            return _trusted(row)

    def record(self, verified: VerifiedImageList, message: bytes) -> None:
        """Keep a verified list as the bytes that were signed; the first one fixes the subscription's list.

        The floor against rollback only rises: it is looked at once more in the transaction that raises it. Another run,
        or another subscription to the same list, may have raised it meanwhile, and a subscription that did not know its
        list yet had no floor.

        Raises:
            NotFoundError: The subscription is gone.
            ListIdentifierError: A subscription to another endorser follows a list of this identifier.
            OlderListError: A higher version of this list was verified before.
            ChangedListError: This version was verified before with other content.
        """
        content = verified.content
        with self._database.session() as session:
            row = _row(session, verified.subscription)
            _refuse_taken(session, row, content.identifier)
            floor = session.get(TrustedVersionRow, content.identifier)
            check_version(content, verified.payload_checksum, None if floor is None else _trusted(floor))
            if row.list_identifier is None:
                row.list_identifier = content.identifier
                _follow(session, content.identifier)
            kept = session.get(VerifiedListRow, row.name)
            sha512 = verified.payload_checksum.hexdigest
            # The same list again keeps when it was verified first: its certificates were judged then.
            again = kept is not None and kept.payload_sha512 == sha512 and kept.message == message
            session.merge(
                VerifiedListRow(
                    subscription=row.name,
                    message=message,
                    list_version=content.version,
                    payload_sha512=sha512,
                    expires=content.validity.expires,
                    verified_at=kept.verified_at if kept is not None and again else verified.verified_at,
                )
            )
            session.merge(
                TrustedVersionRow(
                    list_identifier=content.identifier,
                    version=content.version,
                    payload_sha512=sha512,
                    seen_at=verified.verified_at,
                )
            )
            row.last_attempt_at = verified.verified_at
            row.last_error_code = None
            row.last_error = None

    def last_message(self, name: str) -> bytes | None:
        """Return the last verified list of a subscription as it was signed; None: nothing was verified yet."""
        with self._database.session() as session:
            _row(session, name)
            kept = session.get(VerifiedListRow, name)
            return None if kept is None else kept.message

    def record_failure(self, name: str, error: CoppiceError, now: datetime) -> None:
        """Note that the subscription's list could not be had, or was refused; all else stays as it is."""
        with self._database.session() as session:
            row = _row(session, name)
            row.last_attempt_at = now
            row.last_error_code = error.code
            row.last_error = error.message

    def last_failure(self, name: str) -> tuple[str, str, datetime] | None:
        """Return code, message and instant of the last attempt when it failed; None when it succeeded."""
        with self._database.session() as session:
            row = _row(session, name)
            if row.last_error_code is None or row.last_attempt_at is None:
                return None
            return row.last_error_code, row.last_error or "", row.last_attempt_at

    def recall(self, name: str, anchors: TrustAnchors, now: datetime) -> VerifiedImageList:
        """Verify the kept list of a subscription again, by the same rules, for when its source is out of reach.

        The dates of certificates are judged at the instant of the first verification; revocation, and the dates of the
        list, now.

        Raises:
            NotFoundError: There is no such subscription, or nothing was verified yet.
            TrustError: A rule fails now (expired; revoked since).
        """
        with self._database.session() as session:
            subscription = _subscription(_row(session, name))
            kept = session.get(VerifiedListRow, name)
            if kept is None:
                raise NotFoundError(
                    f"no list was verified yet for the subscription {name!r}",
                    resolution="`coppice subscription refresh` fetches and verifies it.",
                )
            message, verified_at = kept.message, kept.verified_at
        last = None if subscription.list_identifier is None else self.last_trusted(subscription.list_identifier)
        return verify_list(
            message, subscription=subscription, anchors=anchors, last=last, now=now, first_verified_at=verified_at
        )


def _check(subscription: Subscription) -> None:
    if not is_name(subscription.name):
        raise InputError(
            f"{subscription.name[:80]!r} cannot name a subscription",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )
    try:
        scheme = urlsplit(subscription.uri).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"https", "http", "file"}:
        raise InputError(
            f"a list cannot be fetched from {subscription.uri[:200]!r}",
            resolution="Use an address with https://, http:// or file:///.",
        )
    wanted = (*subscription.selection.images, *([subscription.list_identifier] if subscription.list_identifier else []))
    wrong = [identifier for identifier in wanted if not is_uuid(identifier)]
    if wrong:
        raise InputError(f"not an identifier (a UUID): {wrong[0][:80]!r}")


def _trusted(row: TrustedVersionRow) -> TrustedVersion:
    try:
        Version(row.version)
        return TrustedVersion(version=row.version, payload_checksum=Checksum("sha512", row.payload_sha512))
    except ValueError as problem:
        raise _damaged(f"list {row.list_identifier}", problem) from problem


def _refuse_taken(session: Session, row: SubscriptionRow, list_identifier: str) -> None:
    """Refuse a list whose identifier another endorser's list has: it would take that list's place."""
    others = select(SubscriptionRow).where(
        SubscriptionRow.list_identifier == list_identifier, SubscriptionRow.name != row.name
    )
    for other in session.scalars(others):
        if (other.endorser_subject, other.endorser_issuer) != (row.endorser_subject, row.endorser_issuer):
            raise ListIdentifierError(
                f"the list has the identifier {list_identifier}, as the list of subscription {other.name!r}, which "
                "another endorser signs",
                details="Neither list may touch the other's images.",
                resolution=f"If the list has a new endorser, remove the subscription {other.name!r} first. Otherwise "
                "ask the publisher of this one for an identifier of its own.",
                context={"list": list_identifier, "subscription": other.name},
            )


def _follow(session: Session, list_identifier: str) -> None:
    session.execute(delete(UnsubscribedListRow).where(UnsubscribedListRow.list_identifier == list_identifier.lower()))


def _row(session: Session, name: str) -> SubscriptionRow:
    row = session.get(SubscriptionRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(SubscriptionRow.name).order_by(SubscriptionRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no subscription {name!r}",
            details=f"there are: {known}",
            resolution="`coppice subscription add` makes one.",
        )
    return row


def _row_of(subscription: Subscription) -> SubscriptionRow:
    trust = subscription.trust
    return SubscriptionRow(
        name=subscription.name,
        uri=subscription.uri,
        list_identifier=subscription.list_identifier and subscription.list_identifier.lower(),
        endorser_subject=[list(pair) for pair in trust.endorsers[0].subject.attributes],
        endorser_issuer=[list(pair) for pair in trust.endorsers[0].issuer.attributes],
        anchors=str(trust.anchors),
        revocation=str(trust.revocation),
        images=[identifier.lower() for identifier in subscription.selection.images],
        added_at=subscription.added_at,
    )


def _subscription(row: SubscriptionRow) -> Subscription:
    try:
        return _read_subscription(row)
    except (ValueError, TypeError) as problem:
        raise _damaged(f"subscription {row.name!r}", problem) from problem


def _damaged(what: str, problem: Exception) -> DatabaseError:
    return DatabaseError(
        f"the database holds something that cannot be about {what}: {problem}",
        resolution="Restore the database from a backup. What is registered in clouds is not touched.",
    )


def _read_subscription(row: SubscriptionRow) -> Subscription:
    return Subscription(
        name=row.name,
        uri=row.uri,
        list_identifier=ListIdentifier(row.list_identifier) if row.list_identifier else None,
        trust=TrustPolicy(
            endorsers=(
                PinnedEndorser(
                    subject=DistinguishedName.of(*((kind, value) for kind, value in row.endorser_subject)),
                    issuer=DistinguishedName.of(*((kind, value) for kind, value in row.endorser_issuer)),
                ),
            ),
            anchors=Path(row.anchors),
            revocation=RevocationPolicy(row.revocation),
        ),
        selection=ImageSelection(images=tuple(ImageIdentifier(identifier) for identifier in row.images)),
        added_at=row.added_at,
    )
