# SPDX-License-Identifier: Apache-2.0
"""What is known of every subscription before its source is asked: read at once, no list among it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from coppice.subscription.freshness import date_warnings, kept_warnings
from coppice.subscription.model import TrustBasis
from coppice.subscription.rows import read_row
from coppice.subscription.tables import ArchivedListRow, CurrentListRow, SubscriptionRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.subscription.model import ListWarning, Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInForce:
    """The list of a subscription that was verified last, as its row tells it.

    Attributes:
        identifier: Which list.
        version: Its version.
        created: When it says that it was made; None where an older database did not keep it.
        expires: When it expires.
        images: How many it names; None where an older database did not keep it.
        verified_at: When it was verified first.
        since: When the first version of this list was verified that is still in the archive.
        warnings: What was said of it when it was judged last, its own dates left out.
        anchors_state: Of the trust anchors and CRLs, keyrings or keys that it was judged by last.
        basis: By what it came to be trusted.
    """

    identifier: str
    version: str
    created: datetime | None
    expires: datetime
    images: int | None
    verified_at: datetime
    since: datetime
    warnings: tuple[ListWarning, ...] = ()
    anchors_state: str | None = None
    basis: TrustBasis = TrustBasis.X509

    def warnings_at(self, now: datetime, warn_list_days: float) -> tuple[ListWarning, ...]:
        """Return what is to be said of it now."""
        return (*self.warnings, *date_warnings(self.created, self.expires, now, warn_list_days))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSubscription:
    """A subscription and what its source said of the list in force.

    Attributes:
        subscription: Which.
        in_force: Its list; None: none was verified yet.
        etag: For a conditional request; None: there is no list in force, or the source said none.
        last_modified: Likewise.
    """

    subscription: Subscription
    in_force: ListInForce | None = None
    etag: str | None = None
    last_modified: str | None = None


def read_known(session: Session) -> dict[str, KnownSubscription]:
    """Return every subscription by name.

    Raises:
        DatabaseError: A row holds something that cannot be.
    """
    since = dict(_since(session))
    query = (
        select(SubscriptionRow, CurrentListRow, ArchivedListRow)
        .outerjoin(CurrentListRow, CurrentListRow.subscription == SubscriptionRow.name)
        .outerjoin(ArchivedListRow, ArchivedListRow.number == CurrentListRow.archived)
        .order_by(SubscriptionRow.name)
    )
    return {row.name: _known(row, current, kept, since) for row, current, kept in session.execute(query)}


def _since(session: Session) -> Iterator[tuple[tuple[str, str], datetime]]:
    first = select(
        ArchivedListRow.subscription, ArchivedListRow.list_identifier, func.min(ArchivedListRow.verified_at)
    ).group_by(ArchivedListRow.subscription, ArchivedListRow.list_identifier)
    for name, list_identifier, at in session.execute(first):
        yield (name, list_identifier), at


def in_force(current: CurrentListRow, kept: ArchivedListRow, since: datetime | None = None) -> ListInForce:
    """Return what the rows tell of a list in force; ``since`` when its first archived version was verified."""
    return ListInForce(
        identifier=kept.list_identifier,
        version=kept.version,
        created=kept.created,
        expires=kept.expires,
        images=current.images,
        verified_at=kept.verified_at,
        since=since or kept.verified_at,
        warnings=kept_warnings(current),
        anchors_state=current.anchors_state,
        basis=TrustBasis(kept.basis) if kept.basis else TrustBasis.X509,
    )


def _known(
    row: SubscriptionRow,
    current: CurrentListRow | None,
    kept: ArchivedListRow | None,
    since: Mapping[tuple[str, str], datetime],
) -> KnownSubscription:
    subscription = read_row(row)
    if current is None or kept is None:
        # Without the list, what the source said of it is worth nothing.
        return KnownSubscription(subscription=subscription)
    known = in_force(current, kept, since.get((row.name, kept.list_identifier)))
    return KnownSubscription(subscription=subscription, in_force=known, etag=row.etag, last_modified=row.last_modified)
