# SPDX-License-Identifier: Apache-2.0
"""The journal: every event in its order, written in the transaction of the change that it tells of.

So a change whose event cannot be written (a full disk) does not happen either, where the database is what is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, or_, select, text, tuple_

from coppice.events.model import SUBSCRIPTION_KINDS, DeliveryState, Event, EventKind
from coppice.events.payload import MAX_TEXT_BYTES, cut_text, kept_facts
from coppice.events.tables import DeliveryRow, EventRow, HookRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from coppice.database import Database

_MAX_NAME_BYTES = 512
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are looked for; what is empty or None does not matter.

    Attributes:
        kinds: Of one of these kinds.
        since: At this instant or later.
        until: At this instant or earlier.
        subscription: Of this subscription.
        list_identifier: Of this list.
        image_identifier: Of this image, whatever its list.
        cloud: In this cloud.
        subject: With exactly this subject.
        hook: This hook was to be told of them, and something became of it.
        states: What became of telling a hook (the one of ``hook``, or any).
    """

    kinds: Collection[EventKind] = ()
    since: datetime | None = None
    until: datetime | None = None
    subscription: str | None = None
    list_identifier: str | None = None
    image_identifier: str | None = None
    cloud: str | None = None
    subject: str | None = None
    hook: str | None = None
    states: Collection[DeliveryState] = ()


def write_event(session: Session, kind: EventKind, *, subject: str, facts: Mapping[str, object], at: datetime) -> None:
    """Add an event to the transaction of ``session``.

    What it is about can be searched for by the facts ``subscription``, ``list``, ``image`` and ``cloud``. Facts are
    kept without secrets, and up to a limit (`coppice.events.payload.kept_facts`).
    """
    write_events(session, [(kind, subject, facts)], at=at)


def write_events(
    session: Session, events: Iterable[tuple[EventKind, str, Mapping[str, object]]], *, at: datetime
) -> None:
    """Add events (kind, subject, facts) to the transaction of ``session``, in their order; see `write_event`."""
    if session.get_bind().dialect.name == "postgresql":
        # Numbers must become visible in their order, or who reads up to one would pass over a lower one. SQLite has
        # one writer at a time.
        session.execute(text("LOCK TABLE event IN EXCLUSIVE MODE"))
    written = iter(events)
    while chunk := [_values(*each, at) for each in islice(written, _CHUNK)]:
        session.execute(insert(EventRow), chunk)


def _values(kind: EventKind, subject: str, facts: Mapping[str, object], at: datetime) -> dict[str, object]:
    kept = kept_facts(facts)
    plain = cut_text(subject.replace("\x00", ""), MAX_TEXT_BYTES)
    return {
        "kind": str(kind),
        "subject": plain,
        "facts": kept,
        "at": at,
        "subscription": plain if kind in SUBSCRIPTION_KINDS else _name(kept.get("subscription")),
        "list_identifier": _name(kept.get("list")),
        "image_identifier": _name(kept.get("image")),
        "cloud": _name(kept.get("cloud")),
    }


def read_event(row: EventRow) -> Event:
    """Return what a row says."""
    return Event(
        number=row.number,
        kind=EventKind(row.kind),
        subject=row.subject,
        facts=row.facts,
        at=row.at,
        subscription=row.subscription,
        list_identifier=row.list_identifier,
        image_identifier=row.image_identifier,
        cloud=row.cloud,
    )


