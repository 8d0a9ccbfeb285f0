# SPDX-License-Identifier: Apache-2.0
"""Open the sources of lists for a run, with all that their drivers may use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.errors import InputError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.source.drivers import HEPIX, SourceShelf, judging_shelf
from coppice.subscription.source.protocol import SourceSupplies
from coppice.subscription.store import SubscriptionStore

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.formats.limits import ListLimits
    from coppice.http import Client
    from coppice.imagelist.model import ImageList
    from coppice.settings.model import Settings
    from coppice.subscription.model import VerifiedImageList


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

    recalling = judging_sources(database, clock, settings.lists).supplies.recall
    return SourceShelf(
        SourceSupplies(
            client=client,
            clock=clock,
            limits=settings.lists,
            anchors=AnchorShelf(),
            catalogue=own_list,
            recall=recalling,
            notes_directory=settings.state_directory / "subscription",
        )
    )


def judging_sources(database: Database, clock: Clock, limits: ListLimits = DEFAULT_LIMITS) -> SourceShelf:
    """Return the sources of a run that judges what is kept, and fetches nothing.

    Args:
        database: Of the site: a list may be trusted by the list of another subscription.
        clock: Tells the time.
        limits: Bounds on lists.
    """
    store = SubscriptionStore(database)
    signed = judging_shelf(clock, limits)

    def recall(name: str) -> VerifiedImageList:
        driver = store.get(name).source.driver
        if driver != HEPIX:
            raise InputError(
                f"the subscription {name!r} has no signed image list: its source is {driver}",
                resolution=f"Name one whose source is {HEPIX}.",
            )
        return store.recall(name, signed, clock.now(), limits=limits)

    return SourceShelf(replace(signed.supplies, recall=recall))
