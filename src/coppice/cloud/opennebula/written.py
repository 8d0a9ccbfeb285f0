# SPDX-License-Identifier: Apache-2.0
"""What Coppice writes on images: the marker, how the image is shown, and how far a registration got.

Everything that is needed to point a VM template at an image is written on the image itself: no registration has to be
repeated to make an older version the current one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cloud.model import Audience, Presentation, Visibility
from coppice.cloud.opennebula import document
from coppice.cloud.properties import from_properties, to_properties

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coppice.cloud.model import OwnershipMarker
    from coppice.cloud.opennebula.document import Attribute, Attributes
    from coppice.conversion.model import ConvertedImage

PREFIX = "COPPICE_"
SITE = "COPPICE_SITE"
LIST = "COPPICE_LIST"
IMAGE = "COPPICE_IMAGE"
PRESENTATION = "COPPICE_PRESENTATION"
WRITTEN = "COPPICE_WRITTEN"
"""Names of the attributes beside Coppice's own that Coppice wrote, with blanks between."""
UNFINISHED = "COPPICE_UNFINISHED"
COPIES = "COPPICE_COPIES"
FIRMWARE = "COPPICE_FIRMWARE"
DISK_BUS = "COPPICE_DISK_BUS"
VIRTUAL_BYTES = "COPPICE_VIRTUAL_BYTES"
_MOST_DIGITS = 3
_SIZE = re.compile(r"[0-9]{1,18}")
_NOT_MARKER = frozenset({PRESENTATION, WRITTEN, UNFINISHED, COPIES, FIRMWARE, DISK_BUS, VIRTUAL_BYTES})

