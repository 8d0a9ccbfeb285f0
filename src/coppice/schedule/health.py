# SPDX-License-Identifier: Apache-2.0
"""Health: whether the service lives, and why it is not ready. Pure.

Reasons are made of fixed words, names of jobs and codes of errors: whoever may ask learns no address, path or title.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from coppice.schedule.standing import Standing

HUNG_SECONDS: Final = 120.0
"""The loop goes round at least every half minute, and waits for the database for as long at most."""


def is_alive(standing: Standing, monotonic: float) -> bool:
    """Tell whether the loop of the service goes round."""
    return standing.started_at is None or monotonic - standing.beat < HUNG_SECONDS


def reasons_not_ready(standing: Standing, monotonic: float) -> tuple[str, ...]:
    """Return why the service does not do its work as it should; empty: it does."""
    reasons = []
    if standing.started_at is None:
        reasons.append("starting")
    if standing.stopping:
        reasons.append("stopping")
    if not is_alive(standing, monotonic):
        reasons.append("hung")
    if standing.settings_error is not None:
        reasons.append(f"settings: {standing.settings_error}")
    if standing.database_error is not None:
        reasons.append(f"database: {standing.database_error}")
    for name, record in sorted(standing.records.items()):
        if record.is_failing:
            reasons.append(f"job {name}: failed with status {record.exit_code}")
    return tuple(reasons)
