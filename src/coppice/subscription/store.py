# SPDX-License-Identifier: Apache-2.0
"""Subscriptions, the last verified list of each, and the floor against rollback, in the database.

What is verified is recorded by `coppice.subscription.record`; the archive is asked in `coppice.subscription.archive`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.errors import ExistsError, StateError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.identifiers import ListIdentifier
from coppice.subscription import archive, floor, freshness, record
from coppice.subscription.changes import check_subscription, differences
from coppice.subscription.known import read_known
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.rows import find_row, read_row, write_row
from coppice.subscription.source.protocol import Circumstances
from coppice.subscription.tables import ArchivedListRow, CurrentListRow, SubscriptionRow, UnsubscribedListRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.formats.limits import ListLimits
    from coppice.http import Validators
    from coppice.settings.model import SubscriptionsSettings
    from coppice.subscription.changes import Change
    from coppice.subscription.known import KnownSubscription
    from coppice.subscription.model import ListWarning, Subscription, TrustedVersion, VerifiedImageList
    from coppice.subscription.record import Judged
    from coppice.subscription.source.drivers import SourceShelf


class SubscriptionStore:
    """The subscriptions of one site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Where they are kept."""
        return self._database

    def add(self, subscription: Subscription) -> None:
        """Subscribe.

        Raises:
            InputError: Name, address, an identifier or the selection cannot be one.
            ExistsError: There is a subscription of that name.
        """
        check_subscription(subscription)
        with self._database.session() as session:
            if session.get(SubscriptionRow, subscription.name) is not None:
                raise ExistsError(
                    f"there is a subscription {subscription.name!r} already", resolution="Choose another name."
                )
            row = SubscriptionRow()
            write_row(row, subscription, now=subscription.added_at)
            session.add(row)
            if row.list_identifier is not None:
                record.follow(session, row.list_identifier)
            facts = {"change": "added", "uri": subscription.uri}
            write_event(
                session,
                EventKind.SUBSCRIPTION_CHANGED,
                subject=subscription.name,
                facts=facts,
                at=subscription.added_at,
            )

    def get(self, name: str) -> Subscription:
        """Return the subscription ``name``.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.session() as session:
            return read_row(find_row(session, name))

    def all(self) -> tuple[Subscription, ...]:
        """Return every subscription, by name."""
        with self._database.session() as session:
            rows = session.scalars(select(SubscriptionRow).order_by(SubscriptionRow.name))
            return tuple(read_row(row) for row in rows)

    def known(self) -> Mapping[str, KnownSubscription]:
        """Return every subscription by name, with its list in force and what makes a request for it conditional."""
        with self._database.session() as session:
            return read_known(session)

    def edit(
        self, name: str, change: Callable[[Subscription], Subscription], *, now: datetime
    ) -> tuple[Subscription, tuple[Change, ...]]:
        """Change a subscription; return what it is now, and every value that is another one than before.

        What was verified stays in force only as far as it holds under what is asked from now on; the list is fetched
        and verified anew by the next refresh.

        Raises:
            NotFoundError: There is no such subscription.
            InputError: It would not be one any more.
            StateError: It would follow another list.
        """
        with self._database.session() as session:
            row = find_row(session, name)
            before = read_row(row)
            after = change(before)
            check_subscription(after)
            if before.list_identifier is not None and after.list_identifier != before.list_identifier:
                raise StateError(
                    f"the subscription {name!r} is to the list {before.list_identifier}, and stays so",
                    resolution="Subscribe to the other list under another name, and remove this subscription.",
                )
            changes = differences(before, after)
            if not changes:
                return before, ()
            write_row(row, replace(after, name=name), now=now)
            if before.list_identifier is None and row.list_identifier is not None:
                record.follow(session, row.list_identifier)
            row.etag = row.last_modified = None
            facts = {"change": "edited", "fields": {each.field: [each.before, each.after] for each in changes}}
            write_event(session, EventKind.SUBSCRIPTION_CHANGED, subject=name, facts=facts, at=now)
            session.flush()
            return read_row(row), changes

    def remove(self, name: str, *, now: datetime) -> None:
        """Unsubscribe; which version of the list was verified last, and who vouched for it, stays known.

        Raises:
            NotFoundError: There is no such subscription.
        """
        with self._database.session() as session:
            row = find_row(session, name)
            identifier = row.list_identifier
            others = select(SubscriptionRow.name).where(
                SubscriptionRow.list_identifier == identifier, SubscriptionRow.name != name
            )
            if identifier is not None and session.scalars(others).first() is None:
                session.merge(UnsubscribedListRow(list_identifier=identifier, removed_at=now))
                freshness.forget_images(session, identifier)
            session.execute(delete(CurrentListRow).where(CurrentListRow.subscription == name))
            session.execute(delete(ArchivedListRow).where(ArchivedListRow.subscription == name))
            facts = {"change": "removed", "uri": row.uri, "list": identifier}
            write_event(session, EventKind.SUBSCRIPTION_CHANGED, subject=name, facts=facts, at=now)
            session.delete(row)

    def unsubscribed(self) -> tuple[ListIdentifier, ...]:
        """Return the lists whose subscription was removed and that are not followed again."""
        with self._database.session() as session:
            rows = session.scalars(select(UnsubscribedListRow).order_by(UnsubscribedListRow.list_identifier))
            return tuple(ListIdentifier(row.list_identifier) for row in rows)

    def last_trusted(self, list_identifier: ListIdentifier) -> TrustedVersion | None:
        """Return what was verified last of a list, whatever became of its subscription; None: nothing."""
        with self._database.session() as session:
            return floor.floor_of(session, list_identifier)

    def taken_back(self) -> Mapping[ListIdentifier, str]:
        """Return the version from which the floor was reset last, of each list of which it was."""
        with self._database.session() as session:
            return floor.taken_back(session)

    def record(
        self,
        verified: VerifiedImageList,
        message: bytes,
        *,
        as_of: Subscription | None = None,
        etag: str | None = None,
        last_modified: str | None = None,
        terms: SubscriptionsSettings | None = None,
    ) -> tuple[ListWarning, ...]:
        """Keep a verified list as the bytes that were signed, and make it the current one.

        See `coppice.subscription.record.record_verified` for the arguments, what is returned, and what is raised.
        """
        with self._database.session() as session:
            return record.record_verified(
                session,
                verified,
                message,
                as_of=as_of,
                etag=etag,
                last_modified=last_modified,
                terms=terms,
            )

    def last_message(self, name: str) -> bytes | None:
        """Return the list in force of a subscription as it was signed; None: nothing was verified yet."""
        with self._database.session() as session:
            find_row(session, name)
            number = archive.current_number(session, name)
            row = None if number is None else session.get(ArchivedListRow, number)
            return None if row is None else archive.intact_message(row)

    def earlier_messages(self, name: str) -> Iterator[bytes]:
        """Yield the archived messages of a subscription's list, one by one, that were not taken back by a reset.

        Raises:
            NotFoundError: There is no such subscription.
            StateError: The bytes of one are not what was archived.
        """
        with self._database.session() as session:
            identifier = read_row(find_row(session, name)).list_identifier
            back = None if identifier is None else floor.taken_back(session).get(identifier)
            numbers = archive.numbers_since_reset(session, name, identifier or "", back)
        for number in numbers:
            with self._database.session() as session:
                row = session.get(ArchivedListRow, number)
                message = None if row is None else archive.intact_message(row)
            if message is not None:
                yield message

    def record_unchanged(
        self,
        names: Sequence[str],
        now: datetime,
        *,
        warn_list_days: float,
        judged: Mapping[str, Judged] | None = None,
        as_of: Mapping[str, Subscription] | None = None,
        validators: Mapping[str, tuple[str | None, Validators]] | None = None,
    ) -> None:
        """Note that sources have the lists that are in force already; in one transaction.

        Args:
            names: Of the subscriptions.
            now: This instant.
            warn_list_days: How long before a list expires this is told.
            judged: What is said of those lists that were judged anew.
            as_of: What the subscriptions were when their sources were asked.
            validators: The tag that sources were asked with, and what they call the state of their lists now.
        """
        with self._database.session() as session:
            record.record_unchanged(
                session,
                names,
                now,
                warn_list_days=warn_list_days,
                judged=judged or {},
                as_of=as_of or {},
                validators=validators or {},
            )

    def tell_dates(self, names: Sequence[str], now: datetime, *, warn_list_days: float) -> None:
        """Write into the journal what ends soon or has ended, each once; nobody asked the sources."""
        with self._database.session() as session:
            record.tell_dates(session, names, now, warn_list_days=warn_list_days)

    def record_failure(self, name: str, error: CoppiceError, now: datetime, *, warn_list_days: float = 7.0) -> None:
        """Note that the subscription's list could not be had, or was refused; all else stays as it is."""
        with self._database.session() as session:
            record.record_failure(session, name, error, now, warn_list_days=warn_list_days)

    def last_failure(self, name: str) -> tuple[str, str, datetime] | None:
        """Return code, message and instant of the last attempt when it failed; None when it succeeded."""
        with self._database.session() as session:
            row = find_row(session, name)
            if row.last_error_code is None or row.last_attempt_at is None:
                return None
            return row.last_error_code, row.last_error or "", row.last_attempt_at

    def recall(
        self,
        name: str,
        sources: SourceShelf,
        now: datetime,
        *,
        limits: ListLimits = DEFAULT_LIMITS,
        terms: SubscriptionsSettings | None = None,
        as_of: Subscription | None = None,
    ) -> VerifiedImageList:
        """Verify the kept list of a subscription again, by the same rules, for when nothing newer can be had.

        The dates of certificates are judged at the instant of the first verification; revocation, and the dates of the
        list, now.

        Raises:
            NotFoundError: There is no such subscription, or nothing was verified yet.
            TrustError: A rule fails now (expired; revoked since).
            StateError: The kept bytes are not those that were verified; or the subscription is not ``as_of`` any more,
                whose trust anchors these are.
        """
        with self._database.session() as session:
            subscription = read_row(find_row(session, name))
            if as_of is not None:
                record.check_unchanged(subscription, as_of)
            row = archive.find_archived(session, name)
            message, verified_at = archive.intact_message(row), row.verified_at
            last = floor.floor_of(session, row.list_identifier)
        circumstances = Circumstances(
            last=last, now=now, limits=limits, terms=terms or DEFAULT_TERMS, first_verified_at=verified_at
        )
        return sources.open(subscription.source).verify(message, subscription, circumstances)

    def roll_forward(
        self,
        name: str,
        sources: SourceShelf,
        now: datetime,
        *,
        version: str | None = None,
        limits: ListLimits = DEFAULT_LIMITS,
        terms: SubscriptionsSettings | None = None,
    ) -> VerifiedImageList:
        """Verify an archived list by today's rules, and make it the one in force; never behind the floor.

        Args:
            name: Of the subscription.
            sources: Judge it.
            now: This instant.
            version: Which; None: the newest that is archived, save the one that was taken back by a reset.
            limits: How much a list may be.
            terms: How far ahead to warn.

        Raises:
            NotFoundError: There is no such subscription, or no such version in its archive.
            StateError: There is nothing in the archive to go on from, or the subscription changed meanwhile.
            TrustError: A rule fails now; nothing was changed.
        """
        with self._database.session() as session:
            subscription = read_row(find_row(session, name))
            if version is not None:
                row = archive.find_archived(session, name, version)
            else:
                identifier = subscription.list_identifier
                back = None if identifier is None else floor.taken_back(session).get(identifier)
                row = archive.newest_archived(session, name, but=back)
            message, verified_at = archive.intact_message(row), row.verified_at
            last = floor.floor_of(session, row.list_identifier)
        circumstances = Circumstances(
            last=last, now=now, limits=limits, terms=terms or DEFAULT_TERMS, first_verified_at=verified_at
        )
        verified = sources.open(subscription.source).verify(message, subscription, circumstances)
        with self._database.session() as session:
            record.record_rolled_forward(session, verified, message, as_of=subscription, terms=terms)
        return verified

    def reset_version(
        self, name: str, *, reason: str, now: datetime, list_identifier: ListIdentifier | None = None
    ) -> tuple[ListIdentifier, str]:
        """Take back the floor of a subscription's list, after a version was signed that none can follow.

        Until the next list is verified, any version of the list may be it, vouched for by this subscription's
        endorsers. The list in force is put aside (it stays in the archive), so that what is registered stays as it is
        meanwhile.

        Args:
            name: Of the subscription.
            reason: Why; for the journal.
            now: This instant.
            list_identifier: Which list, when the subscription does not know its own yet.

        Returns:
            The list, and the version that was the floor.

        Raises:
            NotFoundError: There is no such subscription, or no version of its list was ever verified.
            StateError: Which list it is is not known, or it is another one.
        """
        with self._database.session() as session:
            return record.reset_version(session, name, reason=reason, now=now, list_identifier=list_identifier)
