# SPDX-License-Identifier: Apache-2.0
"""Tell that what is registered ends soon: once for each date."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.expiry import ending_soon
from coppice.events.journal import EventFilter, Journal, write_events
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from coppice.cloud.model import RegisteredImage
    from coppice.database import Database

_MOST_TOLD = 100_000
"""How many of the newest such events are looked at for what was told already."""


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
    matching = EventFilter(kinds=(EventKind.IMAGE_EXPIRING,), cloud=cloud)
    told = {
        (event.subject, event.facts.get("version"), event.facts.get("expires"))
        for event in Journal(database).latest(_MOST_TOLD, matching=matching)
    }
    new: list[tuple[EventKind, str, dict[str, object]]] = []
    for each in endings:
        marker = each.image.marker
        facts: dict[str, object] = {
            "cloud": cloud,
            "list": marker.key.list_identifier,
            "image": marker.key.image_identifier,
            "version": marker.version,
            "digest": str(marker.digest),
            "cloud_identifier": each.image.cloud_identifier,
            "expires": to_rfc3339(each.expires),
        }
        subject = f"{cloud}:{marker.key}"
        if (subject, facts["version"], facts["expires"]) not in told:
            new.append((EventKind.IMAGE_EXPIRING, subject, facts))
    if new:
        with database.session() as session:
            write_events(session, new, at=now)
