# SPDX-License-Identifier: Apache-2.0
"""What Coppice writes on a machine definition: the marker, what users are told, and which file is the disk.

It is JSON in ASCII, in one element of the definition's ``<metadata>``: what XML cannot hold comes back as it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from coppice.cloud.model import Presentation
from coppice.cloud.properties import SITE, from_properties, to_properties
from coppice.errors import MarkerError
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.model import OwnershipMarker
    from coppice.conversion.model import ConvertedImage

NAMESPACE = "urn:coppice:libvirt"
IMAGE = "image"
CURRENT = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written on an image's machine definition.

    Attributes:
        properties: The ownership marker.
        name: What users are told that it is.
        facts: What its list says.
        additions: What the site says beside.
        hardware: What its archive says that it needs: ``firmware``, ``disk_bus``.
        pool: Where its file is.
        volume: Its file there.
        format: Of the file.
        size_bytes: Of the file.
        checksum: Of the file.
        whole: Whether all of it was seen to be there.
    """

    properties: Mapping[str, str]
    name: str
    facts: Mapping[str, str]
    additions: Mapping[str, str]
    hardware: Mapping[str, str]
    pool: str
    volume: str
    format: DiskFormat
    size_bytes: int
    checksum: Checksum
    whole: bool

    @classmethod
    def of(
        cls,
        converted: ConvertedImage,
        marker: OwnershipMarker,
        presentation: Presentation,
        *,
        pool: str,
        volume: str,
    ) -> Self:
        """Return the record of what is going to be registered."""
        needs = converted.hardware
        hardware = {} if needs is None else {"firmware": needs.firmware, "disk_bus": needs.disk_bus}
        return cls(
            properties=to_properties(marker),
            name=presentation.name,
            facts=dict(presentation.facts),
            additions=dict(presentation.properties),
            hardware={key: str(value) for key, value in hardware.items() if value is not None},
            pool=pool,
            volume=volume,
            format=converted.image.format,
            size_bytes=converted.image.size_bytes,
            checksum=converted.image.checksum,
            whole=False,
        )

    def with_marker(self, marker: OwnershipMarker) -> Record:
        """Return this record with another marker."""
        return replace(self, properties=to_properties(marker))

    def with_presentation(self, presentation: Presentation) -> Record:
        """Return this record with something else for users to be told."""
        return replace(
            self,
            name=presentation.name,
            facts=dict(presentation.facts),
            additions=dict(presentation.properties),
        )

    def marker(self, site: str) -> OwnershipMarker:
        """Return the ownership marker.

        Raises:
            MarkerError: It is damaged, or not the site's.
        """
        marker = from_properties(self.properties, site)
        if marker is None:
            raise MarkerError(f"an image of {self.properties.get(SITE)} is not {site}'s")
        return marker

    @property
    def presentation(self) -> Presentation:
        """What users are told."""
        return Presentation(name=self.name, facts=self.facts, properties=self.additions)

    def as_text(self) -> str:
        """Return it as it is written."""
        document = {
            "marker": dict(self.properties),
            "name": self.name,
            "facts": dict(self.facts),
            "properties": dict(self.additions),
            "hardware": dict(self.hardware),
            "disk": {
                "pool": self.pool,
                "volume": self.volume,
                "format": str(self.format),
                "size_bytes": self.size_bytes,
                "checksum": str(self.checksum),
            },
            "whole": self.whole,
        }
        return json.dumps(document, indent=1, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `as_text` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            document = json.loads(text)
            disk = document["disk"]
            return cls(
                properties=_texts(document["marker"]),
                name=str(document["name"]),
                facts=_texts(document["facts"]),
                additions=_texts(document["properties"]),
                hardware=_texts(document["hardware"]),
                pool=str(disk["pool"]),
                volume=_file_name(disk["volume"]),
                format=DiskFormat(disk["format"]),
                size_bytes=int(disk["size_bytes"]),
                checksum=Checksum.parse(disk["checksum"]),
                whole=document["whole"] is True,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as problem:
            message = f"{problem!r} where the record of an image is expected"
            raise ValueError(message) from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentRecord:
    """What is written on the machine definition that leads to an image's current version.

    Attributes:
        site: Whose it is.
        key: Text of the image's key.
        leads_to: UUID of the current version's definition.
    """

    site: str
    key: str
    leads_to: str

    def as_text(self) -> str:
        """Return it as it is written."""
        return json.dumps({SITE: self.site, "key": self.key, "leads_to": self.leads_to}, indent=1, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `as_text` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            document = json.loads(text)
            return cls(site=str(document[SITE]), key=str(document["key"]), leads_to=str(document["leads_to"]))
        except (KeyError, TypeError, RecursionError) as problem:
            message = f"{problem!r} where the record of a current version is expected"
            raise ValueError(message) from problem


def _texts(mapping: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}


def _file_name(text: object) -> str:
    name = str(text)
    if not name or "/" in name or name in {".", ".."}:
        message = f"{name[:200]!r} where the name of a file is expected"
        raise ValueError(message)
    return name