class Journal:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """The database that it is in."""
        return self._database

    def record(self, kind: EventKind | str, *, subject: str, facts: Mapping[str, object], at: datetime) -> None:
        """Write an event in a transaction of its own.

        Raises:
            ValueError: There is no such kind of event.
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            write_event(session, EventKind(kind), subject=subject, facts=facts, at=at)

    def events(self, *, after: int = 0, limit: int = 1000, matching: EventFilter | None = None) -> tuple[Event, ...]:
        """Return up to ``limit`` events whose number is higher than ``after``, oldest first."""
        query = _matching(select(EventRow).where(EventRow.number > after), matching)
        with self._database.session() as session:
            rows = session.scalars(query.order_by(EventRow.number).limit(limit))
            return tuple(read_event(row) for row in rows)

    def latest(self, limit: int = 20, *, matching: EventFilter | None = None) -> tuple[Event, ...]:
        """Return the newest ``limit`` events, oldest of them first."""
        query = _matching(select(EventRow), matching)
        with self._database.session() as session:
            rows = session.scalars(query.order_by(EventRow.number.desc()).limit(limit)).all()
            return tuple(read_event(row) for row in reversed(rows))

    def untold(
        self, kind: EventKind, facts: Iterable[Mapping[str, object]], *, alike: Sequence[str]
    ) -> list[Mapping[str, object]]:
        """Return those of ``facts`` with which no event of that kind was written yet, however long that is ago.

        The journal is asked for just these images: neither time nor memory grows with what else it holds.

        Args:
            kind: Of event.
            facts: Of events to come; each has ``cloud``, ``list`` and ``image``.
            alike: Names of the other facts, texts all, that an event is to have as well to count as told.
        """
        new: list[Mapping[str, object]] = []
        waiting = iter(facts)
        columns = (EventRow.cloud, EventRow.list_identifier, EventRow.image_identifier)
        said = [EventRow.facts[name].as_string() for name in alike]
        with self._database.session() as session:
            while chunk := [(_about(each, alike), each) for each in islice(waiting, _CHUNK)]:
                query = select(*columns, *said).where(
                    EventRow.kind == str(kind),
                    tuple_(*columns[1:]).in_(sorted({about[1:3] for about, _ in chunk})),
                    *(each.in_(sorted({about[3 + at] for about, _ in chunk})) for at, each in enumerate(said)),
                )
                told = {tuple(row) for row in session.execute(query)}
                new += [each for about, each in chunk if about not in told]
        return new

    def event(self, number: int) -> Event | None:
        """Return one event; None: there is none of that number (any more)."""
        with self._database.session() as session:
            row = session.get(EventRow, number)
            return None if row is None else read_event(row)

    def newest_number(self) -> int:
        """Return the number of the newest event; 0 when there is none."""
        with self._database.session() as session:
            return newest_number(session)

    def prune(self, before: datetime, *, hooks: Collection[str]) -> int:
        """Remove events from before an instant that every one of ``hooks`` was told of; return how many.

        One that waits or is parked stays, however old it is, and so does one that no hook was asked about yet.
        """
        with self._database.session() as session:
            return _prune(session, before, hooks)


def newest_number(session: Session) -> int:
    """Return the number of the newest event; 0 when there is none."""
    return session.scalar(select(func.max(EventRow.number))) or 0


def _prune(session: Session, before: datetime, hooks: Collection[str]) -> int:
    old = delete(EventRow).where(EventRow.at < before)
    if hooks:
        met = session.scalars(select(HookRow.told_up_to).where(HookRow.name.in_(hooks))).all()
        # A hook that was not met yet begins with what comes then: nothing that is there is for it.
        if met:
            old = old.where(EventRow.number <= min(met))
        undelivered = select(DeliveryRow.event).where(
            DeliveryRow.hook.in_(hooks), DeliveryRow.state.in_([DeliveryState.WAITING, DeliveryState.PARKED])
        )
        old = old.where(EventRow.number.not_in(undelivered))
    removed = session.execute(old.execution_options(synchronize_session=False))
    return int(getattr(removed, "rowcount", 0))


def _matching(query: Select[EventRow], matching: EventFilter | None) -> Select[EventRow]:
    if matching is None:
        return query
    if matching.kinds:
        query = query.where(EventRow.kind.in_([str(kind) for kind in matching.kinds]))
    if matching.since is not None:
        query = query.where(EventRow.at >= matching.since)
    if matching.until is not None:
        query = query.where(EventRow.at <= matching.until)
    for column, wanted in (
        (EventRow.subscription, matching.subscription),
        (EventRow.list_identifier, matching.list_identifier),
        (EventRow.image_identifier, matching.image_identifier),
        (EventRow.cloud, matching.cloud),
        (EventRow.subject, matching.subject),
    ):
        if wanted is not None:
            query = query.where(or_(column == wanted, column == wanted.lower()))
    if matching.hook is None and not matching.states:
        return query
    told = select(DeliveryRow.event)
    if matching.hook is not None:
        told = told.where(DeliveryRow.hook == matching.hook)
    if matching.states:
        told = told.where(DeliveryRow.state.in_([str(state) for state in matching.states]))
    return query.where(EventRow.number.in_(told))


def _about(facts: Mapping[str, object], alike: Sequence[str]) -> tuple[str, ...]:
    kept = kept_facts(facts)
    names = (_name(kept.get(name)) or "" for name in ("cloud", "list", "image"))
    return (*names, *(str(kept.get(name)) for name in alike))


def _name(value: object) -> str | None:
    return cut_text(value.replace("\x00", ""), _MAX_NAME_BYTES) if isinstance(value, str) and value else None
