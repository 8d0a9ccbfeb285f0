# SPDX-License-Identifier: Apache-2.0
"""The journal: every event in its order, written in the transaction of the change that it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.events.model import Event, EventKind
from coppice.events.tables import EventRow
from coppice.log import redact_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database


def write_event(session: Session, kind: EventKind, *, subject: str, facts: Mapping[str, object], at: datetime) -> None:
    """Add an event to the transaction of ``session``."""
    session.add(EventRow(kind=str(kind), subject=subject, facts=_without_secrets(facts), at=at))


def _without_secrets(facts: Mapping[str, object]) -> dict[str, object]:
    # The journal is kept and handed on; a URI may carry a password.
    return {name: redact_value(name, value) for name, value in facts.items()}


class Journal:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, kind: EventKind | str, *, subject: str, facts: Mapping[str, object], at: datetime) -> None:
        """Write an event in a transaction of its own.

        Raises:
            ValueError: There is no such kind of event.
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            write_event(session, EventKind(kind), subject=subject, facts=facts, at=at)

    def events(self, *, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Return up to ``limit`` events whose number is higher than ``after``, oldest first."""
        with self._database.session() as session:
            rows = session.scalars(
                select(EventRow).where(EventRow.number > after).order_by(EventRow.number).limit(limit)
            )
            return tuple(
                Event(number=row.number, kind=EventKind(row.kind), subject=row.subject, facts=row.facts, at=row.at)
                for row in rows
            )

    def latest(self, limit: int = 20) -> tuple[Event, ...]:
        """Return the newest ``limit`` events, oldest of them first."""
        with self._database.session() as session:
            rows = session.scalars(select(EventRow).order_by(EventRow.number.desc()).limit(limit)).all()
            return tuple(
                Event(number=row.number, kind=EventKind(row.kind), subject=row.subject, facts=row.facts, at=row.at)
                for row in reversed(rows)
            )
