# SPDX-License-Identifier: Apache-2.0
"""`OpenNebulaCloud`: each version of an image is an image in one or more datastores, each appliance a VM template.

The template's number stays the same over versions; it starts machines from the newest available one. An image bears the
marker from its allocation on, and says of itself that it is not finished until it is whole, shared and pointed at.
Only what the connected user owns counts: a marker on somebody else's image is that person's word.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.opennebula import adoption, intake, leftovers, view, written
from coppice.cloud.opennebula.intake import Intake
from coppice.cloud.opennebula.objects import State, unseen_datastore
from coppice.cloud.opennebula.publishing import Publishing, image_names
from coppice.cloud.opennebula.view import SHOWN, view_of
from coppice.cloud.opennebula.written import Hardware, Written
from coppice.errors import (
    CloudForbiddenError,
    CloudImageGoneError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudRefusedImageError,
)
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cloud.driver import ForeignImage, Leftover
    from coppice.cloud.model import OwnershipMarker, Presentation, RegisteredImage
    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.opennebula.objects import Datastore, StoredImage
    from coppice.cloud.opennebula.options import Placing
    from coppice.cloud.opennebula.view import Appliance, View
    from coppice.cloud.transports.transport import Transport
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor

DEFAULT_FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)


class OpenNebulaCloud:
    """Images and VM templates of one user of an OpenNebula."""

    def __init__(
        self,
        name: str,
        site: str,
        *,
        front_end: FrontEnd,
        placing: Placing,
        transport: Transport,
        formats: Formats = DEFAULT_FORMATS,
    ) -> None:
        self.name = name
        self.site = site
        self.formats = formats
        self.placing = placing
        self.front_end = front_end
        self._transport = transport
        self._publishing = Publishing(front_end, placing, self._view)

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images by their numbers: two calls, however many there are."""
        seen = self._view()
        return tuple(self._registered(seen, each) for each in seen.appliances)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Have the front-end take the image, with its checksums, into each datastore; then share and point at it."""
        if converted.image.format not in DEFAULT_FORMATS:
            raise CloudRefusedImageError(
                f"cloud {self.name} takes no images of format {converted.image.format}",
                resolution='Set `formats = ["qcow2"]` or `["raw"]` for this cloud.',
            )
        seen = self._view()
        existing = self._same(seen, marker)
        if existing is not None and existing.is_whole:
            return self._registered(seen, existing)
        places = self._places(presentation)
        # A group that does not exist is told before gigabytes are copied.
        self._publishing.group_of(presentation.audience)
        wanted = Written(
            marker=marker,
            presentation=presentation,
            hardware=Hardware.of(converted),
            copies=len(places),
            finished=False,
        )
        taking = Intake(
            front_end=self.front_end,
            transport=self._transport,
            find=lambda: self._copies_of(marker),
            monitor=monitor,
        )
        taken = taking.take(converted, wanted, places, existing)
        self._finish(taken, wanted)
        return self._described(str(taken[0].identifier))

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write the presentation on images and template, rename and share them; the marker comes last."""
        seen = self._view()
        appliance = self._found(seen, registered)
        self._publishing.group_of(presentation.audience)
        wanted = replace(self._written(appliance), marker=marker, presentation=presentation)
        after = _as_written(appliance, wanted)
        if appliance.is_whole:
            self._rename(appliance, wanted)
            self._publishing.share(after)
            if marker.state is ImageState.AVAILABLE and self._is_current(seen, appliance):
                self._publishing.point(seen, after)
        self._write(appliance, wanted)
        return self._described(appliance.identifier)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Bring images and template to the state; an image that is used stays enabled for now, which shows as drift."""
        seen = self._view()
        appliance = self._found(seen, registered)
        wanted = replace(self._written(appliance), marker=marker)
        if appliance.is_whole or marker.state is not ImageState.AVAILABLE:
            # What is not finished may be pointed at already: it is taken from users as well, and never given to them.
            self._show(seen, _as_written(appliance, wanted), enable=appliance.is_whole)
        self._write(appliance, wanted)
        return self._described(appliance.identifier)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether machines run from the image, or it is being copied."""
        found = view_of(self.front_end.images(), (), self.site).find(registered.cloud_identifier)
        return found is not None and found.machines > 0

    def remove(self, registered: RegisteredImage) -> None:
        """Take the template away from the image, and away itself where this was the last version; then the images."""
        seen = self._view()
        appliance = seen.find(registered.cloud_identifier)
        if appliance is None:
            if any(str(image.identifier) == registered.cloud_identifier for image in self.front_end.images()):
                raise self.front_end.failures.gone(registered.cloud_identifier)
            return
        if appliance.machines:
            raise CloudImageInUseError(
                f"cloud {self.name}: image {appliance.identifier} is in use by {appliance.machines} machines",
                resolution="Run again when they have ended.",
                context={"cloud": self.name, "image": appliance.identifier},
            )
        template = seen.template_of(appliance.marker.key)
        if template is not None and len(seen.of_key(appliance.marker.key)) == 1:
            self.front_end.delete_template(template.identifier)
        else:
            self._publishing.leave(seen, appliance)
        for copy in reversed(appliance.copies):
            intake.clear(self.front_end, copy.identifier)

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return templates without an image, and files that no image accounts for where they can be seen from here."""
        return leftovers.find(self.name, self.front_end, self._view())

    def clear(self, leftover: Leftover) -> None:
        """Delete a template; a file is the administrator's to delete."""
        leftovers.clear(leftover, self.front_end, self._view())

    def foreign(self) -> tuple[ForeignImage, ...]:
        """Return the connected user's images without a marker, by number, with all their attributes."""
        return adoption.foreign(self.name, self.front_end.images())

    def adopt(self, foreign: ForeignImage, marker: OwnershipMarker, presentation: Presentation) -> RegisteredImage:
        """Write the marker beside what others wrote; then share the image, and take over the template that has it."""
        image = adoption.adoptable(foreign, self.front_end)
        wanted = Written(marker=marker, presentation=presentation, hardware=Hardware.read(image.attributes))
        self.front_end.write_image(image.identifier, wanted.attributes(), replace=False)
        seen = self._view()
        # It may be a further copy of a version that is there: programs before Coppice filled several datastores, too.
        appliance = next((each for each in seen.appliances if each.has(image.identifier)), None)
        if appliance is None:
            raise self.front_end.failures.gone(str(image.identifier))
        self._show(seen, appliance)
        return self._described(appliance.identifier)

    def _show(self, seen: View, appliance: Appliance, *, enable: bool = True) -> None:
        state = appliance.marker.state
        if (state in SHOWN or state is ImageState.STAGED) and enable:
            self._publishing.enable(appliance)
        if state is ImageState.AVAILABLE:
            self._publishing.share(appliance)
            self._publishing.point(seen, appliance)
            return
        self._publishing.leave(seen, appliance)
        self._publishing.share(appliance)
        if state not in SHOWN and state is not ImageState.STAGED:
            self._publishing.disable(appliance)

    def _finish(self, taken: Sequence[StoredImage], wanted: Written) -> None:
        for copy in taken:
            self._publishing.write(copy, wanted)
        seen = self._view()
        appliance = self._same(seen, wanted.marker)
        if appliance is None:
            raise self.front_end.failures.gone(str(taken[0].identifier))
        self._show(seen, appliance)
        self._write(appliance, replace(wanted, finished=True))

    def _write(self, appliance: Appliance, wanted: Written) -> None:
        # The first copy's marker is the image's: it comes last.
        for copy in reversed(appliance.copies):
            self._publishing.write(copy, wanted)

    def _written(self, appliance: Appliance) -> Written:
        attributes = appliance.first.attributes
        return Written(
            marker=appliance.marker,
            presentation=written.read_presentation(attributes, name=appliance.first.name),
            hardware=Hardware.read(attributes),
            copies=written.copies(attributes),
            finished=all(written.is_finished(copy.attributes) for copy in appliance.copies),
        )

    def _rename(self, appliance: Appliance, wanted: Written) -> None:
        for copy in appliance.copies:
            where = copy.datastore_name if wanted.copies > 1 else None
            names = image_names(wanted.marker, wanted.presentation.name, where)
            for name in () if copy.name in names else names:
                try:
                    self.front_end.rename_image(copy.identifier, name)
                except CloudNameTakenError:
                    continue
                break

    def _is_current(self, seen: View, appliance: Appliance) -> bool:
        current = seen.current(appliance.marker.key)
        return current is None or current.identifier == appliance.identifier

    def _places(self, presentation: Presentation) -> list[Datastore]:
        seen = self.front_end.datastores()
        places: list[Datastore] = []
        for name in presentation.datastores or self.placing.datastores:
            place = next((each for each in seen if name in {each.name, str(each.identifier)}), None)
            if place is None and name.isascii() and name.isdecimal():
                # Who may not see a datastore may be allowed to put images there all the same.
                place = unseen_datastore(int(name))
            if place is None or not place.holds_images:
                raise self._no_datastore(name, [each.name for each in seen if each.holds_images])
            if place not in places:
                places.append(place)
        return places

    def _no_datastore(self, name: str, known: list[str]) -> CloudRefusedImageError:
        near = difflib.get_close_matches(name, known, n=1)
        return CloudRefusedImageError(
            f"cloud {self.name} has no datastore {name!r} for images"
            + (f". Did you mean {near[0]!r}?" if near else ""),
            resolution=(f"Use some of: {', '.join(sorted(known))}." if known else "This user sees no datastore.")
            + " One that it may not see is named by its number.",
            context={"cloud": self.name, "datastore": name},
        )

    def _view(self) -> View:
        images, templates = self.front_end.images(), self.front_end.templates()
        seen = view_of(images, templates, self.site)
        if seen.dangling(images):
            # Something may have been made, or gone, between the two calls.
            images = self.front_end.images()
            seen = view_of(images, templates, self.site)
            self._refuse_half(seen, images)
        return seen

    def _refuse_half(self, seen: View, images: Sequence[StoredImage]) -> None:
        """Refuse a list of images that leaves out one that a VM template of ours starts from, and that is there."""
        for template, number in seen.dangling(images):
            try:
                image = self.front_end.image(number)
            except (CloudImageGoneError, CloudForbiddenError):
                continue
            if image.owner == template.owner and image.state is not State.DELETE:
                raise self.front_end.failures.unreadable(
                    f"it names {len(images)} images, and image {number}, which is there, is not among them"
                )

    def _same(self, seen: View, marker: OwnershipMarker) -> Appliance | None:
        return next(
            (
                each
                for each in seen.of_key(marker.key)
                if each.marker.version == marker.version and each.marker.digest.matches(marker.digest)
            ),
            None,
        )

    def _copies_of(self, marker: OwnershipMarker) -> tuple[StoredImage, ...]:
        same = self._same(view_of(self.front_end.images(), (), self.site), marker)
        return () if same is None else same.copies

    def _found(self, seen: View, registered: RegisteredImage) -> Appliance:
        appliance = seen.find(registered.cloud_identifier)
        if appliance is None or appliance.marker.key != registered.marker.key:
            raise self.front_end.failures.gone(registered.cloud_identifier)
        return appliance

    def _described(self, identifier: str) -> RegisteredImage:
        seen = self._view()
        appliance = seen.find(identifier)
        if appliance is None:
            raise self.front_end.failures.gone(identifier)
        return self._registered(seen, appliance)

    def _registered(self, seen: View, appliance: Appliance) -> RegisteredImage:
        return view.registered(seen, appliance, cloud=self.name, placing=self.placing)


def _as_written(appliance: Appliance, wanted: Written) -> Appliance:
    """Return a version as it will be when ``wanted`` is written on it; its other attributes count no more here."""
    return replace(
        appliance,
        marker=wanted.marker,
        copies=tuple(replace(copy, attributes=wanted.attributes()) for copy in appliance.copies),
    )
