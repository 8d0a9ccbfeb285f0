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
    """A list names an image that is wanted and that it did not name before."""
    IMAGE_CHANGED = "ImageChanged"
    """A list names another version of a wanted image."""
    CACHE_RUN_BEGUN = "CacheRunBegun"
    CACHE_RUN_ENDED = "CacheRunEnded"
    IMAGE_CACHING = "ImageCaching"
    """An image was fetched and verified, and is about to be handed out."""
    IMAGE_UNCACHING = "ImageUncaching"
    """An image is about to be taken from those that are handed out."""
    IMAGE_UNCACHED = "ImageUncached"
    IMAGE_FETCH_FAILED = "ImageFetchFailed"
    IMAGE_CORRUPT = "ImageCorrupt"
    """A file of the cache was not what its name says, and was moved aside."""
    BUNDLE_IMPORTED = "BundleImported"
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
