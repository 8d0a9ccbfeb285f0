# SPDX-License-Identifier: Apache-2.0
"""How the service stands: written by its loop, read by those who ask over the network, each in a thread of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.schedule.model import JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the service stands at one moment.

    Attributes:
        started_at: Since when it works; None: it does not yet.
        beat: When its loop went round last, by the clock that is never set.
        stopping: Whether it was asked to stop.
        running: Jobs of which a run is under way, and since when.
        next_at: When each job begins next, as far as it is known.
        records: How each job went.
        settings_error: Code of what is wrong with the settings that were to be read anew; None: nothing.
        database_error: Code of what was wrong when the database was written last; None: nothing.
        reloads: How often settings were read anew.
    """

    started_at: datetime | None = None
    beat: float = 0.0
    stopping: bool = False
    running: Mapping[str, datetime] = field(default_factory=dict)
    next_at: Mapping[str, datetime] = field(default_factory=dict)
    records: Mapping[str, JobRecord] = field(default_factory=dict)
    settings_error: str | None = None
    database_error: str | None = None
    reloads: int = 0


class Board:
    """Where the standing is written up: one writer, any number of readers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing = Standing()

    def read(self) -> Standing:
        """Return the standing of now."""
        with self._lock:
            return self._standing

    def write(self, **changes: Any) -> None:
        """Change what is given; all else stays."""
        with self._lock:
            self._standing = replace(self._standing, **changes)
