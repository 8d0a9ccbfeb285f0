# SPDX-License-Identifier: Apache-2.0
"""How fresh each subscription is, for people who ask: facts from the database, nothing verified anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.subscription.tables import SubscriptionRow, VerifiedListRow

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOverview:
    """One subscription at a glance.

    Attributes:
        name: How commands call it.
        uri: Where its list is fetched.
        list_identifier: Its list; None before the first was verified.
        version: Of the list that was verified last; None: none was.
        verified_at: When that was.
        expires: When that list expires.
        last_attempt_at: When the last attempt failed; None: it went well.
        last_error_code: Why.
        last_error: Why, for people.
    """

    name: str
    uri: str
    list_identifier: str | None
    version: str | None
    verified_at: datetime | None
    expires: datetime | None
    last_attempt_at: datetime | None
    last_error_code: str | None
    last_error: str | None


def overview(database: Database) -> tuple[SubscriptionOverview, ...]:
    """Return how fresh each subscription is, by name."""
    query = (
        select(SubscriptionRow, VerifiedListRow.list_version, VerifiedListRow.verified_at, VerifiedListRow.expires)
        .outerjoin(VerifiedListRow, VerifiedListRow.subscription == SubscriptionRow.name)
        .order_by(SubscriptionRow.name)
    )
    with database.session() as session:
        return tuple(
            SubscriptionOverview(
                name=row.name,
                uri=row.uri,
                list_identifier=row.list_identifier,
                version=version,
                verified_at=verified_at,
                expires=expires,
                last_attempt_at=row.last_attempt_at,
                last_error_code=row.last_error_code,
                last_error=row.last_error,
            )
            for row, version, verified_at, expires in session.execute(query)
        )
