# SPDX-License-Identifier: Apache-2.0
"""One hook's round: it is told of what is new for it and of what is due once more, in the order of each stream.

An event that fails is tried again later, with growing pauses, and parked in the end. Until then later events of its
stream wait; others go on. What is new is told before what failed, so that events that always fail hold up nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.errors import CoppiceError, DatabaseError, HookFailedError, InterruptedRunError
from coppice.events.message import Telling

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from coppice.clock import Clock
    from coppice.events.deliveries import Deliveries
    from coppice.events.hooks import Hook
    from coppice.events.journal import Journal
    from coppice.events.model import Delivery, Event
    from coppice.settings.model import EventsSettings

PAGE = 200
FAILURES_IN_A_ROW = 5
"""After so many events that failed one after the other, the rest waits for another round: nobody seems to be there."""
LONGEST_PAUSE = timedelta(days=1)


@dataclass(slots=True, kw_only=True)
class Round:
    """What became of a round.

    Attributes:
        delivered: How many events the hook took.
        failed: How many it did not take, and will be told of again.
        parked: How many were given up.
        errors: Why; one an event.
    """

    delivered: int = 0
    failed: int = 0
    parked: int = 0
    errors: list[CoppiceError] = field(default_factory=list)


class Dispatcher:
    """Tells one hook; whoever calls it holds the hook's lock.

    Args:
        name: Of the hook.
        hook: The means.
        wants: Whether it is told of an event.
        deliveries: Where it is noted.
        journal: Where the events are.
        clock: Tells the time.
        settings: How often, and after which pauses.
        stopped: Whether the run is to end.
    """

    def __init__(
        self,
        name: str,
        hook: Hook,
        wants: Callable[[Event], bool],
        *,
        deliveries: Deliveries,
        journal: Journal,
        clock: Clock,
        settings: EventsSettings,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name
        self._hook = hook
        self._wants = wants
        self._deliveries = deliveries
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._stopped = stopped
        self._identifier = deliveries.identifier_of(name)
        self._round = Round()
        self._in_a_row = 0

    def run(self) -> Round:
        """Tell what is due.

        Raises:
            HookError: What the hook needs is not there; nothing was tried.
            DatabaseError: What became of it cannot be noted.
            InterruptedRunError: The run is to end.
        """
        self._hook.prepare()
        self._tell_new()
        self._tell_again()
        return self._round

    def _gave_up(self) -> bool:
        return self._in_a_row >= FAILURES_IN_A_ROW

    def _tell_new(self) -> None:
        blocked = {each.stream for each in self._deliveries.waiting(self._name) if not each.replayed}
        while not self._gave_up() and (page := self._deliveries.fresh(self._name, PAGE)):
            held: list[Event] = []
            for event in page:
                if not self._wants(event):
                    continue
                if event.stream in blocked:
                    held.append(event)
                    continue
                self._deliveries.hold(self._name, held, self._clock.now())
                held = []
                if not self._tell(event):
                    blocked.add(event.stream)
                if self._gave_up():
                    return
            self._deliveries.hold(self._name, held, self._clock.now())
            self._deliveries.pass_over(self._name, page[-1].number)

    def _tell_again(self) -> None:
        self._in_a_row = 0
        blocked: set[str] = set()
        for each in self._deliveries.waiting(self._name):
            if self._gave_up():
                return
            if not each.replayed and each.stream in blocked:
                continue
            is_due = each.due_at is None or each.due_at <= self._clock.now()
            event = self._journal.event(each.event) if is_due else None
            if (event is None or not self._tell(event)) and not each.replayed:
                blocked.add(each.stream)

    def _tell(self, event: Event) -> bool:
        """Try once; return whether later events of its stream may be told."""
        if self._stopped():
            raise InterruptedRunError("the run has ended")
        delivery = self._deliveries.begin(self._name, event, self._clock.now())
        if delivery is None:
            return True
        if delivery.attempts > self._settings.attempts:
            ended = HookFailedError(
                f"{self._name!r} was to be told of this {delivery.attempts - 1} times, and did not take it",
                details="Runs that ended while they told it count as well.",
            )
            return self._fail(delivery, ended)
        try:
            output = self._hook.tell(Telling.of(event, delivery, self._identifier))
        except (DatabaseError, InterruptedRunError):
            raise
        except CoppiceError as problem:
            return self._fail(delivery, problem)
        else:
            self._deliveries.delivered(delivery, output, self._clock.now())
            self._round.delivered += 1
            self._in_a_row = 0
            return True

    def _fail(self, delivery: Delivery, problem: CoppiceError) -> bool:
        output, now = problem.context.pop("output", None), self._clock.now()
        due_at = self._due_at(delivery, now)
        self._deliveries.failed(
            delivery, problem, now, due_at=due_at, output=output if isinstance(output, str) else None
        )
        self._round.errors.append(problem.told_of(f"event {delivery.event}", event=delivery.event))
        self._in_a_row += 1
        if due_at is not None:
            self._round.failed += 1
            return False
        self._round.parked += 1
        return True

    def _due_at(self, delivery: Delivery, now: datetime) -> datetime | None:
        if delivery.attempts >= self._settings.attempts:
            return None
        pause = timedelta(seconds=self._settings.retry_seconds * 2.0 ** min(delivery.attempts - 1, 30))
        return now + min(pause, LONGEST_PAUSE)
