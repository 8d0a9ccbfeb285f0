# SPDX-License-Identifier: Apache-2.0
"""A cloud in this process's memory: for tests, and to try a plan against nothing.

It keeps what any cloud keeps: images with their properties, foreign ones too, and the files behind them. What users
find and can start is kept apart from what markers say, as in any cloud: see `StoredImage` and `start_machine`.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE
from coppice.cloud.driver import ForeignImage, Leftover
from coppice.cloud.model import ImageState, RegisteredImage, Visibility
from coppice.cloud.properties import PREFIX, SITE, from_properties, to_properties
from coppice.errors import AdoptionError, CloudError, CloudImageGoneError, CloudImageInUseError
from coppice.model.checksum import Checksum
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
        listed: Whether users who look for images find it.
        startable: Whether machines start from it.
        visibility: How far it is seen.
        members: Whom it is shared with.
        file: Under which name its bytes are kept.
        written: Which properties Coppice wrote; the others are somebody else's.
    """

    name: str
    properties: dict[str, str]
    checksum: str
    ready: bool = True
    machines: int = field(default=0)
    listed: bool = True
    startable: bool = True
    visibility: Visibility = Visibility.PRIVATE
    members: tuple[str, ...] = ()
    file: str | None = None
    written: frozenset[str] = frozenset()


