# SPDX-License-Identifier: Apache-2.0
"""Images that other programs registered, as they are shown to whoever decides on their adoption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.driver import ForeignImage
from coppice.cloud.opennebula import objects, written
from coppice.cloud.opennebula.objects import State
from coppice.errors import AdoptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.opennebula.objects import StoredImage


def foreign(cloud: str, images: Iterable[StoredImage]) -> tuple[ForeignImage, ...]:
    """Return those of ``images`` that bear no site's marker.

    OpenNebula tells no checksum of what it holds, and of sizes only the disk's.
    """
    return tuple(
        ForeignImage(
            cloud=cloud,
            cloud_identifier=str(image.identifier),
            name=image.name,
            properties=_properties(image),
            ready=image.state in objects.STARTABLE,
        )
        for image in images
        if image.state is not State.DELETE and _owner(image) is None
    )


def adoptable(given: ForeignImage, front_end: FrontEnd) -> StoredImage:
    """Return the image as it is now, when it may still be adopted.

    Raises:
        AdoptionError: It bears a marker by now, is not whole, or is not there or not the connected user's.
        CloudError: It could not be asked for.
    """
    found = next((each for each in front_end.images() if str(each.identifier) == given.cloud_identifier), None)
    if found is None:
        why = "it is not there, or another user's"
    elif _owner(found) is not None:
        why = f"it bears the marker of {_owner(found)!r} by now"
    elif found.state not in objects.WHOLE:
        why = f"it is in state {found.state.name}"
    else:
        return found
    raise AdoptionError(
        f"image {given.cloud_identifier} in cloud {front_end.failures.cloud} cannot be adopted: {why}",
        resolution="Nothing was changed. An image is adopted as the user who owns it (oneimage chown).",
        context={"cloud": front_end.failures.cloud, "image": given.cloud_identifier},
    )


def _owner(image: StoredImage) -> str | None:
    return next((value for name, value in image.attributes if name == written.SITE and isinstance(value, str)), None)


def _properties(image: StoredImage) -> dict[str, str]:
    found = {
        "STATE": image.state.name,
        "DATASTORE": image.datastore_name,
        "SIZE": str(image.size_mib),
        "SOURCE": image.source,
    }
    for name, value in image.attributes:
        if isinstance(value, str):
            found[name] = value
        else:
            found |= {f"{name}/{part}": text for part, text in value}
    return found
