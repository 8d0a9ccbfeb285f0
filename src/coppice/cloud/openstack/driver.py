# SPDX-License-Identifier: Apache-2.0
"""Images in OpenStack's Glance.

An image bears its marker from its creation. It is hidden until its bytes were compared with what was sent; then, in one
request, it is finished and, when it is available, listed. Superseded and staged images are hidden; what nothing may
start from any more is hidden and deactivated. Which images there are is one list by the marker's site, whatever their
number; who has an image of this project, or none of this site's marker, is left alone.
"""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.cloud.driver import Leftover
from coppice.cloud.model import ImageState
from coppice.cloud.openstack import adoption, shape
from coppice.cloud.openstack.content import SERVED_PREFIX, Sender, left_in
from coppice.cloud.openstack.failures import Asked, broken, gone, not_understood
from coppice.cloud.openstack.images import ACTIVE, DEACTIVATED, Images, operation
from coppice.cloud.openstack.settings import ServerCheck, read_settings
from coppice.cloud.openstack.sharing import share
from coppice.cloud.openstack.words import escape
from coppice.cloud.properties import IMAGE, LIST, SITE
from coppice.errors import CloudDriverError, CloudError, CloudForbiddenError, CoppiceError
from coppice.model.image import DiskFormat
from coppice.monitor import Unit

if TYPE_CHECKING:
    from typing import Any

    from coppice.cloud.driver import ForeignImage
    from coppice.cloud.model import OwnershipMarker, Presentation, RegisteredImage
    from coppice.cloud.openstack.images import GlanceImage
    from coppice.cloud.openstack.settings import OpenStackSettings
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.settings.clouds import CloudSettings

DEFAULT_FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)


