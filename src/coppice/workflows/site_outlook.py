# SPDX-License-Identifier: Apache-2.0
"""How every appliance stands in every cloud of the site: from what the clouds were seen to have, or are asked now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.observations import Observations
from coppice.errors import CoppiceError
from coppice.workflows.mapping import desired_for, policy_for, shared_names, unused_settings
from coppice.workflows.observe import observe
from coppice.workflows.outlook import outlook
from coppice.workflows.wanted import wanted_today

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.database import Database
    from coppice.settings.model import Settings
    from coppice.workflows.mapping import SharedName
    from coppice.workflows.outlook import ApplianceOutlook


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudOutlook:
    """How the appliances of one cloud stand.

    Attributes:
        cloud: Name of the target.
        seen_at: When it was seen to have what is told of; None: it never was.
        tried_at: When it was asked last, be it in vain; None: it never was.
        error_code: Code of the error with which it answered last; None: it answered well, or was not asked yet.
        error: What that error said.
        appliances: By title.
        shared_names: Names that images of several lists have in it.
        unused: Settings of it that are about nothing that is wanted, one sentence each; not told while a list is not
            known.
    """

    cloud: str
    seen_at: datetime | None
    tried_at: datetime | None
    error_code: str | None
    error: str | None
    appliances: tuple[ApplianceOutlook, ...]
    shared_names: tuple[SharedName, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOutlook:
    """How the appliances of a site stand.

    Attributes:
        clouds: In the order of their names.
        unknown: Why nothing is known of some lists.
        unanswered: Why clouds that were asked just now gave no answer.
    """

    clouds: tuple[CloudOutlook, ...]
    unknown: tuple[CoppiceError, ...]
    unanswered: tuple[CoppiceError, ...] = ()


def site_outlook(
    *, settings: Settings, database: Database, clock: Clock, ask: Mapping[str, Cloud] | None = None
) -> SiteOutlook:
    """Return how every appliance stands in the clouds of the settings.

    Args:
        settings: All settings.
        database: Where subscriptions are, and what the clouds were seen to have.
        clock: Tells the time.
        ask: Clouds to be asked now; None: none is, and what they were seen to have counts.

    Raises:
        DatabaseError: The database failed.
        SettingsError: A template or an expression of a cloud is none.
    """
    unanswered = []
    for _, cloud in sorted((ask or {}).items()):
        try:
            observe(cloud, database, clock)
        except CoppiceError as problem:
            unanswered.append(problem)
    wanted = wanted_today(database, clock, settings.lists)
    seen = {each.cloud: each for each in Observations(database).all()}
    now = clock.now()
    clouds = []
    for name, target in sorted(settings.clouds.items()):
        desired, last = desired_for(target, wanted.desired), seen.get(name)
        known = None if last is None or last.at is None else last.images
        clouds.append(
            CloudOutlook(
                cloud=name,
                seen_at=None if last is None else last.at,
                tried_at=None if last is None else last.tried_at,
                error_code=None if last is None else last.error_code,
                error=None if last is None else last.error,
                appliances=outlook(name, desired, known, policy_for(settings, name), now),
                shared_names=shared_names(desired),
                unused=() if wanted.unknown or not wanted.desired.lists else unused_settings(target, wanted.desired),
            )
        )
    return SiteOutlook(clouds=tuple(clouds), unknown=wanted.unknown, unanswered=tuple(unanswered))
