# SPDX-License-Identifier: Apache-2.0
"""`Descriptor`: an appliance version described for the next tool, whoever made the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.model.image import Image
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements


class Action(StrEnum):
    """What a descriptor asks for."""

    REGISTRATION = "registration"
    EXPIRATION = "expiration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the described appliance.

    Attributes:
        path: Where the file lies: absolute, or relative to the descriptor.
        image: Facts about it.
    """

    path: str
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """The hand-over JSON document.

    Attributes:
        action: Registration or expiration.
        identifier: Of the appliance, the same over all versions; the appliance's name where no UUID was minted yet.
        version: Of the appliance.
        title: For people, one line.
        description: For people, a paragraph.
        groups: Categories.
        operating_system: What runs in it.
        requirements: What it needs.
        disks: Several formats of the same content; the first is preferred.
        created: When the images were made.
        provenance: Pointer (path or URL) to where the bytes come from; None for a foreign image.
        extra: Fields of the document that this version of Coppice does not know, kept as they are.
    """

    action: Action
    identifier: str
    version: str
    title: str
    description: str
    groups: tuple[str, ...]
    operating_system: OperatingSystem
    requirements: Requirements
    disks: tuple[Disk, ...]
    created: datetime
    provenance: str | None
    extra: Mapping[str, object] = field(default_factory=dict)
