# SPDX-License-Identifier: Apache-2.0
"""Events of changes that no transaction can hold: what is about to be done in a cloud is noted, then done, then told.

A run that is killed between doing and telling leaves its note. The next run sees what came of it, and tells it then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.events.payload import kept_facts
from coppice.events.tables import IntendedEventRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from coppice.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedEvent:
    """An event that is to be told once the change that it tells of is made.

    Attributes:
        position: Place among those that were noted together.
        kind: What happens when it is made.
        subject: Of the event.
        facts: Of the event.
        expected: By what it can be seen that the change was made.
    """

    position: int
    kind: EventKind
    subject: str
    facts: Mapping[str, object]
    expected: Mapping[str, object]


class IntendedEvents:
    """What is about to be done in one place (a cloud), in one database."""

    def __init__(self, database: Database, place: str) -> None:
        self._database = database
        self._place = place

    def all(self) -> tuple[IntendedEvent, ...]:
        """Return what was noted and not told."""
        query = (
            select(IntendedEventRow).where(IntendedEventRow.place == self._place).order_by(IntendedEventRow.position)
        )
        with self._database.session() as session:
            return tuple(
                IntendedEvent(
                    position=row.position,
                    kind=EventKind(row.kind),
                    subject=row.subject,
                    facts=row.facts,
                    expected=row.expected,
                )
                for row in session.scalars(query)
            )

    def note(self, events: Sequence[IntendedEvent]) -> None:
        """Note what is about to be done, in the stead of what was noted before."""
        with self._database.session() as session:
            session.execute(delete(IntendedEventRow).where(IntendedEventRow.place == self._place))
            for each in events:
                session.add(
                    IntendedEventRow(
                        place=self._place,
                        position=each.position,
                        kind=str(each.kind),
                        subject=each.subject,
                        facts=kept_facts(each.facts),
                        expected=dict(each.expected),
                    )
                )

    def settle(
        self, position: int, kind: EventKind | None, *, subject: str, facts: Mapping[str, object], at: datetime
    ) -> None:
        """Tell what became of it, and forget the note, in one transaction; without a kind, only forget."""
        with self._database.session() as session:
            session.execute(
                delete(IntendedEventRow).where(
                    IntendedEventRow.place == self._place, IntendedEventRow.position == position
                )
            )
            if kind is not None:
                write_event(session, kind, subject=subject, facts=facts, at=at)
