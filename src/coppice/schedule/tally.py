# SPDX-License-Identifier: Apache-2.0
"""The tally: what the journal has told since the service began, counted. Each event is read once.

It begins with the service and not with the journal: old events leave that, and a counter must never go back.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from coppice.events.journal import Journal
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.database import Database
    from coppice.events.model import Event

_PAGE: Final = 1000


class Tally:
    """Counts events.

    Args:
        database: Where the journal is; what is in it already is not counted.

    Raises:
        DatabaseError: The database failed.
    """

    def __init__(self, database: Database) -> None:
        self._journal = Journal(database)
        self._number = self._journal.newest_number()
        self.events: Counter[tuple[str, str]] = Counter()
        """By kind and cloud (empty: none)."""
        self.seconds: Counter[tuple[str, str]] = Counter()
        """How long what they tell of took, likewise."""
        self.registered_bytes: Counter[str] = Counter()
        """By cloud."""
        self.fetched_bytes = 0

    def catch_up(self) -> None:
        """Count what has been told since it was asked last.

        Raises:
            DatabaseError: The database failed.
        """
        while found := self._journal.events(after=self._number, limit=_PAGE):
            for event in found:
                self._count(event)
            self._number = found[-1].number

    def _count(self, event: Event) -> None:
        kind, cloud = str(event.kind), event.cloud or ""
        self.events[kind, cloud] += 1
        seconds = _number(event.facts, "seconds")
        if seconds and cloud:
            self.seconds[kind, cloud] += seconds  # type: ignore[assignment]
        if event.kind is EventKind.IMAGE_CACHED:
            self.fetched_bytes += int(_number(event.facts, "fetched_bytes"))
        if event.kind is EventKind.IMAGE_REGISTERED:
            self.registered_bytes[cloud] += int(_number(event.facts, "size_bytes"))


def _number(facts: Mapping[str, object], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return 0
    return max(0, value)
