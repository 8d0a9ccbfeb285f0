# SPDX-License-Identifier: Apache-2.0
"""A hook's round: at least once, in the order of each stream, parked in the end, holding nobody up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.database import Database
from coppice.errors import HookFailedError, StateError
from coppice.events import dispatch
from coppice.events.deliveries import Deliveries
from coppice.events.dispatch import FAILURES_IN_A_ROW, Dispatcher, Round
from coppice.events.journal import Journal
from coppice.events.model import DeliveryState, EventKind
from coppice.settings.model import EventsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.events.message import Telling
    from coppice.events.model import Event

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Desk:
    """A hook that takes what it is not told to refuse, and remembers it."""

    def __init__(self, database: Database) -> None:
        self.clock = FixedClock(NOW)
        self.journal = Journal(database)
        self.deliveries = Deliveries(database)
        self.deliveries.meet(["desk"], NOW)
        self.told: list[int] = []
        self.ids: list[str] = []
        self.refused: set[int] = set()
        self.killed: set[int] = set()
        self.kinds = set(EventKind)
        self.is_there = True

    def prepare(self) -> None:
        if not self.is_there:
            raise HookFailedError("nobody is there")

    def tell(self, telling: Telling) -> str:
        number = telling.event.number
        self.ids.append(telling.delivery_id)
        if number in self.killed:
            raise KeyboardInterrupt
        if number in self.refused:
            raise HookFailedError("no", context={"output": "why not"})
        self.told.append(number)
        return "thanks"

    def happen(self, *images: str) -> None:
        for image in images:
            facts = {"list": "l", "image": image}
            self.journal.record(EventKind.IMAGE_CACHED, subject=f"l/{image}", facts=facts, at=self.clock.now())

    def round(self) -> Round:
        def wants(event: Event) -> bool:
            return event.kind in self.kinds

        return Dispatcher(
            "desk",
            self,
            wants,
            deliveries=self.deliveries,
            journal=self.journal,
            clock=self.clock,
            settings=EventsSettings(attempts=3, retry_seconds=10),
        ).run()

    def state(self, number: int) -> tuple[DeliveryState, int]:
        (found,) = self.deliveries.of_event(number)
        return found.state, found.attempts

    def replay(self, number: int) -> None:
        event = self.journal.event(number)
        assert event is not None
        self.deliveries.replay("desk", event, self.clock.now())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    yield Desk(database)
    database.close()


def test_events_are_told_once_and_in_their_order(desk: Desk) -> None:
    desk.happen("a", "b", "a")
    assert desk.round() == Round(delivered=3)
    assert desk.round() == Round()
    assert desk.told == [1, 2, 3]
    assert len(set(desk.ids)) == 3
    assert desk.deliveries.of_event(1)[0].output == "thanks"


def test_what_happened_before_a_hook_was_met_is_not_told(desk: Desk) -> None:
    desk.happen("a")
    assert desk.deliveries.meet(["desk", "late"], NOW) == ("late",)
    desk.happen("b")
    assert [each.number for each in desk.deliveries.fresh("late", 10)] == [2]


def test_an_event_that_fails_holds_up_its_own_stream_only(desk: Desk) -> None:
    desk.happen("a", "b", "a", "c")
    desk.refused = {1}
    done = desk.round()
    assert (desk.told, done.delivered, done.failed) == ([2, 4], 2, 1)
    assert done.errors[0].message == "event 1: no"
    assert desk.deliveries.of_event(1)[0].output == "why not"
    # Not before its time.
    desk.refused = set()
    assert desk.round() == Round()
    desk.clock.advance(timedelta(seconds=10))
    assert desk.round().delivered == 2
    assert desk.told == [2, 4, 1, 3]
    assert len({desk.ids[0], desk.ids[3]}) == 1


def test_pauses_double_and_then_the_event_is_parked_and_its_stream_goes_on(desk: Desk) -> None:
    desk.happen("a", "a")
    desk.refused = {1}
    last = desk.round()
    for pause in (10, 20):
        desk.clock.advance(timedelta(seconds=pause - 1))
        assert desk.round() == Round()
        desk.clock.advance(timedelta(seconds=1))
        last = desk.round()
    assert last.parked == 1
    assert desk.state(1) == (DeliveryState.PARKED, 3)
    assert desk.told == [2]
    desk.clock.advance(timedelta(days=9))
    assert desk.round() == Round()


def test_a_parked_event_can_be_replayed_and_holds_nobody_up_then(desk: Desk) -> None:
    desk.happen("a")
    desk.refused = {1}
    for _ in range(3):
        desk.round()
        desk.clock.advance(timedelta(days=1))
    assert desk.state(1)[0] is DeliveryState.PARKED
    desk.replay(1)
    assert desk.round().failed == 1
    desk.happen("a")
    assert desk.round().delivered == 1
    desk.clock.advance(timedelta(days=1))
    desk.refused = set()
    assert desk.round().delivered == 1
    assert desk.told == [2, 1]
    assert len(set(desk.ids[:3])) == 1
    assert desk.ids[-1] not in desk.ids[:3]


def test_a_delivered_event_can_be_told_again_but_not_one_that_is_due_anyway(desk: Desk) -> None:
    desk.happen("a")
    with pytest.raises(StateError):
        desk.replay(1)
    desk.round()
    desk.replay(1)
    desk.round()
    assert desk.told == [1, 1]


def test_a_run_that_is_killed_while_it_tells_tells_again(desk: Desk) -> None:
    desk.happen("a", "a")
    desk.killed = {1}
    with pytest.raises(KeyboardInterrupt):
        desk.round()
    desk.killed = set()
    assert desk.round().delivered == 2
    assert desk.told == [1, 2]
    assert desk.ids[0] == desk.ids[1]


def test_an_event_that_kills_every_run_is_parked(desk: Desk) -> None:
    desk.happen("a", "a")
    desk.killed = {1}
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            desk.round()
    assert desk.round().parked == 1
    assert desk.state(1)[0] is DeliveryState.PARKED
    assert desk.told == [2]


def test_where_nobody_is_there_no_event_is_tried(desk: Desk) -> None:
    desk.happen("a")
    desk.is_there = False
    for _ in range(5):
        with pytest.raises(HookFailedError):
            desk.round()
    assert desk.deliveries.of_event(1) == ()
    desk.is_there = True
    assert desk.round().delivered == 1


def test_after_many_failures_in_a_row_the_rest_waits_for_another_round(desk: Desk) -> None:
    desk.happen(*(f"image-{count}" for count in range(12)))
    desk.refused = set(range(1, 13))
    assert desk.round().failed == FAILURES_IN_A_ROW
    assert desk.deliveries.standings(["desk"])[0].behind == 12 - FAILURES_IN_A_ROW
    desk.refused = set(range(1, FAILURES_IN_A_ROW + 1))
    desk.clock.advance(timedelta(days=1))
    # What is new goes first: those that fail hold up nobody.
    assert desk.round().delivered == 12 - FAILURES_IN_A_ROW


def test_events_that_a_hook_does_not_want_are_passed_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAGE", 5)
    desk.kinds = {EventKind.IMAGE_REMOVED}
    desk.happen(*(f"{count}" for count in range(12)))
    assert desk.round() == Round()
    assert desk.deliveries.standings(["desk"])[0].behind == 0
    assert desk.deliveries.of_event(1) == ()


def test_a_long_stream_waits_as_a_whole_and_comes_in_order(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAGE", 5)
    desk.happen(*["a"] * 12)
    desk.refused = {1}
    desk.round()
    assert desk.deliveries.standings(["desk"])[0].waiting == 12
    desk.refused = set()
    desk.clock.advance(timedelta(days=1))
    assert desk.round().delivered == 12
    assert desk.told == list(range(1, 13))


def test_what_is_discarded_is_not_told_any_more(desk: Desk) -> None:
    desk.happen("a")
    desk.refused = {1}
    assert not desk.deliveries.discard("desk", 1, NOW)
    for _ in range(3):
        desk.round()
        desk.clock.advance(timedelta(days=1))
    assert desk.deliveries.discard("desk", 1, NOW)
    assert desk.state(1)[0] is DeliveryState.DISCARDED
    assert desk.journal.prune(NOW + timedelta(days=1), hooks=("desk",)) == 1
