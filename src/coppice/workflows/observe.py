# SPDX-License-Identifier: Apache-2.0
"""Observe: ask a cloud what it has, and keep what it says, or why it says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.observations import Observations
from coppice.errors import CoppiceError

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import RegisteredImage
    from coppice.database import Database


def observe(cloud: Cloud, database: Database, clock: Clock, *, is_kept: bool = True) -> tuple[RegisteredImage, ...]:
    """Return all that ``cloud`` has of this site; what it says is kept for `coppice status` and the metrics.

    That a cloud fails, and that it answers again, is told once each.

    Args:
        cloud: Which cloud.
        database: Where it is kept.
        clock: Tells the time.
        is_kept: Whether what it says is kept: not, where the same caller looks again soon. That it fails always is.

    Raises:
        CloudError: It could not be asked, or its answer was incomplete.
        DatabaseError: The database failed.
    """
    observations = Observations(database)
    try:
        images = cloud.describe()
    except CoppiceError as problem:
        observations.record_failure(cloud.name, problem, clock.now())
        raise
    if is_kept:
        observations.record(cloud.name, images, clock.now())
    return images
