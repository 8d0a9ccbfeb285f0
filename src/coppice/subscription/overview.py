# SPDX-License-Identifier: Apache-2.0
"""How fresh each subscription is, for people who ask: facts from the database, no list read, nothing verified anew."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.errors import TrustError, all_error_types
from coppice.subscription.freshness import is_stale, shared_identifiers
from coppice.subscription.known import in_force
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.tables import ArchivedListRow, CurrentListRow, SubscriptionRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.subscription.known import ListInForce
    from coppice.subscription.model import ListWarning


class FreshnessState(StrEnum):
    """How a subscription stands; of several that are true, the first of these is told."""

    EXPIRED = "expired"
    """The list in force has expired by this machine's clock, whatever its source says."""
    PAUSED = "paused"
    """Its source is not asked; what was verified stays in force."""
    REFUSED = "refused"
    """What its source has broke a rule; the error's code says which."""
    FAILED = "failed"
    """Its source could not be asked, or what it has could not be used for another reason than trust."""
    NEW = "new"
    """Nothing was verified yet."""
    STALE = "stale"
    """Three quarters of the list's life are over, and no newer version has come."""
    UNCHANGED = "unchanged"
    """Its source said last that it has what was verified before."""
    FRESH = "fresh"
    """What its source has was fetched and verified last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOverview:
    """One subscription at a glance.

    Attributes:
        name: How commands call it.
        uri: Where its list is fetched.
        list_identifier: Its list; None before the first was verified.
        state: How it stands now.
        version: Of the list in force; None: none was verified.
        images: How many images that names; None: not known.
        verified_at: When it was verified first.
        expires: When it expires.
        checked_at: When its source confirmed it last.
        paused_at: From when on it is paused; None: it is not.
        last_attempt_at: When its source was asked last; None: never.
        last_error_code: Why the last attempt failed; None: it went well.
        last_error: Why, for people.
        warnings: What the site should know.
    """

    name: str
    uri: str
    list_identifier: str | None
    state: FreshnessState
    version: str | None
    images: int | None
    verified_at: datetime | None
    expires: datetime | None
    checked_at: datetime | None
    paused_at: datetime | None
    last_attempt_at: datetime | None
    last_error_code: str | None
    last_error: str | None
    warnings: tuple[ListWarning, ...] = ()


def overview(
    database: Database, now: datetime, *, warn_list_days: float = DEFAULT_TERMS.warn_list_days
) -> tuple[SubscriptionOverview, ...]:
    """Return how each subscription stands at ``now``, by name."""
    query = (
        select(SubscriptionRow, CurrentListRow, ArchivedListRow)
        .outerjoin(CurrentListRow, CurrentListRow.subscription == SubscriptionRow.name)
        .outerjoin(ArchivedListRow, ArchivedListRow.number == CurrentListRow.archived)
        .order_by(SubscriptionRow.name)
    )
    with database.session() as session:
        return tuple(
            _overview(
                session,
                row,
                None if current is None or kept is None else in_force(current, kept),
                now,
                warn_list_days,
            )
            for row, current, kept in session.execute(query)
        )


def _overview(
    session: Session, row: SubscriptionRow, known: ListInForce | None, now: datetime, warn_list_days: float
) -> SubscriptionOverview:
    said: tuple[ListWarning, ...] = ()
    if known is not None:
        said = (*known.warnings_at(now, warn_list_days), *shared_identifiers(session, known.identifier))
    return SubscriptionOverview(
        name=row.name,
        uri=row.uri,
        list_identifier=row.list_identifier,
        state=_state(row, known, now),
        version=None if known is None else known.version,
        images=None if known is None else known.images,
        verified_at=None if known is None else known.verified_at,
        expires=None if known is None else known.expires,
        checked_at=row.checked_at,
        paused_at=row.paused_at,
        last_attempt_at=row.last_attempt_at,
        last_error_code=row.last_error_code,
        last_error=row.last_error,
        warnings=said,
    )


def _state(row: SubscriptionRow, known: ListInForce | None, now: datetime) -> FreshnessState:
    if known is not None and known.expires <= now:
        return FreshnessState.EXPIRED
    if row.paused_at is not None:
        return FreshnessState.PAUSED
    if row.last_error_code is not None:
        return FreshnessState.REFUSED if row.last_error_code in _refusals() else FreshnessState.FAILED
    if known is None:
        return FreshnessState.NEW
    if is_stale(known.created, known.expires, now):
        return FreshnessState.STALE
    is_fresh = row.checked_at is not None and row.checked_at == row.fetched_at
    return FreshnessState.FRESH if is_fresh else FreshnessState.UNCHANGED


def _refusals() -> frozenset[str]:
    return frozenset(kind.code for kind in all_error_types() if issubclass(kind, TrustError))
