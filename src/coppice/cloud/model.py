# SPDX-License-Identifier: Apache-2.0
"""`Plan`, `RegisteredImage` and what a plan is made from; and the `Cloud` plug-in kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.errors import CoppiceError
    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
    from coppice.monitor import Monitor


class ImageState(StrEnum):
    """States of a registered image (the table is in the architecture page)."""

    AVAILABLE = "available"
    """Listed, and new machines can be started from it."""
    SUPERSEDED = "superseded"
    """A newer version is available; not listed, still startable by those who name it."""
    EXPIRED = "expired"
    """Its date, or its list's, has passed; nothing new may start."""
    WITHDRAWN = "withdrawn"
    """Its list does not name it any more; nothing new may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipMarker:
    """What Coppice writes on each image that it registers; without it, an image is somebody else's.

    Attributes:
        site: Identifier of the site that registered it; must match the target's.
        key: Which image of which list.
        version: The image's version.
        list_version: The list's version when the marker was written last: the floor against rollback.
        digest: sha512 of the published file: the content's identity.
        state: Its state.
        state_since: Since when; the grace period runs from here.
        expires: When the image's, or its list's, endorsement ends; None when unknown.
        pin: Version to which an administrator rolled back; None: no pin.
        metadata_digest: Of the descriptive metadata that was registered.
    """

    site: str
    key: ImageKey
    version: str
    list_version: str
    digest: Checksum
    state: ImageState
    state_since: datetime
    expires: datetime | None
    metadata_digest: str
    pin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredImage:
    """An image in a cloud that bears this site's marker, as the cloud describes it.

    Attributes:
        cloud: Name of the target in the settings.
        cloud_identifier: The cloud's own identifier.
        name: The name that the cloud's users see.
        marker: What Coppice wrote on it.
        ready: False while the cloud is still working on it, or left it broken (a registration that did not end).
    """

    cloud: str
    cloud_identifier: str
    name: str
    marker: OwnershipMarker
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredImage:
    """A listed image that a site wants in a cloud.

    Attributes:
        key: Which image of which list.
        listed: What its list says of it.
        list_version: Version of that list.
        expires: The earlier of the image's and the list's expiry.
    """

    key: ImageKey
    listed: ListedImage
    list_version: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredList:
    """What is known of one subscribed list.

    Attributes:
        identifier: The list.
        version: Its version.
        expires: Its expiry.
        images: What is wanted of it.
        unknown: Images of which nothing is known: they stay as they are.
        taken_back: Versions up to this one count no more as a floor of what is registered: an administrator took them
            back. None: none was.
    """

    identifier: ListIdentifier
    version: str
    expires: datetime
    images: tuple[DesiredImage, ...]
    unknown: frozenset[ImageIdentifier] = frozenset()
    taken_back: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What a site wants in a cloud.

    A list that is subscribed to and is not in ``lists`` is unknown: its images stay as they are until their own dates
    say otherwise. A list in ``unsubscribed`` is not followed any more: its images are withdrawn. So are those of a list
    in ``distrusted``: a certificate behind what was verified of it is revoked since.
    """

    lists: tuple[DesiredList, ...]
    unsubscribed: frozenset[ListIdentifier] = frozenset()
    distrusted: frozenset[ListIdentifier] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a site treats what is registered.

    Attributes:
        grace: From superseded, expired or withdrawn to removal.
        maximum_withdrawn_share: A list that withdraws more than this share (0 to 1) of its registered images is held.
        cap_from_images: The cap counts from this many registered images on; a list that names none is always held.
        allow_withdrawals: The administrator confirmed what the cap would hold.
    """

    grace: timedelta
    maximum_withdrawn_share: float = 0.5
    cap_from_images: int = 3
    allow_withdrawals: bool = False


class ActionKind(StrEnum):
    """What can be done to a cloud."""

    REGISTER = "register"
    UPDATE_METADATA = "update-metadata"
    CHANGE_STATE = "change-state"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of a plan.

    Attributes:
        kind: What to do.
        key: To which image of which list.
        version: Which version.
        digest: Which content.
        reason: Why, for people.
        desired: What to register or describe (REGISTER, UPDATE_METADATA, and CHANGE_STATE to available).
        registered: What is acted upon (all but REGISTER; there, the unfinished registration that is made anew).
        state: The state to go to (CHANGE_STATE, REGISTER).
        after: Position in the plan of the action that must have succeeded before (make before break).
    """

    kind: ActionKind
    key: ImageKey
    version: str
    digest: Checksum
    reason: str
    desired: DesiredImage | None = None
    registered: RegisteredImage | None = None
    state: ImageState | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that the plan would do and does not.

    Attributes:
        list_identifier: Whose images it is about.
        action: What; None when the whole list is refused.
        error: Why not, and what releases it. Held withdrawals of one list share one error.
    """

    list_identifier: ListIdentifier
    action: Action | None
    error: CoppiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do to one cloud, in order.

    Attributes:
        cloud: Name of the target.
        made_at: When.
        actions: Steps, in an order in which they can be applied.
        held: Withdrawals over the cap and lists that are refused.
        unchanged: How many registered images stay as they are.
        fingerprint: sha256 of what was registered when the plan was made; a stale plan is refused by it.
    """

    cloud: str
    made_at: datetime
    actions: tuple[Action, ...]
    held: tuple[Held, ...]
    unchanged: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What became of one action.

    Exactly one of ``registered`` and ``error`` is set, neither for a removal that went well.

    Attributes:
        action: Which.
        registered: The image afterwards.
        error: Why it failed, or was not tried.
        skipped: True when it was not tried (what it depends on failed, or the image is in use).
        seconds: How long it took.
    """

    action: Action
    registered: RegisteredImage | None = None
    error: CoppiceError | None = None
    skipped: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What became of a plan."""

    plan: Plan
    results: tuple[ActionResult, ...] = field(default_factory=tuple)


class Cloud(Protocol):
    """A plug-in that registers images somewhere (entry point group ``coppice.clouds``).

    Every method is idempotent where its meaning allows. `describe` is complete or raises: a cloud that cannot be
    asked has no registered images to plan with.
    """

    name: str
    site: str
    formats: Formats

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return every image that bears this site's marker, unfinished ones included, in a stable order.

        Raises:
            CloudError: The cloud could not be asked, or its answer was incomplete.
        """
        ...

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, metadata: Mapping[str, str], monitor: Monitor
    ) -> RegisteredImage:
        """Register an image with its marker set from the start; it is usable when this returns.

        An image with the same key, version and digest that is there and ready is returned as it is; one that is not
        ready is made anew, or mended where its bytes are found to be whole.

        Raises:
            CloudError: It could not be registered; nothing usable is left behind.
        """
        ...

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, metadata: Mapping[str, str]
    ) -> RegisteredImage:
        """Write new descriptive metadata and the marker that goes with it.

        Raises:
            CloudError: It could not be written.
        """
        ...

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Bring the image to ``marker.state`` (list, hide, deactivate, reactivate) and write the marker, in this order.

        An unfinished registration takes the marker and stays unfinished.

        Raises:
            CloudError: It could not be changed.
        """
        ...

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether something runs from the image, so that it must not be removed.

        Raises:
            CloudError: It could not be found out.
        """
        ...

    def remove(self, registered: RegisteredImage) -> None:
        """Remove the image; one that is gone already is fine, one without this site's marker is never touched.

        Raises:
            CloudError: It could not be removed.
        """
        ...
