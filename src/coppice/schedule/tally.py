# SPDX-License-Identifier: Apache-2.0
"""The tally: what the journal has told since the service began, counted. Each event is read once.

It begins with the service and not with the journal: old events leave that, and a counter must never go back.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coppice.events.journal import Journal
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.database import Database
    from coppice.events.model import Event

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted up to a moment.

    Attributes:
        events: How many, by kind and cloud (empty: none).
        seconds: How long what they tell of took, likewise.
        registered_bytes: By cloud.
        fetched_bytes: In all.
    """

    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    seconds: Mapping[tuple[str, str], float] = field(default_factory=dict)
    registered_bytes: Mapping[str, int] = field(default_factory=dict)
    fetched_bytes: int = 0


class Tally:
    """Counts events; one thread at a time may use it.

    Args:
        database: Where the journal is; what is in it already is not counted.

    Raises:
        DatabaseError: The database failed.
    """

    def __init__(self, database: Database) -> None:
        self._journal = Journal(database)
        self._number = self._journal.newest_number()
        self._events: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._registered_bytes: Counter[str] = Counter()
        self._fetched_bytes = 0

    def catch_up(self) -> Counts:
        """Count what has been told since it was asked last, and return all that was counted.

        Raises:
            DatabaseError: The database failed.
        """
        while found := self._journal.events(after=self._number, limit=_PAGE):
            for event in found:
                self._count(event)
            self._number = found[-1].number
        return Counts(
            events=dict(self._events),
            seconds=dict(self._seconds),
            registered_bytes=dict(self._registered_bytes),
            fetched_bytes=self._fetched_bytes,
        )

    def _count(self, event: Event) -> None:
        kind, cloud = str(event.kind), event.cloud or ""
        self._events[kind, cloud] += 1
        seconds = _number(event.facts, "seconds")
        if seconds and cloud:
            self._seconds[kind, cloud] += seconds
        if event.kind is EventKind.IMAGE_CACHED:
            self._fetched_bytes += int(_number(event.facts, "fetched_bytes"))
        if event.kind is EventKind.IMAGE_REGISTERED:
            self._registered_bytes[cloud] += int(_number(event.facts, "size_bytes"))


def _number(facts: Mapping[str, object], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return 0
    return max(0, value)
