# SPDX-License-Identifier: Apache-2.0
"""Retire: what the dates demand, without the network's lists: expire what has ended, remove what is past its grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.model import Desired
from coppice.cloud.revocations import Revocations
from coppice.workflows.converge import Site, SyncReport, converge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
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
    """Expire and remove what the markers' own dates say, and revoke what is revoked.

    Nothing is registered, superseded or withdrawn.

    Only the clouds themselves are locked: it need not wait for a sync that fetches.

    Raises:
        DatabaseError: The journal cannot be written.
    """
    site = Site(settings=settings, database=database, clock=clock, monitor=monitor)
    desired = Desired(lists=(), revocations=Revocations(database).in_force())
    reports = converge(desired, clouds, site, dry_run=dry_run, wait_seconds=wait_seconds)
    return SyncReport(refreshed=None, unreadable=(), clouds=reports)
