# SPDX-License-Identifier: Apache-2.0
"""Images of the project that another program registered: shown, and taken over in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coppice.cloud.driver import ForeignImage
from coppice.cloud.model import ImageState
from coppice.cloud.openstack import shape
from coppice.cloud.openstack.failures import gone
from coppice.cloud.openstack.images import operation
from coppice.cloud.openstack.words import CONTENT, escape
from coppice.cloud.properties import SITE
from coppice.errors import AdoptionError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.cloud.openstack.images import GlanceImage, Images


def foreign(images: Images, cloud: str) -> tuple[ForeignImage, ...]:
    """Return every image of the project that bears no site's marker, sorted by identifier.

    Raises:
        CloudError: The cloud could not be asked, or its answer was incomplete.
    """
    return tuple(
        ForeignImage(
            cloud=cloud,
            cloud_identifier=image.identifier,
            name=image.name,
            properties={
                **image.properties,
                "status": image.status,
                "visibility": image.visibility,
                "os_hidden": str(image.hidden).lower(),
            },
            ready=image.is_whole,
            checksum=_checksum(image),
            size_bytes=image.size_bytes,
        )
        for image in images.all()
        if SITE not in image.properties
    )


def _checksum(image: GlanceImage) -> Checksum | None:
    if not image.is_whole or image.hash_algorithm is None or image.hash_value is None:
        return None
    try:
        return Checksum(image.hash_algorithm, image.hash_value)
    except ValueError:
        return None


def adopt(
    images: Images, cloud: str, found: ForeignImage, marker: OwnershipMarker, presentation: Presentation
) -> GlanceImage:
    """Write a marker on an image that bears none; its bytes, and what others wrote and is not shown anew, stay.

    Raises:
        CloudError: It could not be done, or the image has an owner's marker by now.
    """

    def changes(current: GlanceImage) -> list[dict[str, Any]]:
        if current.owner != images.api.project():
            raise gone(cloud, current.identifier)
        there = current.properties.get(SITE)
        if there == escape(marker.site):
            # An earlier attempt was heard, and its answer was lost; or somebody adopted it meanwhile.
            known = shape.marker_of(current, marker.site)
            if known is not None and known.key == marker.key and known.version == marker.version:
                return []
        if there is not None or not current.is_whole:
            why = "it bears a marker by now" if there is not None else f"it is {current.status}"
            raise AdoptionError(
                f"image {current.identifier} in cloud {cloud} cannot be taken over: {why}",
                resolution="Nothing was changed. Ask again which images there are.",
                context={"cloud": cloud, "image": current.identifier},
            )
        content = _checksum(current)
        kept = [] if content is None else [operation(CONTENT, str(content))]
        return [
            *shape.presentation_changes(current, presentation),
            *kept,
            *shape.marker_changes(current, marker),
            *shape.hiding_changes(current, hidden=marker.state is not ImageState.AVAILABLE),
        ]

    return images.change(found.cloud_identifier, f"take over image {found.cloud_identifier}", changes)
