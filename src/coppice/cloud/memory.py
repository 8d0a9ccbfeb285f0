# SPDX-License-Identifier: Apache-2.0
"""A cloud in this process's memory: for tests, and to try a plan against nothing.

It keeps what any cloud keeps: an image with its properties, foreign ones too. Machines that run from an image are
started with `start_machine`, as a user of the cloud would.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE
from coppice.cloud.model import RegisteredImage
from coppice.cloud.properties import from_properties, to_properties
from coppice.errors import CloudError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.settings.clouds import CloudSettings

OPTIONS: frozenset[str] = frozenset()
DEFAULT_FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)


@dataclass(slots=True, kw_only=True)
class StoredImage:
    """An image as this cloud keeps it.

    Attributes:
        name: What users see.
        properties: Everything that was written on it.
        checksum: Of its bytes.
        ready: False while a registration has not ended.
        machines: How many run from it.
    """

    name: str
    properties: dict[str, str]
    checksum: str
    ready: bool = True
    machines: int = field(default=0)


class MemoryCloud:
    """Images in a dictionary.

    Attributes:
        images: By cloud identifier, foreign ones included.
    """

    def __init__(self, name: str, site: str, formats: Formats = DEFAULT_FORMATS) -> None:
        self.name = name
        self.site = site
        self.formats = formats
        self.images: dict[str, StoredImage] = {}
        self._numbers = itertools.count(1)

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images in the order of their identifiers."""
        described = (self._described(identifier) for identifier in sorted(self.images))
        return tuple(image for image in described if image is not None)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Keep the image; its file must be there."""
        for image in self.describe():
            same = image.marker.key == marker.key and image.marker.version == marker.version
            if same and image.marker.digest.matches(marker.digest):
                if image.ready:
                    return image
                del self.images[image.cloud_identifier]
        if not converted.path.is_file():
            raise CloudError(f"image {marker.key} cannot be registered: {converted.path} is not there")
        identifier = f"memory-{next(self._numbers):06d}"
        self.images[identifier] = StoredImage(
            name=presentation.name,
            properties={**presentation.facts, **presentation.properties, **to_properties(marker)},
            checksum=str(converted.image.checksum),
        )
        return self._owned(identifier)

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write metadata and marker."""
        self._owned(registered.cloud_identifier)
        stored = self.images[registered.cloud_identifier]
        stored.properties = {**presentation.facts, **presentation.properties, **to_properties(marker)}
        stored.name = presentation.name
        return self._owned(registered.cloud_identifier)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Write the marker; `start_machine` obeys its state."""
        self._owned(registered.cloud_identifier)
        self.images[registered.cloud_identifier].properties.update(to_properties(marker))
        return self._owned(registered.cloud_identifier)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether a machine runs from the image."""
        stored = self.images.get(registered.cloud_identifier)
        return stored is not None and stored.machines > 0

    def remove(self, registered: RegisteredImage) -> None:
        """Forget the image."""
        if registered.cloud_identifier not in self.images:
            return
        self._owned(registered.cloud_identifier)
        if self.in_use(registered):
            raise CloudError(f"image {registered.cloud_identifier} in cloud {self.name} is in use")
        del self.images[registered.cloud_identifier]

    def start_machine(self, cloud_identifier: str) -> None:
        """Start a machine from an image, as a user would.

        Raises:
            CloudError: Nothing can be started from it.
        """
        image = self._owned(cloud_identifier)
        if not image.ready or image.marker.state not in STARTABLE:
            raise CloudError(f"nothing can be started from image {cloud_identifier}: it is {image.marker.state}")
        self.images[cloud_identifier].machines += 1

    def stop_machines(self, cloud_identifier: str) -> None:
        """End every machine that runs from an image."""
        self.images[cloud_identifier].machines = 0

    def _described(self, identifier: str) -> RegisteredImage | None:
        stored = self.images[identifier]
        marker = from_properties(stored.properties, self.site, name=identifier)
        if marker is None:
            return None
        return RegisteredImage(
            cloud=self.name, cloud_identifier=identifier, name=stored.name, marker=marker, ready=stored.ready
        )

    def _owned(self, identifier: str) -> RegisteredImage:
        image = self._described(identifier) if identifier in self.images else None
        if image is None:
            raise CloudError(
                f"image {identifier} in cloud {self.name} is not there, or is not this site's",
                resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            )
        return image


def open_memory(settings: CloudSettings, formats: Formats) -> MemoryCloud:
    """Return an empty cloud."""
    return MemoryCloud(settings.name, settings.site, formats or DEFAULT_FORMATS)
