# SPDX-License-Identifier: Apache-2.0
"""Retire: what the dates demand, without the network's lists: expire what has ended, remove what is past its grace."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from coppice.cloud.model import Desired
from coppice.errors import PlanError
from coppice.events.journal import Journal
from coppice.schedule.lock import run_lock
from coppice.workflows.converge import LOCK_NAME, SyncReport, converge, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage
    from coppice.conversion.model import Formats
    from coppice.database import Database
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


def retire(
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    clouds: Mapping[str, Cloud],
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> SyncReport:
    """Expire and remove what the markers' own dates say; nothing is registered, superseded or withdrawn.

    Raises:
        LockedError: Another run is at work.
        DatabaseError: The journal cannot be written.
    """
    with run_lock(settings.state_directory / LOCK_NAME, wait_seconds):
        reports = converge(
            Desired(lists=()),
            clouds,
            policy=policy_of(settings.plan),
            obtain=_obtain_nothing,
            clock=clock,
            monitor=monitor,
            journal=Journal(database),
            dry_run=dry_run,
        )
        return SyncReport(refreshed=None, unreadable=(), clouds=reports)


def _obtain_nothing(desired: DesiredImage, _formats: Formats, _monitor: Monitor) -> NoReturn:
    raise PlanError(f"retiring registers nothing, and was asked for image {desired.key}")
