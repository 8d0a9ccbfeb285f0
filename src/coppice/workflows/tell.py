# SPDX-License-Identifier: Apache-2.0
"""Tell: each hook of the settings is told of the events that are due, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReport:
    """What became of one hook.

    Attributes:
        hook: Its name.
        delivered: How many events it was told of.
        waiting: How many it will be told of once more, or after one that is.
        parked: How many were given up in this run.
        errors: Why; one an event that was not delivered.
        busy: Whether another run is telling it just now.
    """

    hook: str
    delivered: int = 0
    waiting: int = 0
    parked: int = 0
    errors: tuple[CoppiceError, ...] = ()
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TellReport:
    """What became of all of them, in the order of their names."""

    hooks: tuple[HookReport, ...] = ()


def tell(settings: Settings, database: Database, clock: Clock, monitor: Monitor) -> TellReport:
    """Tell every hook what is due; a hook that fails stops no other.

    Called at the end of runs, and by ``coppice event deliver``. What cannot be delivered is tried again by a later
    call; it is no failure of the run whose events they are.

    Args:
        settings: All settings.
        database: Where the journal is.
        clock: Tells the time.
        monitor: Where progress is told.

    Raises:
        DatabaseError: The database failed.
    """
    del settings, database, clock, monitor
    return TellReport()
