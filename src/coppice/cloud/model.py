# SPDX-License-Identifier: Apache-2.0
"""`RegisteredImage`, its marker and states; what a site wants in a cloud, and how it treats what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier


class ImageState(StrEnum):
    """States of a registered image (the table is in the architecture page)."""

    AVAILABLE = "available"
    """Listed, and new machines can be started from it."""
    SUPERSEDED = "superseded"
    """A newer version is available; not listed, still startable by those who name it."""
    STAGED = "staged"
    """Registered and whole, and not listed yet: others of its set are awaited."""
    EXPIRED = "expired"
    """Its date, or its list's, has passed; nothing new may start."""
    WITHDRAWN = "withdrawn"
    """Its list does not name it any more; nothing new may start."""
    REVOKED = "revoked"
    """An administrator revoked it, or what it is built on; nothing new may start."""


class Visibility(StrEnum):
    """Who may use an image, where a cloud can tell people apart."""

    PRIVATE = "private"
    """Its owner."""
    SHARED = "shared"
    """Its owner and the members of its audience."""
    COMMUNITY = "community"
    """Everybody who knows of it."""
    PUBLIC = "public"
    """Everybody; it is in everybody's list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who may use an image.

    Attributes:
        visibility: How far it is seen; None: as the cloud's own settings say.
        members: Projects or groups that it is shared with, as the cloud names them, sorted.
    """

    visibility: Visibility | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How an image is shown in one cloud.

    Attributes:
        name: What the cloud's users see; canonical, as `coppice.cloud.properties.clean` gives it.
        facts: What its list says of it, as `coppice.cloud.properties.metadata_of` gives it. From a list: data only.
        properties: What the site adds for this cloud, in the cloud's own words. From the settings.
        audience: Who may use it.
        datastores: Where it is to lie, where a cloud has several places; empty: the cloud's own setting. A change of
            it moves nothing.
    """

    name: str
    facts: Mapping[str, str]
    properties: Mapping[str, str] = field(default_factory=dict)
    audience: Audience = field(default_factory=Audience)
    datastores: tuple[str, ...] = ()


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
        metadata_digest: Of the presentation that was registered.
        vo: Virtual organisation that its list is for; None: for none, or it is not known.
        set_identifier: The set that the image is part of; None: of none.
        set_version: Version of the set's release.
        reason: Why it is in its state, for whoever looks at it in the cloud; None: as it should be.
        adopted_from: Which other program had registered it; None: Coppice did.
        built_on: What the image is built on, the nearest first: of each digest the first 32 digits.
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
    vo: str | None = None
    set_identifier: str | None = None
    set_version: str | None = None
    reason: str | None = None
    adopted_from: str | None = None
    built_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredImage:
    """An image in a cloud that bears this site's marker, as the cloud describes it.

    Attributes:
        cloud: Name of the target in the settings.
        cloud_identifier: The cloud's own identifier.
        name: The name that the cloud's users see.
        marker: What Coppice wrote on it.
        ready: False while the cloud is still working on it, or left it broken (a registration that did not end).
        problem: What the cloud says of one that is not ready; None: nothing.
        drift: What in the cloud is not as the marker's state asks for, for people (somebody listed, hid or enabled it
            by hand); None: all is. Whoever finds any changes it to the same state once more.
    """

    cloud: str
    cloud_identifier: str
    name: str
    marker: OwnershipMarker
    ready: bool
    problem: str | None = None
    drift: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredImage:
    """A listed image that a site wants in a cloud.

    Attributes:
        key: Which image of which list.
        listed: What its list says of it.
        list_version: Version of that list.
        expires: The earlier of the image's and the list's expiry.
        vo: Virtual organisation that its list is for; None: for none.
        presentation: How it is to be shown in this cloud; None: by its title, with what its list says.
        set_identifier: The set that it is part of, as its list says; None: of none.
        set_version: Version of the set's release.
        revoked: Why an administrator revoked this very version; None: nobody did.
        set_problem: Why the set is not whole in its list; None: it is, as far as the list says.
        built_on: What the image is built on, as its list says, the nearest first: digests of published files.
    """

    key: ImageKey
    listed: ListedImage
    list_version: str
    expires: datetime
    vo: str | None = None
    presentation: Presentation | None = None
    set_identifier: str | None = None
    set_version: str | None = None
    revoked: str | None = None
    set_problem: str | None = None
    built_on: tuple[Checksum, ...] = ()


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

    Attributes:
        lists: What is known of the lists.
        unsubscribed: Lists that are not followed any more.
        distrusted: Lists that are not trusted any more.
        revocations: What an administrator revoked; it counts for what is registered of unknown lists too.
    """

    lists: tuple[DesiredList, ...]
    unsubscribed: frozenset[ListIdentifier] = frozenset()
    distrusted: frozenset[ListIdentifier] = frozenset()
    revocations: tuple[Revocation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedContent:
    """What an image that is revoked by its name holds in one of its versions: what is built on it is revoked too.

    Attributes:
        digest: Of the published file.
        everywhere: In every list, for it was known when the revocation was made; else in the image's own list alone:
            what a list says later has no other list's images revoked.
    """

    digest: Checksum
    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An administrator's word that something must not be started any more, wherever it is registered.

    Attributes:
        digest: Of the published file: the content, under whatever name; None: `key` says which.
        key: An image of a list; None: `digest` says which.
        version: Only this version of `key`; None: every one.
        reason: Why, for people.
        at: Since when.
        contents: What `key` is known to hold, or to have held, in the versions that are meant.
    """

    digest: Checksum | None
    key: ImageKey | None
    version: str | None
    reason: str
    at: datetime
    contents: tuple[RevokedContent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is not available any more is kept.

    Attributes:
        grace: From superseded, expired, withdrawn or revoked to removal.
        keep_versions: How many superseded versions that are whole stay in any case, the newest first.
    """

    grace: timedelta
    keep_versions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a site treats what is registered in one cloud.

    What is said of an image goes before what is said of its VO, and that before what is said of the cloud.

    Attributes:
        grace: From superseded, expired, withdrawn or revoked to removal.
        keep_versions: How many superseded versions of an image that are whole stay in any case, the newest first.
        by_vo: What is said otherwise of images of a virtual organisation, by its name with its case folded.
        by_image: What is said otherwise of an image, by its identifier.
        by_image_of_vo: What is said otherwise of an image, where something is said of its VO as well.
        maximum_withdrawn_share: A list that withdraws more than this share (0 to 1) of its registered images is held.
        cap_from_images: The cap counts from this many registered images on; a list that names none is always held.
        allow_withdrawals: The administrator confirmed what the cap would hold.
    """

    grace: timedelta
    maximum_withdrawn_share: float = 0.5
    cap_from_images: int = 3
    allow_withdrawals: bool = False
    keep_versions: int = 0
    by_vo: Mapping[str, Retention] = field(default_factory=dict)
    by_image: Mapping[ImageIdentifier, Retention] = field(default_factory=dict)
    by_image_of_vo: Mapping[tuple[str, ImageIdentifier], Retention] = field(default_factory=dict)

    def retention_of(self, marker: OwnershipMarker) -> Retention:
        """Return how long what bears ``marker`` is kept."""
        image, vo = marker.key.image_identifier, (marker.vo or "").casefold()
        return (
            self.by_image_of_vo.get((vo, image))
            or self.by_image.get(image)
            or self.by_vo.get(vo)
            or Retention(grace=self.grace, keep_versions=self.keep_versions)
        )
