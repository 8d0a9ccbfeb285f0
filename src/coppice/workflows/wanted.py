# SPDX-License-Identifier: Apache-2.0
"""Wanted: what the site wants today by the lists that were verified last; nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.revocations import Revocations
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.listed import recall_lists
from coppice.workflows.select import select

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.cloud.model import Desired
    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.formats.limits import ListLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a site wants.

    Attributes:
        desired: Of all clouds together.
        unknown: Why nothing is known of some lists.
    """

    desired: Desired
    unknown: tuple[CoppiceError, ...]


def wanted_today(database: Database, clock: Clock, limits: ListLimits) -> Wanted:
    """Return what the lists that were verified last, and still hold, ask for.

    Raises:
        DatabaseError: The database failed.
    """
    store = SubscriptionStore(database)
    outcomes = recall_lists(store, clock, limits)
    return Wanted(
        desired=select(outcomes, store.unsubscribed(), store.taken_back(), Revocations(database).in_force()),
        unknown=tuple(each.error for each in outcomes if each.error is not None),
    )
