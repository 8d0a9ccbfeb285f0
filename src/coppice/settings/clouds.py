# SPDX-License-Identifier: Apache-2.0
"""Settings of one cloud target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class VoSettings:
    """What is otherwise for images of one virtual organisation in one cloud; None: as the cloud's own settings say.

    Attributes:
        members: Projects or groups that its images are for, as the cloud names them.
        visibility: How far they are seen: ``private``, ``shared``, ``community`` or ``public``.
        datastores: Where they lie, where a cloud has several places.
        name: Template of an image's name.
        properties: What is added to the cloud's own properties.
        grace_days: From superseded, expired, withdrawn or revoked to removal.
        keep_versions: How many superseded versions of an image stay in any case.
    """

    members: tuple[str, ...] = ()
    visibility: str | None = None
    datastores: tuple[str, ...] = ()
    name: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    grace_days: float | None = None
    keep_versions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """What is otherwise for one image in one cloud; None: as its VO's, or the cloud's, settings say.

    Attributes:
        name: Template of its name.
        properties: What is added to the cloud's and the VO's properties.
        grace_days: From superseded, expired, withdrawn or revoked to removal.
        keep_versions: How many superseded versions stay in any case.
    """

    name: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    grace_days: float | None = None
    keep_versions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """One cloud target.

    Attributes:
        name: How commands call it.
        driver: The plug-in.
        site: Identifier of the site; images of another site are never touched.
        formats: Disk formats that it takes, most wanted first; empty: the driver's.
        options: The driver's own settings.
        image_name: Template of the name that users see.
        include: Expression: only images for which it holds; None: all.
        exclude: Expression: no images for which it holds; None: none.
        only_vos: Only images of lists of these virtual organisations; empty: of all.
        visibility: How far images are seen; None: the driver's.
        properties: What the site adds to each image, in the cloud's own words.
        grace_days: From superseded, expired, withdrawn or revoked to removal; None: ``plan.grace_days``.
        keep_versions: How many superseded versions of an image stay; None: ``plan.keep_versions``.
        vos: What is otherwise for images of a virtual organisation, by its name.
        images: What is otherwise for an image, by its identifier.
    """

    name: str
    driver: str
    site: str
    formats: tuple[str, ...]
    options: Mapping[str, object]
    image_name: str = "{title}"
    include: str | None = None
    exclude: str | None = None
    only_vos: tuple[str, ...] = ()
    visibility: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    grace_days: float | None = None
    keep_versions: int | None = None
    vos: Mapping[str, VoSettings] = field(default_factory=dict)
    images: Mapping[str, ImageSettings] = field(default_factory=dict)
