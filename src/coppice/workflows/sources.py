# SPDX-License-Identifier: Apache-2.0
"""Open the sources of lists for a run, with all that their drivers may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.source.drivers import SourceShelf
from coppice.subscription.source.protocol import SourceSupplies

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.http import Client
    from coppice.imagelist.model import ImageList
    from coppice.settings.model import Settings


def open_sources(database: Database, client: Client | None, clock: Clock, settings: Settings) -> SourceShelf:
    """Return the sources of one run; none of them is asked anything yet.

    Args:
        database: Of the site: a source may be the site's own catalogue.
        client: Fetches; None: nothing is fetched in this run.
        clock: Tells the time.
        settings: Limits, and where sources may keep notes.
    """

    def own_list(name: str) -> ImageList:
        from coppice.workflows.own_list import own_list as compose_own

        return compose_own(database, name, clock)

    return SourceShelf(
        SourceSupplies(
            client=client,
            clock=clock,
            limits=settings.lists,
            anchors=AnchorShelf(),
            catalogue=own_list,
            notes_directory=settings.state_directory / "subscription",
        )
    )
