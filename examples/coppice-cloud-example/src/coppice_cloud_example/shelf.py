# SPDX-License-Identifier: Apache-2.0
"""The cloud ``shelf``: a directory in which each image has a disk and a card.

::

    <path>/
    ├── 3f9a1c0b….card     what it is, whose it is, how it is shown; written before the disk, in one step
    └── 3f9a1c0b….disk     its bytes

A card says for itself whether users find the image and may start it, as any cloud does beside what markers say: where
somebody changed that by hand, `describe` tells it as drift.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice import atomic
from coppice.cloud.model import ImageState, RegisteredImage
from coppice.cloud.properties import from_properties, to_properties
from coppice.errors import (
    CloudAnswerError,
    CloudChecksumError,
    CloudError,
    CloudImageGoneError,
    CloudImageInUseError,
    SettingsError,
)
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.monitor import Unit

if TYPE_CHECKING:
    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.settings.clouds import CloudSettings

FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)
STARTABLE = frozenset({ImageState.AVAILABLE, ImageState.STAGED, ImageState.SUPERSEDED})
_NAMESPACE = uuid.UUID("9d1f7f6c-6d52-4a5c-9ab6-0f6a3f0f6c55")
_CARD_LIMIT_BYTES = 1024 * 1024
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is written on an image's card.

    Attributes:
        name: What users see.
        properties: The marker, and all that is shown.
        is_whole: Whether the disk is all there.
        is_listed: Whether users who look for images find it.
        is_startable: Whether it may be started.
        in_use: Whether something runs from it; whoever starts and ends it writes it.
    """

    name: str
    properties: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    is_listed: bool = False
    is_startable: bool = False
    in_use: bool = False

    def shown_as(self, state: ImageState) -> Card:
        """Return the card as ``state`` asks for it."""
        return replace(self, is_listed=state is ImageState.AVAILABLE, is_startable=state in STARTABLE)


