# SPDX-License-Identifier: Apache-2.0
"""`Event`: something that happened, and the kinds there are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class EventKind(StrEnum):
    """What can happen."""

    APPLIANCE_BUILT = "ApplianceBuilt"
    LIST_PUBLISHED = "ImageListPublished"
    LIST_VERIFIED = "ImageListVerified"
    LIST_REFUSED = "ImageListRefused"
    LIST_EXPIRING = "ImageListExpiring"
    LIST_EXPIRED = "ImageListExpired"
    ENDORSER_PINNED = "EndorserPinned"
    VERSION_FLOOR_RESET = "VersionFloorReset"
    SUBSCRIPTION_CHANGED = "SubscriptionChanged"
    CATALOGUE_CHANGED = "CatalogueChanged"
    IMAGE_NEW = "ImageNew"
    IMAGE_CACHED = "ImageCached"
    IMAGE_REGISTERED = "ImageRegistered"
    IMAGE_UPDATED = "ImageUpdated"
    IMAGE_AVAILABLE = "ImageAvailable"
    IMAGE_SUPERSEDED = "ImageSuperseded"
    IMAGE_EXPIRED = "ImageExpired"
    IMAGE_WITHDRAWN = "ImageWithdrawn"
    IMAGE_REMOVED = "ImageRemoved"
    IMAGE_FAILED = "ImageFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the journal.

    Attributes:
        number: Rises by one with each event of this database.
        kind: What happened.
        subject: To what: an appliance's name, a list, ``cloud:list/image``.
        facts: What else is known of it.
        at: When.
    """

    number: int
    kind: EventKind
    subject: str
    facts: Mapping[str, object]
    at: datetime