class OpenStackCloud:
    """One project in one region of one cloud.

    Args:
        name: Of the target.
        site: Identifier of the site.
        settings: How the cloud is reached, and what is done there.
        formats: Disk formats, most wanted first.
    """

    def __init__(self, name: str, site: str, settings: OpenStackSettings, formats: Formats = DEFAULT_FORMATS) -> None:
        self.name = name
        self.site = site
        self.formats = formats
        self._settings = settings
        self._lock = threading.Lock()
        self._images: Images | None = None

    @property
    def images(self) -> Images:
        """Glance's images; nothing is asked yet.

        Raises:
            CloudDriverError: openstacksdk is not installed.
        """
        with self._lock:
            if self._images is None:
                try:
                    from coppice.cloud.openstack.session import Api
                except ImportError as problem:
                    raise CloudDriverError(
                        f"cloud {self.name} needs openstacksdk, which is not installed: {problem}",
                        resolution="Run: pip install 'coppice[openstack]'",
                        context={"cloud": self.name},
                    ) from problem
                self._images = Images(self.name, Api(self._settings))
            return self._images

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images, sorted by identifier; no request is made for each."""
        found = []
        for image in self.images.all(**{SITE: escape(self.site)}):
            marker = shape.marker_of(image, self.site)
            if marker is not None:
                found.append(shape.described(self.name, image, marker))
        return tuple(found)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Make an image, bring its bytes into it, compare them, share it, and list it when it is available."""
        for image in self._same(marker):
            existing = self._mended(image, converted, marker, presentation)
            if existing is not None:
                return existing
            self._discard(image.identifier)
        identifier = str(uuid.uuid4())
        visibility = shape.visibility_of(presentation.audience, self._settings.visibility)
        try:
            self.images.create(identifier, shape.new_image(converted, marker, presentation, visibility))
            label = f"registering {presentation.name} in {self.name}"
            with monitor.task(label, total=converted.image.size_bytes, unit=Unit.BYTES) as task:
                Sender(self._settings, self.images).send(identifier, converted, task)
            return self._finish(identifier, marker, presentation)
        except CoppiceError:
            self._try_to_discard(identifier)
            raise

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Share the image as it is to be shared, and write what it is shown with; the marker goes with the latter."""
        image = self._own(registered.cloud_identifier)
        if image.is_whole:
            share(self.images, self._settings, image, presentation)
        changed = self.images.change(
            image.identifier,
            f"describe image {image.identifier} anew",
            lambda current: [
                *shape.presentation_changes(self._checked(current), presentation),
                *shape.marker_changes(current, marker),
            ],
        )
        return self._described(changed)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Deactivate or reactivate the image, then hide or list it and write its marker in one request."""
        image = self._own(registered.cloud_identifier)
        if image.status == ACTIVE and marker.state not in shape.USABLE:
            self.images.act(image.identifier, "deactivate")
        elif image.status == DEACTIVATED and marker.state in shape.USABLE:
            self.images.act(image.identifier, "reactivate")
        is_listed = marker.state is ImageState.AVAILABLE and shape.problem_of(image) is None
        changed = self.images.change(
            image.identifier,
            f"bring image {image.identifier} to the state {marker.state}",
            lambda current: [
                *shape.hiding_changes(self._checked(current), hidden=not is_listed),
                *shape.marker_changes(current, marker),
            ],
        )
        return self._described(changed)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether Nova has a server that was made from the image, where the settings ask for that.

        Glance itself cannot tell: where its store needs an image still (Ceph, for what was cloned), it refuses to
        remove it.
        """
        if self._settings.check_servers is ServerCheck.NONE:
            return False
        params = {"image": registered.cloud_identifier, "limit": "1"}
        if self._settings.check_servers is ServerCheck.ALL:
            params["all_tenants"] = "1"
        asked = Asked(cloud=self.name, method="GET", what=f"find out what runs from {registered.cloud_identifier}")
        answer = self.images.api.ask("GET", "/servers", asked.what, service="compute", params=params)
        servers = answer.document(asked).get("servers")
        if not isinstance(servers, list):
            raise not_understood(asked, "there is no list of servers in it")
        return bool(servers)

    def remove(self, registered: RegisteredImage) -> None:
        """Remove the image; protection that these settings ask for is lifted before."""
        image = self.images.get(registered.cloud_identifier)
        if image is None:
            return
        self._checked(image)
        if image.protected:
            if not self._settings.protected:
                raise CloudForbiddenError(
                    f"image {image.identifier} in cloud {self.name} is protected by somebody",
                    resolution="Lift the protection, or set `protected = true` for this cloud, so that Coppice does.",
                    context={"cloud": self.name, "image": image.identifier},
                )
            self.images.change(
                image.identifier,
                f"lift the protection of image {image.identifier}",
                lambda current: [operation("protected", value=False)] if self._checked(current).protected else [],
            )
        self.images.delete(image.identifier)

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return unfinished images with which nothing has happened for long, and files on the site's web server."""
        before = datetime.now(UTC) - timedelta(seconds=self._settings.stuck_after)
        found = [
            Leftover(
                cloud=self.name,
                identifier=image.identifier,
                what=f"an image that was never finished: {shape.problem_of(image)}",
                can_be_cleared=True,
            )
            for image in self.images.all(**{SITE: escape(self.site)})
            if shape.problem_of(image) is not None and image.updated_before(before)
        ]
        directory = self._settings.web_directory
        if directory is not None:
            for path in left_in(directory, before.timestamp()):
                what = "a file that Glance was to fetch"
                found.append(Leftover(cloud=self.name, identifier=str(path), what=what, can_be_cleared=True))
        return tuple(found)

    def clear(self, leftover: Leftover) -> None:
        """Remove one; an image only when it is unfinished still."""
        directory = self._settings.web_directory
        if directory is not None and Path(leftover.identifier).parent == directory:
            path = Path(leftover.identifier)
            if path.name.startswith(SERVED_PREFIX):
                try:
                    path.unlink(missing_ok=True)
                except OSError as problem:
                    raise CloudError(f"the file {path} cannot be removed: {problem.strerror}") from problem
            return
        image = self.images.get(leftover.identifier)
        if image is None:
            return
        if shape.problem_of(self._checked(image)) is None:
            raise CloudError(
                f"image {image.identifier} in cloud {self.name} is finished by now",
                resolution="Nothing was changed. Run again: it is not left behind any more.",
            )
        self._discard(image.identifier)

    def foreign(self) -> tuple[ForeignImage, ...]:
        """Return the project's images that bear no site's marker, sorted by identifier."""
        return adoption.foreign(self.images, self.name)

    def adopt(self, foreign: ForeignImage, marker: OwnershipMarker, presentation: Presentation) -> RegisteredImage:
        """Write marker and presentation on an image that bears none."""
        image = adoption.adopt(self.images, self.name, foreign, marker, presentation)
        audience = presentation.audience
        if audience.members or audience.visibility is not None or self._settings.visibility is not None:
            share(self.images, self._settings, image, presentation)
        return self._described(self._own(image.identifier))

    def _same(self, marker: OwnershipMarker) -> list[GlanceImage]:
        """Return what bears the marker of this very image, version and content."""
        wanted = {
            SITE: escape(self.site),
            LIST: escape(marker.key.list_identifier),
            IMAGE: escape(marker.key.image_identifier),
        }
        found = []
        for image in self.images.all(**wanted):
            there = shape.marker_of(image, self.site)
            if there is not None and there.version == marker.version and there.digest.matches(marker.digest):
                found.append(image)
        # What is whole comes first, so that what else there is of it is not made of it anew.
        return sorted(found, key=lambda image: (shape.problem_of(image) is not None, image.identifier))

    def _mended(
        self, image: GlanceImage, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage | None:
        """Return an image that is there already, finished if only that was missing; None: it has to be made anew."""
        if shape.problem_of(image) is None:
            return self._described(image)
        if not image.is_whole or shape.has_other_bytes(image):
            return None
        try:
            Sender(self._settings, self.images).check(image, converted)
        except CloudError:
            return None
        if image.status == DEACTIVATED and marker.state in shape.USABLE:
            self.images.act(image.identifier, "reactivate")
        return self._finish(image.identifier, marker, presentation)

    def _finish(self, identifier: str, marker: OwnershipMarker, presentation: Presentation) -> RegisteredImage:
        share(self.images, self._settings, self._own(identifier), presentation)
        if marker.state not in shape.USABLE:
            self.images.act(identifier, "deactivate")

        def changes(current: GlanceImage) -> list[dict[str, Any]]:
            self._checked(current)
            if not current.is_whole or shape.has_other_bytes(current):
                raise broken(self.name, identifier, f"it is {current.status}")
            protection = [operation("protected", value=True)] if self._settings.protected else []
            return [
                *shape.presentation_changes(current, presentation),
                *shape.marker_changes(current, marker),
                *shape.finishing_changes(current),
                *shape.hiding_changes(current, hidden=marker.state is not ImageState.AVAILABLE),
                *(protection if not current.protected else []),
            ]

        return self._described(self.images.change(identifier, f"finish image {identifier}", changes))

    def _discard(self, identifier: str) -> None:
        image = self.images.get(identifier)
        if image is None:
            return
        self._checked(image)
        if image.protected:
            self.images.change(identifier, f"lift the protection of image {identifier}", _unprotect)
        self.images.delete(identifier)

    def _try_to_discard(self, identifier: str) -> None:
        """Leave nothing behind where that can be done; what stays is not finished, and is found by the next run."""
        try:
            self._discard(identifier)
        except CloudError:
            return

    def _own(self, identifier: str) -> GlanceImage:
        image = self.images.get(identifier)
        if image is None:
            raise gone(self.name, identifier)
        return self._checked(image)

    def _checked(self, image: GlanceImage) -> GlanceImage:
        """Return an image that is this site's, and nothing else."""
        if image.owner != self.images.api.project() or image.properties.get(SITE) != escape(self.site):
            raise gone(self.name, image.identifier)
        return image

    def _described(self, image: GlanceImage) -> RegisteredImage:
        marker = shape.marker_of(image, self.site)
        if marker is None:
            raise gone(self.name, image.identifier)
        return shape.described(self.name, image, marker)


def _unprotect(current: GlanceImage) -> list[dict[str, Any]]:
    return [operation("protected", value=False)] if current.protected else []


def open_openstack(settings: CloudSettings, formats: Formats) -> OpenStackCloud:
    """Return the cloud that ``settings`` describe; nothing is asked of it, and no library of it is loaded.

    Raises:
        SettingsError: An option is missing or wrong.
    """
    return OpenStackCloud(settings.name, settings.site, read_settings(settings), formats or DEFAULT_FORMATS)
