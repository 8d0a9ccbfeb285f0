# SPDX-License-Identifier: Apache-2.0
"""`Descriptor`: an appliance version described for the next tool, whoever made the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.model.checksum import Checksum
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
class Gate:
    """What a test of the image said.

    Attributes:
        name: Of the test (``audit``, ``boot-bios`` …).
        outcome: ``passed`` or ``failed``.
        decided_at: When.
    """

    name: str
    outcome: str
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFile:
    """A file that tells of a build.

    Attributes:
        kind: What it is: ``build-record``, ``files``, ``sbom-cyclonedx``, ``sbom-spdx`` or ``provenance``.
        path: Where it lies: absolute, or relative to the descriptor.
        checksum: Of its bytes.
    """

    kind: str
    path: str
    checksum: Checksum


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
        built_on: Digests of the image files that it is built on, the nearest first.
        gates: What the tests of the image said.
        evidence: Files that tell of the build.
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
    built_on: tuple[Checksum, ...] = ()
    gates: tuple[Gate, ...] = ()
    evidence: tuple[EvidenceFile, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
