# SPDX-License-Identifier: Apache-2.0
"""Time: one source of it, handed in, so that a test and the demo can bring their own.

No command of the product sets the time. Every instant is an aware UTC datetime.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return this instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for measuring durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return this instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class ShiftedClock:
    """A clock that runs with the machine's, ahead by a shift that its owner sets."""

    def __init__(self, shift: timedelta = timedelta(0)) -> None:
        self._shift = shift

    def advance(self, by: timedelta) -> None:
        """Move this clock ahead of the machine's by ``by`` more."""
        self._shift += by

    def now(self) -> datetime:
        """Return the machine's instant plus the shift."""
        return datetime.now(UTC) + self._shift

    def monotonic(self) -> float:
        """Return seconds that never go back; a shift does not show in them."""
        return time.monotonic()


class FixedClock:
    """A clock that stands still until it is moved (tests)."""

    def __init__(self, instant: datetime) -> None:
        self._instant = require_aware(instant)

    def advance(self, by: timedelta) -> None:
        """Move the clock."""
        self._instant += by

    def now(self) -> datetime:
        """Return the set instant."""
        return self._instant

    def monotonic(self) -> float:
        """Return the set instant as seconds."""
        return self._instant.timestamp()


def require_aware(instant: datetime) -> datetime:
    """Return ``instant`` in UTC.

    Raises:
        ValueError: It carries no time zone, so nobody knows when it is.
    """
    if instant.tzinfo is None:
        message = f"naive datetime {instant!r}: every instant in Coppice carries a time zone"
        raise ValueError(message)
    return instant.astimezone(UTC)


def to_rfc3339(instant: datetime) -> str:
    """Return ``instant`` as RFC 3339 in UTC with whole seconds and ``Z``."""
    return require_aware(instant).strftime("%Y-%m-%dT%H:%M:%SZ")
