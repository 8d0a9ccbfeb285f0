# SPDX-License-Identifier: Apache-2.0
"""The record of who was told of what: how far each hook is, what waits, what is parked.

A hook begins with the events from when it is first met. Each try is noted before it begins, so that an event which ends
the run that tells of it is parked in the end like any other that fails.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from coppice.errors import NotFoundError, StateError
from coppice.events.journal import newest_number, read_event
from coppice.events.model import Delivery, DeliveryState, Event, HookStanding
from coppice.events.payload import MAX_TEXT_BYTES, cut_text
from coppice.events.tables import DeliveryRow, EventRow, HookRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.errors import CoppiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An event that a hook is to be told of, or told of once more.

    Attributes:
        event: Its number.
        stream: What it is in order with.
        attempts: How often it was tried.
        due_at: When it is tried next; None: as soon as nothing earlier of its stream waits.
        replayed: Whether somebody asked for it: it neither waits for others then, nor do they for it.
    """

    event: int
    stream: str
    attempts: int
    due_at: datetime | None
    replayed: bool


class Deliveries:
    """Who was told of what, in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def meet(self, hooks: Iterable[str], now: datetime) -> tuple[str, ...]:
        """Note hooks that were not met before: they are told of what happens from now on; return their names."""
        with self._database.session() as session:
            known = set(session.scalars(select(HookRow.name)))
            new = tuple(name for name in hooks if name not in known)
            up_to = newest_number(session) if new else 0
            for name in new:
                session.add(HookRow(name=name, identifier=str(uuid.uuid4()), met_at=now, told_up_to=up_to))
            return new

    def identifier_of(self, hook: str) -> str:
        """Return the UUID of a hook, which tells its deliveries from those of every other hook anywhere.

        Raises:
            NotFoundError: It was not met.
        """
        with self._database.session() as session:
            return _hook(session, hook).identifier

    def fresh(self, hook: str, limit: int) -> tuple[Event, ...]:
        """Return the next events that were not looked at yet for a hook, oldest first.

        Raises:
            NotFoundError: It was not met.
        """
        with self._database.session() as session:
            after = _hook(session, hook).told_up_to
            query = select(EventRow).where(EventRow.number > after).order_by(EventRow.number).limit(limit)
            return tuple(read_event(row) for row in session.scalars(query))

    def pass_over(self, hook: str, number: int) -> None:
        """Note that a hook need not be told of the events up to ``number`` that are not noted otherwise."""
        with self._database.session() as session:
            _reach(session, hook, number)

    def waiting(self, hook: str) -> tuple[Waiting, ...]:
        """Return what a hook is to be told of that was looked at already, in the order of the events."""
        columns = (DeliveryRow.event, DeliveryRow.stream, DeliveryRow.attempts, DeliveryRow.due_at, DeliveryRow.replays)
        query = (
            select(*columns)
            .where(DeliveryRow.hook == hook, DeliveryRow.state == DeliveryState.WAITING)
            .order_by(DeliveryRow.event)
        )
        with self._database.session() as session:
            return tuple(
                Waiting(event=event, stream=stream, attempts=attempts, due_at=due_at, replayed=replays > 0)
                for event, stream, attempts, due_at, replays in session.execute(query)
            )

    def hold(self, hook: str, events: Sequence[Event], now: datetime) -> None:
        """Note events that wait for an earlier one of their stream."""
        with self._database.session() as session:
            for event in events:
                session.add(_row(hook, event, now))
                _reach(session, hook, event.number)

    def begin(self, hook: str, event: Event, now: datetime) -> Delivery | None:
        """Note that a hook is told of an event now.

        Returns:
            The delivery with this attempt counted in; None: it does not wait any more.
        """
        with self._database.session() as session:
            row = session.get(DeliveryRow, (hook, event.number))
            if row is None:
                row = _row(hook, event, now)
                session.add(row)
                _reach(session, hook, event.number)
            elif row.state != DeliveryState.WAITING:
                return None
            row.attempts += 1
            row.due_at = row.changed_at = now
            return _read(row)

    def delivered(self, delivery: Delivery, output: str, now: datetime) -> None:
        """Note that a hook has taken an event."""
        self._settle(delivery, DeliveryState.DELIVERED, now, error=None, output=output)

    def failed(
        self, delivery: Delivery, error: CoppiceError, now: datetime, *, due_at: datetime | None, output: str | None
    ) -> None:
        """Note that a hook was not told.

        Args:
            delivery: As it began.
            error: Why.
            now: This instant.
            due_at: When it is tried once more; None: it is parked.
            output: What the hook said.
        """
        state = DeliveryState.PARKED if due_at is None else DeliveryState.WAITING
        self._settle(delivery, state, now, error=error, output=output, due_at=due_at)

    def _settle(
        self,
        delivery: Delivery,
        state: DeliveryState,
        now: datetime,
        *,
        error: CoppiceError | None,
        output: str | None,
        due_at: datetime | None = None,
    ) -> None:
        with self._database.session() as session:
            row = session.get(DeliveryRow, (delivery.hook, delivery.event))
            if row is None:
                return
            row.state, row.due_at, row.changed_at = state, due_at, now
            row.error_code = None if error is None else error.code
            row.error = None if error is None else cut_text(_told(error), MAX_TEXT_BYTES)
            row.output = output

    def of_event(self, number: int) -> tuple[Delivery, ...]:
        """Return what became of telling each hook of an event, in the order of their names."""
        with self._database.session() as session:
            query = select(DeliveryRow).where(DeliveryRow.event == number).order_by(DeliveryRow.hook)
            return tuple(_read(row) for row in session.scalars(query))

    def states_of(self, numbers: Collection[int]) -> dict[int, dict[str, DeliveryState]]:
        """Return for events what became of telling each hook of them."""
        found: dict[int, dict[str, DeliveryState]] = {}
        wanted = sorted(numbers)
        with self._database.session() as session:
            for start in range(0, len(wanted), 500):
                query = (
                    select(DeliveryRow.event, DeliveryRow.hook, DeliveryRow.state)
                    .where(DeliveryRow.event.in_(wanted[start : start + 500]))
                    .order_by(DeliveryRow.hook)
                )
                for number, hook, state in session.execute(query):
                    found.setdefault(number, {})[hook] = DeliveryState(state)
        return found

    def parked(self, hook: str | None = None) -> tuple[Delivery, ...]:
        """Return what is parked, oldest event first: of one hook, or of all."""
        query = select(DeliveryRow).where(DeliveryRow.state == DeliveryState.PARKED)
        if hook is not None:
            query = query.where(DeliveryRow.hook == hook)
        with self._database.session() as session:
            return tuple(_read(row) for row in session.scalars(query.order_by(DeliveryRow.event, DeliveryRow.hook)))

    def replay(self, hook: str, event: Event, now: datetime) -> None:
        """Let a hook be told of an event (once more), whatever became of that before.

        Raises:
            NotFoundError: The hook was not met.
            StateError: It is to be told of it anyway.
        """
        with self._database.session() as session:
            met = _hook(session, hook)
            row = session.get(DeliveryRow, (hook, event.number))
            if row is None and event.number > met.told_up_to:
                raise StateError(
                    f"the hook {hook!r} is to be told of the event {event.number} anyway",
                    resolution="`coppice event deliver` tells it what is due.",
                )
            if row is None:
                row = _row(hook, event, now)
                session.add(row)
            row.state, row.attempts, row.due_at, row.changed_at = DeliveryState.WAITING, 0, now, now
            row.replays += 1

    def discard(self, hook: str, number: int, now: datetime) -> bool:
        """Give up a parked event for good; return whether it was parked."""
        with self._database.session() as session:
            changed = session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.hook == hook, DeliveryRow.event == number, DeliveryRow.state == DeliveryState.PARKED)
                .values(state=DeliveryState.DISCARDED, changed_at=now)
            )
            return bool(getattr(changed, "rowcount", 0))

    def standings(self, hooks: Iterable[str]) -> tuple[HookStanding, ...]:
        """Return how far each of ``hooks`` is, in their order."""
        with self._database.session() as session:
            newest = newest_number(session)
            met = {row.name: row for row in session.scalars(select(HookRow))}
            counted = select(DeliveryRow.hook, DeliveryRow.state, func.count()).group_by(
                DeliveryRow.hook, DeliveryRow.state
            )
            counts = {(hook, state): count for hook, state, count in session.execute(counted)}
            return tuple(
                HookStanding(
                    name=name,
                    met_at=met[name].met_at if name in met else None,
                    behind=newest - met[name].told_up_to if name in met else 0,
                    waiting=counts.get((name, DeliveryState.WAITING), 0),
                    parked=counts.get((name, DeliveryState.PARKED), 0),
                )
                for name in hooks
            )


def _hook(session: Session, name: str) -> HookRow:
    row = session.get(HookRow, name)
    if row is None:
        raise NotFoundError(
            f"no hook {name!r} was met yet",
            resolution="Hooks are tables [hooks.NAME] in the settings; `coppice event hooks` shows them.",
        )
    return row


def _reach(session: Session, hook: str, number: int) -> None:
    session.execute(update(HookRow).where(HookRow.name == hook, HookRow.told_up_to < number).values(told_up_to=number))


def _row(hook: str, event: Event, now: datetime) -> DeliveryRow:
    return DeliveryRow(
        hook=hook,
        event=event.number,
        state=DeliveryState.WAITING,
        stream=event.stream,
        attempts=0,
        replays=0,
        due_at=None,
        changed_at=now,
    )


def _read(row: DeliveryRow) -> Delivery:
    return Delivery(
        hook=row.hook,
        event=row.event,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        replays=row.replays,
        due_at=row.due_at,
        changed_at=row.changed_at,
        error_code=row.error_code,
        error=row.error,
        output=row.output,
    )


def _told(error: CoppiceError) -> str:
    return error.message if error.details is None else f"{error.message}\n{error.details}"
