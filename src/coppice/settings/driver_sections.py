# SPDX-License-Identifier: Apache-2.0
"""The tables of the settings file that are about a plug-in, by a name that people choose."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coppice.settings.section import Section
from coppice.settings.values import (  # noqa: TC001 - pydantic reads the annotations
    Formats,
    Names,
    OptionalCount,
    OptionalDays,
    OptionalTemplate,
    OptionalText,
    Properties,
    Template,
    Text,
    Visibility,
)

_SECRET_NAME = re.compile(
    r"(?:^|[_-])(password|passwd|passphrase|secret|token|apikey|api_key|private_key)$", re.IGNORECASE
)


class _DriverSection(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    driver: Text = Field(description="The plug-in.")

    @model_validator(mode="after")
    def _keep_secrets_out(self) -> _DriverSection:
        found = sorted(_secrets("", self.model_extra or {}))
        if found:
            raise ValueError(
                f"{found[0]}: a secret does not belong here; put it into a file that only Coppice can read and write "
                f'{found[0]}_file = "/path", or name a variable with {found[0]}_env'
            )
        return self


class VoSection(Section):
    """What is otherwise for images of one virtual organisation."""

    members: Names = Field(
        default=(), description="Projects (OpenStack) or groups (OpenNebula) that its images are for."
    )
    visibility: Visibility = Field(
        default=None,
        description="How far its images are seen; unset: by its members, and where it has none, as in this cloud.",
    )
    datastores: Names = Field(default=(), description="Where its images lie (OpenNebula); empty: as in this cloud.")
    name: OptionalTemplate = Field(default=None, description="Template of an image's name; unset: the cloud's.")
    properties: Properties = Field(default_factory=dict, description="Properties to add to its images.")
    grace_days: OptionalDays = Field(default=None, description="The grace period; unset: the cloud's.")
    keep_versions: OptionalCount = Field(
        default=None, description="How many superseded versions stay; unset: as in this cloud."
    )


class ImageSection(Section):
    """What is otherwise for one image."""

    name: OptionalTemplate = Field(default=None, description="Template of its name; unset: its VO's or the cloud's.")
    properties: Properties = Field(default_factory=dict, description="Properties to add to it.")
    grace_days: OptionalDays = Field(default=None, description="The grace period; unset: its VO's or the cloud's.")
    keep_versions: OptionalCount = Field(
        default=None, description="How many superseded versions stay; unset: as for its VO or in this cloud."
    )


class CloudSection(_DriverSection):
    """One cloud target; what is not declared here goes to its driver."""

    site: Text = Field(
        description="Identifier of this site, written on every image that Coppice registers. It decides which images "
        "are ours, so there is no default: two sites with the same identifier would remove each other's images.",
    )
    formats: Formats = Field(
        default=(), description="Disk formats that it takes, most wanted first; empty: the driver's."
    )
    image_name: Template = Field(
        default="{title}",
        description="Template of the name that users see; {title}, {version}, {os_distribution}, {os_version}, "
        "{architecture}, {list}, {image}, {vo} and {site} are filled in.",
    )
    include: OptionalText = Field(
        default=None, description="An expression, as subscriptions have it: only images for which it holds."
    )
    exclude: OptionalText = Field(default=None, description="An expression: no images for which it holds.")
    only_vos: Names = Field(
        default=(), description="Only images of lists of these virtual organisations; empty: of all."
    )
    visibility: Visibility = Field(default=None, description="How far images are seen; unset: the driver's.")
    properties: Properties = Field(
        default_factory=dict, description="Properties to add to each image, in the cloud's own words."
    )
    grace_days: OptionalDays = Field(default=None, description="The grace period here; unset: plan.grace_days.")
    keep_versions: OptionalCount = Field(
        default=None, description="How many superseded versions stay here; unset: plan.keep_versions."
    )
    vos: dict[str, VoSection] = Field(
        default_factory=dict, description="What is otherwise for images of a virtual organisation, by its name."
    )
    images: dict[str, ImageSection] = Field(
        default_factory=dict, description="What is otherwise for an image, by its identifier."
    )


class PublisherSection(_DriverSection):
    """One place to publish to; what is not declared here goes to its driver."""


def _secrets(prefix: str, options: dict[str, object]) -> list[str]:
    found: list[str] = []
    for key, value in options.items():
        if _SECRET_NAME.search(key):
            found.append(prefix + key)
        elif isinstance(value, dict):
            found += _secrets(f"{prefix}{key}.", value)
    return found
