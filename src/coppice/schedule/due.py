# SPDX-License-Identifier: Apache-2.0
"""Due: which jobs there are, and when each is to run next. Pure: settings, records and an instant go in.

What is returned is a delay, not an instant: the service counts it by a clock that is never set, so that a machine whose
time jumps neither runs everything at once nor stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coppice.schedule.model import Job

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.schedule.model import JobRecord
    from coppice.settings.model import Settings

REFRESH: Final = "refresh"
SYNC: Final = "sync"
RETIRE: Final = "retire"
PRUNE: Final = "prune"
REBUILD: Final = "rebuild"
TELL: Final = "tell"
NAMES: Final = (REFRESH, SYNC, RETIRE, PRUNE, REBUILD, TELL)
"""In the order in which they run where all are due."""
BUSY_SECONDS: Final = 60.0
"""How long a job waits that found another run at work."""


def jobs_of(settings: Settings, *, builds: bool = False) -> tuple[Job, ...]:
    """Return the jobs that the settings ask for, in their order.

    ``refresh`` is one only where it has an interval of its own: each sync refreshes the lists. ``rebuild`` is one only
    where there is something to build anew, and it is not switched off. ``tell`` is one only where there are hooks, and
    has no interval: it runs when a hook is to be told of something.

    Args:
        settings: The settings.
        builds: Whether the catalogue has, or had, an appliance that was built here.
    """
    service = settings.service
    jobs = [
        Job(name=SYNC, words=("sync",), interval_seconds=service.sync_seconds, apart_from=frozenset({REFRESH})),
        Job(name=RETIRE, words=("retire",), interval_seconds=service.retire_seconds),
        Job(name=PRUNE, words=("cache", "prune"), interval_seconds=service.prune_seconds),
    ]
    if service.refresh_seconds is not None:
        words = ("subscription", "refresh")
        jobs.insert(
            0,
            Job(name=REFRESH, words=words, interval_seconds=service.refresh_seconds, apart_from=frozenset({SYNC})),
        )
    if builds and service.rebuild:
        jobs.append(Job(name=REBUILD, words=("rebuild",), interval_seconds=service.rebuild_seconds))
    if settings.hooks:
        jobs.append(Job(name=TELL, words=("event", "deliver"), interval_seconds=None))
    return tuple(jobs)


def delay_seconds(
    job: Job, record: JobRecord | None, now: datetime, *, jitter: float = 0.0, draw: float = 0.0
) -> float | None:
    """Return in how many seconds ``job`` is to begin next; 0: now; None: when something asks for it.

    Args:
        job: The job.
        record: Its runs so far; None: none was noted.
        now: This instant.
        jitter: Share (0 to 1) of the interval by which a run is put off at most.
        draw: A number drawn at random, from 0 to 1: which part of that it is this time.
    """
    if job.interval_seconds is None:
        return None
    if record is None or record.started_at is None or record.ended_at is None:
        # It never ran, or its last run did not come to its end.
        return 0.0
    since = (now - record.started_at).total_seconds()
    if since < 0:
        # The clock was set back: how long ago that was is not known, and too soon is better than too late.
        return 0.0
    return max(0.0, job.interval_seconds * (1 + jitter * draw) - since)


def busy_seconds(job: Job) -> float:
    """Return in how many seconds ``job`` is tried again that found another run at work."""
    return BUSY_SECONDS if job.interval_seconds is None else min(BUSY_SECONDS, job.interval_seconds)
