# SPDX-License-Identifier: Apache-2.0
"""How a state and a presentation show in an image, and what has to be changed so that they do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from coppice.cloud.model import ImageState, RegisteredImage, Visibility
from coppice.cloud.openstack.images import ACTIVE, FAILED_IMPORT, operation, removal
from coppice.cloud.openstack.words import (
    CONTENT,
    DISK_FORMATS,
    HARDWARE,
    MAX_LENGTH,
    TAG,
    UNFINISHED,
    VIRTUAL_SIZE,
    fit,
    hardware_text,
    is_managed,
    is_marker_property,
    least_disk_gib,
    least_ram_mib,
    marker_properties,
    shown_properties,
    unescape,
)
from coppice.cloud.properties import PREFIX, from_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.model import Audience, OwnershipMarker, Presentation
    from coppice.cloud.openstack.images import GlanceImage
    from coppice.conversion.model import ConvertedImage

USABLE = frozenset({ImageState.AVAILABLE, ImageState.SUPERSEDED, ImageState.STAGED})
"""States in which Glance gives an image's bytes to whoever may use it."""


def visibility_of(audience: Audience, default: str | None) -> Visibility:
    """Return how far an image is to be seen: as its audience says, else the settings, else no further than needed."""
    if audience.visibility is not None:
        return audience.visibility
    if default is not None:
        return Visibility(default)
    return Visibility.SHARED if audience.members else Visibility.PRIVATE


def name_of(presentation: Presentation) -> str:
    """Return an image's name as Glance takes it."""
    return fit(presentation.name, MAX_LENGTH) or "image"


def new_image(
    converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, visibility: Visibility
) -> dict[str, Any]:
    """Return what an image is made with: everything that is said of it but that it is finished.

    It is hidden until its bytes were compared, so that nobody's list shows what is not there yet.
    """
    disk_format, container_format = DISK_FORMATS[converted.image.format]
    hardware = hardware_text(converted.hardware)
    kept = {
        CONTENT: str(converted.image.checksum),
        VIRTUAL_SIZE: str(converted.image.virtual_size_bytes),
        UNFINISHED: "yes",
        **({HARDWARE: hardware} if hardware else {}),
    }
    return {
        **shown_properties(presentation, hardware),
        **kept,
        **marker_properties(marker),
        "name": name_of(presentation),
        "disk_format": disk_format,
        "container_format": container_format,
        "visibility": str(visibility),
        "os_hidden": True,
        "min_disk": least_disk_gib(presentation.facts, converted.image.virtual_size_bytes),
        "min_ram": least_ram_mib(presentation.facts),
        "tags": [TAG],
    }


def marker_of(image: GlanceImage, site: str) -> OwnershipMarker | None:
    """Read an image's marker; None: it bears none of this site.

    Raises:
        MarkerError: It is this site's, and is damaged.
    """
    plain = {key: unescape(value) if key.startswith(PREFIX) else value for key, value in image.properties.items()}
    return from_properties(plain, site, name=f"{image.name!r} ({image.identifier})")


def described(cloud: str, image: GlanceImage, marker: OwnershipMarker) -> RegisteredImage:
    """Return an image of this site as the plan sees it."""
    problem = problem_of(image)
    return RegisteredImage(
        cloud=cloud,
        cloud_identifier=image.identifier,
        name=image.name,
        marker=marker,
        ready=problem is None,
        problem=problem,
        drift=None if problem else drift_of(image, marker.state),
    )


def problem_of(image: GlanceImage) -> str | None:
    """Return why an image is not whole, for people; None: it is."""
    if not image.is_whole:
        failed = ", an import failed" if image.properties.get(FAILED_IMPORT) else ""
        return f"it is {image.status}{failed} (since {image.updated_at or 'an unknown time'})"
    if has_other_bytes(image):
        return "its bytes are not those that were registered"
    if UNFINISHED in image.properties:
        return "its bytes were not compared yet"
    return None


def has_other_bytes(image: GlanceImage) -> bool:
    """Tell whether what Glance holds is known to differ from what was registered."""
    algorithm, _, value = image.properties.get(CONTENT, "").partition(":")
    return bool(value) and image.hash_algorithm == algorithm and image.hash_value != value


def drift_of(image: GlanceImage, state: ImageState) -> str | None:
    """Return what is not as a state asks for, for people; None: all is."""
    found = []
    if image.hidden != (state is not ImageState.AVAILABLE):
        found.append("it is hidden" if image.hidden else "it is listed")
    if (image.status == ACTIVE) != (state in USABLE):
        found.append("it is active" if image.status == ACTIVE else "it is deactivated")
    return f"{' and '.join(found)}, though it is {state}" if found else None


def marker_changes(image: GlanceImage, marker: OwnershipMarker) -> list[dict[str, Any]]:
    """Return the operations that write a marker."""
    wanted = marker_properties(marker)
    stale = [key for key in image.properties if is_marker_property(key) and key not in wanted]
    return [*_settings_of(image, wanted), *(removal(key) for key in sorted(stale))]


def presentation_changes(image: GlanceImage, presentation: Presentation) -> list[dict[str, Any]]:
    """Return the operations that show a presentation; visibility and members are seen to apart."""
    wanted = shown_properties(presentation, image.properties.get(HARDWARE))
    stale = [
        key
        for key in image.properties
        if is_managed(key, image.properties) and key not in wanted and not is_marker_property(key)
    ]
    attributes: dict[str, object] = {}
    if image.name != name_of(presentation):
        attributes["name"] = name_of(presentation)
    size = virtual_size_of(image)
    if size is not None and image.min_disk != (disk := least_disk_gib(presentation.facts, size)):
        attributes["min_disk"] = disk
    if image.min_ram != (ram := least_ram_mib(presentation.facts)):
        attributes["min_ram"] = ram
    return [
        *(operation(key, value) for key, value in attributes.items()),
        *_settings_of(image, wanted),
        *(removal(key) for key in sorted(stale)),
    ]


def virtual_size_of(image: GlanceImage) -> int | None:
    """Return how long the disk is that a guest sees; None: nobody knows."""
    kept = image.properties.get(VIRTUAL_SIZE, "")
    return int(kept) if re.fullmatch("[0-9]{1,18}", kept) else image.virtual_size_bytes


def finishing_changes(image: GlanceImage) -> list[dict[str, Any]]:
    """Return the operation that says that an image's bytes were compared."""
    return [removal(UNFINISHED)] if UNFINISHED in image.properties else []


def hiding_changes(image: GlanceImage, *, hidden: bool) -> list[dict[str, Any]]:
    """Return the operation that hides or lists an image."""
    return [operation("os_hidden", hidden)] if image.hidden is not hidden else []


def _settings_of(image: GlanceImage, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [operation(key, value) for key, value in sorted(wanted.items()) if image.properties.get(key) != value]