class Shelf:
    """Images in a directory, which is made at the first registration."""

    def __init__(self, name: str, site: str, path: Path, formats: Formats = FORMATS) -> None:
        self.name = name
        self.site = site
        self.path = path
        self.formats = formats
        self._lock = threading.RLock()

    # -- what every cloud does ------------------------------------------------------------------------

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images, sorted by identifier."""
        with atomic.storage_errors("reading", self.path):
            names = sorted(path.stem for path in self.path.glob("*.card")) if self.path.is_dir() else []
        described = (self._described(name) for name in names)
        return tuple(image for image in described if image is not None)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Write the card with the marker, then the disk, then that it is whole.

        The identifier follows from what the image is: a run that comes after a killed one finds the same place.
        """
        identity = f"{self.site} {marker.key} {marker.version} {marker.digest}"
        identifier = uuid.uuid5(_NAMESPACE, identity).hex
        with self._lock:
            existing = self._described(identifier)
            if existing is not None and existing.ready:
                return existing
            self._write(identifier, Card(name=presentation.name, properties=_properties(marker, presentation)))
        self._copy(converted, self.path / f"{identifier}.disk", monitor)
        with self._lock:
            card = replace(self._card(identifier), is_whole=True)
            self._write(identifier, card.shown_as(marker.state))
        return self._owned(identifier)

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write what is shown, and the marker with it, in one step."""
        identifier = registered.cloud_identifier
        with self._lock:
            self._owned(identifier)
            properties = _properties(marker, presentation)
            self._write(identifier, replace(self._card(identifier), name=presentation.name, properties=properties))
        return self._owned(identifier)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Show the image as its state asks, and write the marker, in one step."""
        identifier = registered.cloud_identifier
        with self._lock:
            self._owned(identifier)
            card = self._card(identifier)
            kept = {key: value for key, value in card.properties.items() if not key.startswith("coppice_")}
            changed = replace(card, properties={**kept, **to_properties(marker)})
            self._write(identifier, changed.shown_as(marker.state) if card.is_whole else changed)
        return self._owned(identifier)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell what the card says."""
        try:
            return self._card(registered.cloud_identifier).in_use
        except FileNotFoundError:
            return False

    def remove(self, registered: RegisteredImage) -> None:
        """Take the disk away, then the card: what is left in between is an image that is not whole."""
        identifier = registered.cloud_identifier
        with self._lock:
            if not self._path(identifier, "card").exists():
                return
            self._owned(identifier)
            if self.in_use(registered):
                raise CloudImageInUseError(f"image {identifier} in cloud {self.name} is in use")
            with atomic.storage_errors("removing", self.path):
                self._path(identifier, "disk").unlink(missing_ok=True)
                self._path(identifier, "card").unlink(missing_ok=True)

    # -- cards and disks ------------------------------------------------------------------------------

    def _described(self, identifier: str) -> RegisteredImage | None:
        try:
            card = self._card(identifier)
        except FileNotFoundError:
            return None
        except CloudAnswerError:
            # A card that is no card bears no marker: it is somebody else's.
            return None
        marker = from_properties(card.properties, self.site, name=identifier)
        if marker is None:
            return None
        is_whole = card.is_whole and self._path(identifier, "disk").is_file()
        return RegisteredImage(
            cloud=self.name,
            cloud_identifier=identifier,
            name=card.name,
            marker=marker,
            ready=is_whole,
            problem=None if is_whole else "its disk is not all there",
            drift=_drift(card, marker.state) if is_whole else None,
        )

    def _owned(self, identifier: str) -> RegisteredImage:
        image = self._described(identifier)
        if image is None:
            raise CloudImageGoneError(
                f"image {identifier} in cloud {self.name} is not there, or is not this site's",
                resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            )
        return image

    def _card(self, identifier: str) -> Card:
        path = self._path(identifier, "card")
        try:
            with path.open("rb") as stream:
                data: Any = json.loads(stream.read(_CARD_LIMIT_BYTES))
            return Card(**data)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, RecursionError) as problem:
            raise CloudAnswerError(f"the card {path} cannot be read", details=str(problem)) from problem

    def _write(self, identifier: str, card: Card) -> None:
        path = self._path(identifier, "card")
        with atomic.storage_errors("making", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(vars(card), indent=1, sort_keys=True))

    def _path(self, identifier: str, suffix: str) -> Path:
        if not identifier.isalnum():
            raise CloudError(f"{identifier!r} is no identifier of cloud {self.name}")
        return self.path / f"{identifier}.{suffix}"

    def _copy(self, converted: ConvertedImage, destination: Path, monitor: Monitor) -> None:
        """Copy a disk, and compare what lies there with what it must be."""
        with atomic.replacing(destination) as temporary:
            shutil.copyfile(converted.path, temporary)
            expected = converted.image.checksum
            digest = hashlib.new(expected.algorithm)
            with (
                temporary.open("rb") as stream,
                monitor.task(f"verify {destination.name}", total=converted.image.size_bytes, unit=Unit.BYTES) as task,
            ):
                while piece := stream.read(_PIECE_BYTES):
                    digest.update(piece)
                    task.advance(len(piece))
            if not Checksum(expected.algorithm, digest.hexdigest()).matches(expected):
                raise CloudChecksumError(
                    f"cloud {self.name} holds other bytes of image {converted.key} than it was given",
                    resolution="Nothing usable was registered. Remove the converted file, then run again.",
                )


def _properties(marker: OwnershipMarker, presentation: Presentation) -> dict[str, str]:
    # The marker last: nothing that a list says can take its place.
    return {**presentation.facts, **presentation.properties, **to_properties(marker)}


def _drift(card: Card, state: ImageState) -> str | None:
    wanted = card.shown_as(state)
    found = []
    if card.is_listed is not wanted.is_listed:
        found.append(f"it is {state} and {'listed' if card.is_listed else 'not listed'}")
    if card.is_startable is not wanted.is_startable:
        found.append(f"it is {state} and {'can' if card.is_startable else 'cannot'} be started")
    return "; ".join(found) or None


def open_shelf(settings: CloudSettings, formats: Formats) -> Shelf:
    """Return the cloud that the settings describe; the entry point names this function.

    Raises:
        SettingsError: ``path`` is missing, or an option is not known.
    """
    where = f"clouds.{settings.name}"
    unknown = sorted(set(settings.options) - {"path"})
    if unknown:
        raise SettingsError(f"{where}.{unknown[0]} is not an option of driver shelf", resolution="It takes `path`.")
    path = settings.options.get("path")
    if not isinstance(path, str | Path) or not str(path).strip():
        raise SettingsError(f"{where}.path is missing", resolution="Name the directory in which images shall lie.")
    return Shelf(settings.name, settings.site, Path(path).expanduser().absolute(), formats or FORMATS)
