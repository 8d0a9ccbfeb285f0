# SPDX-License-Identifier: Apache-2.0
"""An appliance: the logical, versioned thing of which images are realisations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.model.identifiers import ImageIdentifier
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Appliance:
    """What stays the same, or is described anew, over an appliance's versions.

    Attributes:
        name: Its name at the publisher (`coppice.model.identifiers.is_name`).
        identifier: Minted once for (appliance, variant, architecture); never reused.
        title: For people, one line.
        description: For people, a paragraph.
        groups: Categories (``ad:group``).
        operating_system: What runs in it.
        requirements: What it needs.
        hypervisor: What its images are made for (``hv:hypervisor``).
        comments: For people (``sl:comments``).
        keys: What else an image list says of it, by the format's keys (``ad:appid``, ``ad:base_mpuri`` …).
        discontinued_on: From when on it is over, so that no new version is accepted; None: it goes on.
        successor: The appliance that takes its place once it is discontinued; None: nobody said.
    """

    name: str
    identifier: ImageIdentifier
    title: str
    description: str
    groups: tuple[str, ...]
    operating_system: OperatingSystem
    requirements: Requirements
    hypervisor: str = "KVM"
    comments: str = ""
    keys: Mapping[str, object] = field(default_factory=dict)
    discontinued_on: datetime | None = None
    successor: ImageIdentifier | None = None
