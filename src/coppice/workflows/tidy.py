# SPDX-License-Identifier: Apache-2.0
"""Tidy: find what failed registrations left behind in a cloud, and clear it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.apply.adoption import clear_leftovers, tidying
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.workflows.cloud_lock import cloud_lock

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.cloud.apply.adoption import ClearResult
    from coppice.cloud.driver import Cloud, Leftover
    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TidyReport:
    """What was left behind in a cloud, and what became of it.

    Attributes:
        cloud: Name of the target.
        able: Whether its driver finds what is left behind.
        leftovers: What was found.
        results: What became of what can be cleared; empty after a dry run.
    """

    cloud: str
    able: bool
    leftovers: tuple[Leftover, ...] = ()
    results: tuple[ClearResult, ...] = ()

    @property
    def errors(self) -> tuple[CoppiceError, ...]:
        """What failed."""
        return tuple(each.error for each in self.results if each.error is not None)

    @property
    def by_hand(self) -> tuple[Leftover, ...]:
        """What an administrator must clear."""
        return tuple(each for each in self.leftovers if not each.can_be_cleared)


def tidy(
    cloud: Cloud,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> TidyReport:
    """Clear what failed registrations of this site left in ``cloud``; what is somebody else's is never looked at.

    The cloud's lock is held: nothing that a run is at work on passes for left behind.

    Raises:
        CloudError: The cloud could not be asked; nothing was cleared.
        LockedError: Another run changes the cloud.
        DatabaseError: The database failed.
    """
    able = tidying(cloud)
    if able is None:
        return TidyReport(cloud=cloud.name, able=False)

    def record(result: ClearResult) -> None:
        if result.error is None:
            facts = {"cloud": cloud.name, "identifier": result.leftover.identifier, "what": result.leftover.what}
            with database.session() as session:
                write_event(session, EventKind.LEFTOVER_CLEARED, subject=cloud.name, facts=facts, at=clock.now())

    with cloud_lock(settings, cloud.name, wait_seconds):
        found = able.leftovers()
        results = () if dry_run else clear_leftovers(found, cloud, monitor=monitor, on_result=record)
    return TidyReport(cloud=cloud.name, able=True, leftovers=found, results=results)