class MemoryCloud:
    """Images in a dictionary; other sites' drivers can share it.

    Attributes:
        images: By cloud identifier, foreign ones included.
        files: The bytes' names, with the site that wrote them.
    """

    def __init__(self, name: str, site: str, formats: Formats = DEFAULT_FORMATS) -> None:
        self.name = name
        self.site = site
        self.formats = formats
        self.images: dict[str, StoredImage] = {}
        self.files: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def of_site(self, site: str) -> MemoryCloud:
        """Return the driver of another site, in the same cloud."""
        other = MemoryCloud(self.name, site, self.formats)
        other.images, other.files = self.images, self.files
        other._numbers, other._lock = self._numbers, self._lock
        return other

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images in the order of their identifiers."""
        with self._lock:
            described = [self._described(identifier) for identifier in sorted(self.images)]
        return tuple(image for image in described if image is not None)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Keep the image; its file must be there."""
        with self._lock:
            for image in self.describe():
                same = image.marker.key == marker.key and image.marker.version == marker.version
                if same and image.marker.digest.matches(marker.digest):
                    if image.ready:
                        return image
                    self._forget(image.cloud_identifier)
            if not converted.path.is_file():
                raise CloudError(f"image {marker.key} cannot be registered: {converted.path} is not there")
            number = next(self._numbers)
            identifier = f"memory-{number:06d}"
            self.files[f"file-{number:06d}"] = self.site
            self.images[identifier] = StoredImage(
                name=presentation.name,
                properties={},
                checksum=str(converted.image.checksum),
                file=f"file-{number:06d}",
            )
            self._show(identifier, marker)
            self._write(identifier, marker, presentation)
            return self._owned(identifier)

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write metadata and marker; what others wrote on an adopted image stays."""
        with self._lock:
            self._owned(registered.cloud_identifier)
            self._write(registered.cloud_identifier, marker, presentation)
            return self._owned(registered.cloud_identifier)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Show the image as its state says, then write the marker."""
        with self._lock:
            self._owned(registered.cloud_identifier)
            self._show(registered.cloud_identifier, marker)
            stored = self.images[registered.cloud_identifier]
            kept = {key: value for key, value in stored.properties.items() if not key.startswith(PREFIX)}
            stored.properties = {**kept, **to_properties(marker)}
            stored.written |= to_properties(marker).keys()
            return self._owned(registered.cloud_identifier)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether a machine runs from the image."""
        stored = self.images.get(registered.cloud_identifier)
        return stored is not None and stored.machines > 0

    def remove(self, registered: RegisteredImage) -> None:
        """Forget the image."""
        with self._lock:
            if registered.cloud_identifier not in self.images:
                return
            self._owned(registered.cloud_identifier)
            if self.in_use(registered):
                raise CloudImageInUseError(f"image {registered.cloud_identifier} in cloud {self.name} is in use")
            self._forget(registered.cloud_identifier)

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return this site's files that no image has."""
        with self._lock:
            used = {stored.file for stored in self.images.values()}
            left = sorted(name for name, site in self.files.items() if site == self.site and name not in used)
        return tuple(
            Leftover(cloud=self.name, identifier=name, what="a file without an image", can_be_cleared=True)
            for name in left
        )

    def clear(self, leftover: Leftover) -> None:
        """Forget a file that no image has."""
        with self._lock:
            if leftover in self.leftovers():
                del self.files[leftover.identifier]

    def foreign(self) -> tuple[ForeignImage, ...]:
        """Return every image without a marker, in the order of their identifiers."""
        with self._lock:
            return tuple(
                ForeignImage(
                    cloud=self.name,
                    cloud_identifier=identifier,
                    name=stored.name,
                    properties=dict(stored.properties),
                    ready=stored.ready,
                    checksum=_checksum(stored.checksum),
                )
                for identifier, stored in sorted(self.images.items())
                if SITE not in stored.properties
            )

    def adopt(self, foreign: ForeignImage, marker: OwnershipMarker, presentation: Presentation) -> RegisteredImage:
        """Write marker and metadata beside what others wrote."""
        with self._lock:
            stored = self.images.get(foreign.cloud_identifier)
            if stored is None or SITE in stored.properties:
                raise AdoptionError(
                    f"image {foreign.cloud_identifier} in cloud {self.name} is gone, or has an owner's marker by now",
                    resolution="Nothing was changed. Run again to see what is there now.",
                )
            self._show(foreign.cloud_identifier, marker)
            self._write(foreign.cloud_identifier, marker, presentation)
            return self._owned(foreign.cloud_identifier)

    def start_machine(self, cloud_identifier: str) -> None:
        """Start a machine from an image, as a user would.

        Raises:
            CloudError: Nothing can be started from it.
        """
        with self._lock:
            stored = self.images.get(cloud_identifier)
            if stored is None or not stored.ready or not stored.startable:
                raise CloudError(f"nothing can be started from image {cloud_identifier} of cloud {self.name}")
            stored.machines += 1

    def stop_machines(self, cloud_identifier: str) -> None:
        """End every machine that runs from an image."""
        self.images[cloud_identifier].machines = 0

    def _show(self, identifier: str, marker: OwnershipMarker) -> None:
        stored = self.images[identifier]
        stored.startable = marker.state in STARTABLE
        stored.listed = marker.state is ImageState.AVAILABLE

    def _write(self, identifier: str, marker: OwnershipMarker, presentation: Presentation) -> None:
        stored = self.images[identifier]
        others = {key: value for key, value in stored.properties.items() if key not in stored.written}
        ours = {**presentation.facts, **presentation.properties, **to_properties(marker)}
        stored.properties, stored.written = {**others, **ours}, frozenset(ours)
        stored.name = presentation.name
        stored.visibility = presentation.audience.visibility or Visibility.PRIVATE
        stored.members = presentation.audience.members

    def _forget(self, identifier: str) -> None:
        file = self.images.pop(identifier).file
        if file is not None:
            self.files.pop(file, None)

    def _described(self, identifier: str) -> RegisteredImage | None:
        stored = self.images[identifier]
        marker = from_properties(stored.properties, self.site, name=identifier)
        if marker is None:
            return None
        return RegisteredImage(
            cloud=self.name,
            cloud_identifier=identifier,
            name=stored.name,
            marker=marker,
            ready=stored.ready,
            problem=None if stored.ready else "its registration did not end",
            drift=_drift(stored, marker.state),
        )

    def _owned(self, identifier: str) -> RegisteredImage:
        image = self._described(identifier) if identifier in self.images else None
        if image is None:
            raise CloudImageGoneError(
                f"image {identifier} in cloud {self.name} is not there, or is not this site's",
                resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            )
        return image


def _drift(stored: StoredImage, state: ImageState) -> str | None:
    found = []
    if stored.listed is not (state is ImageState.AVAILABLE):
        found.append(f"it is {state} and {'listed' if stored.listed else 'not listed'}")
    if stored.startable is not (state in STARTABLE):
        found.append(f"it is {state} and {'can' if stored.startable else 'cannot'} be started")
    return "; ".join(found) or None


def _checksum(text: str) -> Checksum | None:
    try:
        return Checksum.parse(text)
    except ValueError:
        return None


def open_memory(settings: CloudSettings, formats: Formats) -> MemoryCloud:
    """Return an empty cloud."""
    return MemoryCloud(settings.name, settings.site, formats or DEFAULT_FORMATS)
