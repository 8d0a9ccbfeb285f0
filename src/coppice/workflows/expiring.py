# SPDX-License-Identifier: Apache-2.0
"""Tell that what is registered ends soon: once for each date."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.expiry import ending_soon
from coppice.events.journal import Journal, write_events
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from coppice.cloud.expiry import Ending
    from coppice.cloud.model import RegisteredImage
    from coppice.database import Database


def tell_expiring(
    cloud: str, registered: Iterable[RegisteredImage], database: Database, *, within_days: float, now: datetime
) -> None:
    """Write an event for each image of ``cloud`` that ends within some days and of which that was not told.

    Raises:
        DatabaseError: The database failed.
    """
    endings = ending_soon(registered, timedelta(days=within_days), now)
    if not endings:
        return
    facts = (_facts(cloud, each) for each in endings)
    new = Journal(database).untold(EventKind.IMAGE_EXPIRING, facts, alike=("version", "expires"))
    if new:
        with database.session() as session:
            events = ((EventKind.IMAGE_EXPIRING, f"{cloud}:{each['list']}/{each['image']}", each) for each in new)
            write_events(session, events, at=now)


def _facts(cloud: str, ending: Ending) -> dict[str, object]:
    marker = ending.image.marker
    return {
        "cloud": cloud,
        "list": marker.key.list_identifier,
        "image": marker.key.image_identifier,
        "version": marker.version,
        "digest": str(marker.digest),
        "cloud_identifier": ending.image.cloud_identifier,
        "expires": to_rfc3339(ending.expires),
    }