_EVENTS: Mapping[str, str] = {
    "title": "VMCATCHER_EVENT_DC_TITLE",
    "description": "VMCATCHER_EVENT_DC_DESCRIPTION",
    "version": "VMCATCHER_EVENT_HV_VERSION",
    "hypervisor": "VMCATCHER_EVENT_HV_HYPERVISOR",
    "os_kind": "VMCATCHER_EVENT_SL_OS",
    "os_version": "VMCATCHER_EVENT_SL_OSVERSION",
    "architecture": "VMCATCHER_EVENT_SL_ARCH",
    "comments": "VMCATCHER_EVENT_SL_COMMENTS",
    "mpuri": "VMCATCHER_EVENT_AD_MPURI",
}
"""Facts under the names that sites' accounting and information systems read, as the programs before Coppice wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What an image needs of its machine beyond what its list says.

    Attributes:
        firmware: How it starts; empty: not known.
        disk_bus: What its disk is attached to; empty: not known.
        virtual_size_bytes: Of the disk that a guest sees; 0: not known.
    """

    firmware: str = ""
    disk_bus: str = ""
    virtual_size_bytes: int = 0

    @classmethod
    def of(cls, converted: ConvertedImage) -> Hardware:
        """Return what is known of a converted image."""
        hardware = converted.hardware
        return cls(
            firmware=str(hardware.firmware) if hardware is not None and hardware.firmware is not None else "",
            disk_bus=str(hardware.disk_bus) if hardware is not None and hardware.disk_bus is not None else "",
            virtual_size_bytes=converted.image.virtual_size_bytes,
        )

    @classmethod
    def read(cls, attributes: Iterable[Attribute]) -> Hardware:
        """Return what is written on an image."""
        texts = document.texts(attributes)
        size = texts.get(VIRTUAL_BYTES, "")
        return cls(
            firmware=texts.get(FIRMWARE, ""),
            disk_bus=texts.get(DISK_BUS, ""),
            virtual_size_bytes=int(size) if _SIZE.fullmatch(size) else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """All that Coppice writes on an image.

    Attributes:
        marker: Whose it is, and what.
        presentation: How it is shown.
        hardware: What it needs.
        copies: In how many datastores it is to lie.
        finished: Whether its registration ended.
    """

    marker: OwnershipMarker
    presentation: Presentation
    hardware: Hardware = field(default_factory=Hardware)
    copies: int = 1
    finished: bool = True

    def attributes(self) -> Attributes:
        """Return the attributes of the image; empty ones are no attributes."""
        shown = shown_attributes(self.marker, self.presentation)
        return (
            *marker_attributes(self.marker),
            (PRESENTATION, document.as_json(_as_dict(self.presentation))),
            (COPIES, str(self.copies)),
            (UNFINISHED, "NO" if self.finished else "YES"),
            (FIRMWARE, self.hardware.firmware),
            (DISK_BUS, self.hardware.disk_bus),
            (VIRTUAL_BYTES, str(self.hardware.virtual_size_bytes or "")),
            (WRITTEN, " ".join(sorted({name for name, _ in shown}))),
            *shown,
        )


def marker_attributes(marker: OwnershipMarker) -> Attributes:
    """Return the marker as attributes."""
    return tuple((key.upper(), document.to_marker_value(value)) for key, value in to_properties(marker).items())


def shown_attributes(marker: OwnershipMarker, presentation: Presentation) -> Attributes:
    """Return what people and other programs read of an image; the site's own properties go before what a list says."""
    facts = presentation.facts
    said: dict[str, str] = {"DESCRIPTION": facts.get("description", "")}
    said |= {name: facts[key] for key, name in _EVENTS.items() if key in facts}
    said["VMCATCHER_EVENT_DC_IDENTIFIER"] = str(marker.key.image_identifier)
    said["VMCATCHER_EVENT_IL_DC_IDENTIFIER"] = str(marker.key.list_identifier)
    if marker.vo is not None:
        said["VMCATCHER_EVENT_VO"] = marker.vo
    said |= presentation.properties
    return tuple((name, value) for name, value in sorted(said.items()) if document.writable(value))


def read_marker(attributes: Iterable[Attribute], site: str, *, name: str) -> OwnershipMarker | None:
    """Return the marker of ``site`` that stands in attributes; None: they are not this site's.

    Raises:
        MarkerError: It is this site's, and damaged.
    """
    properties = {
        key.lower(): document.from_marker_value(value)
        for key, value in document.texts(attributes).items()
        if key.startswith(PREFIX) and key not in _NOT_MARKER
    }
    return from_properties(properties, site, name=name)


def read_presentation(attributes: Iterable[Attribute], *, name: str) -> Presentation:
    """Return how an image is shown, as it was written on it; what is damaged or missing is shown by ``name`` alone.

    The marker's own digest of the presentation says that it is not what was wanted, so that it is written anew.
    """
    try:
        given = json.loads(document.texts(attributes).get(PRESENTATION, ""))
        visibility = given["visibility"]
        return Presentation(
            name=str(given["name"]),
            facts={str(key): str(value) for key, value in given["facts"].items()},
            properties={
                str(key): str(value)
                for key, value in given["properties"].items()
                if document.NAME.fullmatch(str(key)) is not None
            },
            audience=Audience(
                visibility=None if visibility is None else Visibility(visibility),
                members=tuple(str(each) for each in given["members"]),
            ),
            datastores=tuple(str(each) for each in given["datastores"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Presentation(name=name, facts={})


def is_finished(attributes: Iterable[Attribute]) -> bool:
    """Tell whether the registration of what bears these attributes ended."""
    return document.texts(attributes).get(UNFINISHED, "NO") != "YES"


def copies(attributes: Iterable[Attribute]) -> int:
    """Return in how many datastores an image is to lie."""
    text = document.texts(attributes).get(COPIES, "1")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 1


def names_of_ours(attributes: Iterable[Attribute]) -> frozenset[str]:
    """Return the names of those attributes that Coppice wrote."""
    texts = document.texts(attributes)
    return frozenset({name for name in texts if name.startswith(PREFIX)} | set(texts.get(WRITTEN, "").split()))


def _as_dict(presentation: Presentation) -> dict[str, object]:
    visibility = presentation.audience.visibility
    return {
        "name": presentation.name,
        "facts": dict(presentation.facts),
        "properties": dict(presentation.properties),
        "visibility": None if visibility is None else str(visibility),
        "members": list(presentation.audience.members),
        "datastores": list(presentation.datastores),
    }
