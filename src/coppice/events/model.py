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
    APPLIANCE_REBUILD_FAILED = "ApplianceRebuildFailed"
    """A stale appliance could not be built anew, or did not pass its gates; its old version stays."""
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
    IMAGE_DIFFERS = "ImageDiffers"
    """An image is of another format than its list says, and is used all the same."""
    BUNDLE_IMPORTED = "BundleImported"
    IMAGE_CACHED = "ImageCached"
    IMAGE_REGISTERED = "ImageRegistered"
    IMAGE_UPDATED = "ImageUpdated"
    IMAGE_AVAILABLE = "ImageAvailable"
    IMAGE_SUPERSEDED = "ImageSuperseded"
    IMAGE_EXPIRED = "ImageExpired"
    IMAGE_WITHDRAWN = "ImageWithdrawn"
    IMAGE_STAGED = "ImageStaged"
    """An image was registered and is not listed yet: others of its set are awaited."""
    IMAGE_REVOKED = "ImageRevoked"
    IMAGE_EXPIRING = "ImageExpiring"
    """An image that is registered will end soon."""
    IMAGE_ADOPTED = "ImageAdopted"
    """An image that another program had registered was taken over."""
    IMAGE_PINNED = "ImagePinned"
    """An administrator went back to an earlier version, or fixed the one that is there."""
    IMAGE_UNPINNED = "ImageUnpinned"
    REVOCATION_MADE = "RevocationMade"
    REVOCATION_TAKEN_BACK = "RevocationTakenBack"
    LEFTOVER_CLEARED = "LeftoverCleared"
    """Something that a failed registration left behind was removed from a cloud."""
    CLOUD_FAILED = "CloudFailed"
    """A cloud could not be asked or worked on at all."""
    CLOUD_RECOVERED = "CloudRecovered"
    JOB_FAILED = "JobFailed"
    """A job of the service failed, or was ended for the time that it took."""
    JOB_RECOVERED = "JobRecovered"
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
        subscription: Through which subscription; None: through none, or it is not known.
        list_identifier: Of which list.
        image_identifier: Of which of its images.
        cloud: In which cloud.
    """

    number: int
    kind: EventKind
    subject: str
    facts: Mapping[str, object]
    at: datetime
    subscription: str | None = None
    list_identifier: str | None = None
    image_identifier: str | None = None
    cloud: str | None = None

    @property
    def stream(self) -> str:
        """What the event is in order with: those of the same image, else of the same subscription, list or subject."""
        if self.list_identifier is not None and self.image_identifier is not None:
            return f"image {self.list_identifier}/{self.image_identifier}"
        if self.subscription is not None:
            return f"subscription {self.subscription}"
        if self.list_identifier is not None:
            return f"list {self.list_identifier}"
        if self.kind in RUN_KINDS:
            return "run"
        return f"subject {self.subject}"


RUN_KINDS = frozenset({EventKind.CACHE_RUN_BEGUN, EventKind.CACHE_RUN_ENDED})
"""Tell of a whole run, and of no subscription or image in particular."""
SUBSCRIPTION_KINDS = frozenset(
    {
        EventKind.LIST_VERIFIED,
        EventKind.LIST_REFUSED,
        EventKind.LIST_EXPIRING,
        EventKind.LIST_EXPIRED,
        EventKind.ENDORSER_PINNED,
        EventKind.VERSION_FLOOR_RESET,
        EventKind.SUBSCRIPTION_CHANGED,
    }
)
"""Their subject is the name of a subscription."""


class DeliveryState(StrEnum):
    """What became of telling a hook of an event."""

    WAITING = "waiting"
    """It is to be told (once more)."""
    DELIVERED = "delivered"
    PARKED = "parked"
    """It failed so often that it is not tried any more, until somebody replays it."""
    DISCARDED = "discarded"
    """It was parked, and somebody decided that it need not be told any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of telling one hook of one event.

    Attributes:
        hook: Who was told.
        event: Number of the event.
        state: What became of it.
        attempts: How often it was tried since it was due, or replayed last.
        replays: How often it was replayed.
        due_at: When it is tried next; None: after an earlier event of the same stream, or never.
        changed_at: When something last became of it.
        error_code: Code of the last error.
        error: What went wrong last.
        output: What the hook said last, up to its limit.
    """

    hook: str
    event: int
    state: DeliveryState
    attempts: int
    replays: int
    due_at: datetime | None
    changed_at: datetime
    error_code: str | None = None
    error: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookStanding:
    """How far a hook is.

    Attributes:
        name: Its name.
        met_at: Since when it is told of events; None: it was not met yet.
        behind: Events after the last one that was looked at for it.
        waiting: Events that are to be told, or told once more.
        parked: Events that were given up.
    """

    name: str
    met_at: datetime | None
    behind: int
    waiting: int
    parked: int
