# SPDX-License-Identifier: Apache-2.0
"""`Definition`: what a person writes to have an image built."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.image import DiskFormat
    from coppice.model.operating_system import Firmware, OperatingSystem
    from coppice.model.requirements import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An appliance definition, read and validated.

    Attributes:
        name: The name of its folder.
        path: The ``appliance.toml`` that it was read from.
        title: For people, one line.
        description: For people, a paragraph.
        groups: Categories.
        operating_system: What is built.
        suite: The distribution's name of the release (``bookworm``).
        builder: The plug-in that builds it (``bootstrap``).
        packages: Added to what the builder always installs; sorted, without duplicates.
        disk_size_bytes: Virtual size of the disk.
        firmware: What it must boot under.
        formats: What the builder writes; the first is the one that is published.
        user: The account that cloud-init creates.
        requirements: What the appliance needs.
    """

    name: str
    path: Path
    title: str
    description: str
    groups: tuple[str, ...]
    operating_system: OperatingSystem
    suite: str
    builder: str
    packages: tuple[str, ...]
    disk_size_bytes: int
    firmware: tuple[Firmware, ...]
    formats: tuple[DiskFormat, ...]
    user: str
    requirements: Requirements

    def digest(self) -> str:
        """Return the sha256 of all that the definition says; where its file lies does not count."""
        said = {key: value for key, value in asdict(self).items() if key != "path"}
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
