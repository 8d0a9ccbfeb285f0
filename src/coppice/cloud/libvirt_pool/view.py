# SPDX-License-Identifier: Apache-2.0
"""What is registered in a libvirt, as it stands there: definitions, files, and how they differ from what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.cloud.draft import STARTABLE
from coppice.cloud.libvirt_pool import naming
from coppice.cloud.libvirt_pool.record import CURRENT, IMAGE, CurrentRecord, Record
from coppice.cloud.model import ImageState, RegisteredImage
from coppice.cloud.properties import from_properties
from coppice.errors import MarkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.libvirt_pool.host import Host
    from coppice.cloud.libvirt_pool.reading import Definition
    from coppice.cloud.model import OwnershipMarker


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An image of this site.

    Attributes:
        machine: Handle of its machine definition.
        definition: What is defined.
        record: What is written on it.
        marker: The marker in that.
    """

    machine: Any
    definition: Definition
    record: Record
    marker: OwnershipMarker


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """A machine definition of this site that leads to the current version of an image.

    Attributes:
        machine: Its handle.
        definition: What is defined.
        record: What is written on it.
    """

    machine: Any
    definition: Definition
    record: CurrentRecord


def kept_image(machine: Any, definition: Definition, site: str) -> Kept | None:
    """Return the image of ``site`` that a definition is of; None: it is something else, or somebody else's.

    Raises:
        MarkerError: It is this site's, and what is written on it is damaged.
    """
    if definition.kind != IMAGE:
        return None
    try:
        record = Record.parse(definition.text)
    except ValueError as problem:
        if site not in definition.text:
            return None
        raise MarkerError(
            f"what Coppice wrote on the machine definition {definition.identifier} is damaged: {problem}",
            details=definition.text[:2000],
            resolution="Nothing was changed. Mend its <metadata> (virsh edit), or undefine it: the image is then "
            "registered anew if it is listed.",
            context={"image": definition.identifier},
        ) from problem
    marker = from_properties(record.properties, site, name=definition.identifier)
    if marker is None or naming.image_uuid(marker) != definition.identifier:
        # With our marker and another UUID it is a copy that somebody made for themselves.
        return None
    return Kept(machine=machine, definition=definition, record=record, marker=marker)


def kept_current(machine: Any, definition: Definition, site: str) -> Current | None:
    """Return the current version's definition of ``site`` that this is; None: it is something else."""
    if definition.kind != CURRENT:
        return None
    try:
        record = CurrentRecord.parse(definition.text)
    except ValueError:
        # Nothing is lost by it: it says nothing that is not said elsewhere.
        return None
    if record.site != site or naming.current_uuid(site, record.key) != definition.identifier:
        return None
    return Current(machine=machine, definition=definition, record=record)


class View:
    """What a site has in a libvirt.

    Attributes:
        host: The libvirt.
        site: Whose things these are.
        images: In the order of their identifiers.
        currents: Definitions of current versions, by UUID.
        volumes: Names of files, by pool.
    """

    def __init__(self, host: Host, site: str) -> None:
        self.host = host
        self.site = site
        self.images: list[Kept] = []
        self.currents: dict[str, Current] = {}
        self.volumes: dict[str, frozenset[str]] = {}

    @classmethod
    def of_all(cls, host: Host, site: str) -> View:
        """Look at everything that can be this site's.

        Raises:
            CloudError: It could not all be looked at.
        """
        view = cls(host, site)
        for machine in host.machines():
            if naming.may_be_ours(machine.UUIDString()):
                view._add(machine)
        view.images.sort(key=lambda image: image.definition.identifier)
        return view

    @classmethod
    def of_one(cls, host: Host, site: str, identifier: str) -> View:
        """Look at one image, which need not be there, and at what leads to its current version."""
        view = cls(host, site)
        machine = host.machine(identifier) if naming.may_be_ours(identifier) else None
        if machine is not None:
            view._add(machine)
        for image in view.images:
            current = host.machine(naming.current_uuid(site, str(image.marker.key)))
            if current is not None:
                view._add(current)
        return view

    def described(self, image: Kept, cloud: str) -> RegisteredImage:
        """Return an image as plans are made of it."""
        problem = self._problem(image)
        return RegisteredImage(
            cloud=cloud,
            cloud_identifier=image.definition.identifier,
            name=image.definition.name,
            marker=image.marker,
            ready=problem is None,
            problem=problem,
            drift=None if problem is not None else self._drift(image),
        )

    def is_present(self, image: Kept) -> bool:
        """Tell whether an image's file is there."""
        return image.record.volume in self.files(image.record.pool)

    def files(self, pool: str) -> frozenset[str]:
        """Return the names of a pool's files."""
        found = self.volumes.get(pool)
        if found is None:
            self.host.refresh(pool)
            found = self.volumes[pool] = self.host.volumes(pool)
        return found

    def leads_to(self, image: Kept) -> bool:
        """Tell whether whoever starts the current version gets this image."""
        current = self.current_of(image.marker)
        return current is not None and disk_path(self.host, image.record) in current.definition.disks

    def current_of(self, marker: OwnershipMarker) -> Current | None:
        """Return what leads to the current version of an image."""
        return self.currents.get(naming.current_uuid(self.site, str(marker.key)))

    def stale_overlays(self, record: Record, machines: Mapping[str, Any]) -> list[str]:
        """Return the files for what machines wrote to an image's disk that no machine has any more.

        libvirt removes them when a machine ends, but not when the whole host does; the machine of that name does then
        not start again.

        Args:
            record: Of the image.
            machines: Handles by name, of those that could have them.
        """
        present = self.files(record.pool)
        stale = []
        for name, machine in sorted(machines.items()):
            overlay = naming.overlay_name(record.volume, name)
            if overlay in present and not self.host.is_active(machine):
                stale.append(overlay)
        return stale

    def machines_of(self, image: Kept) -> dict[str, Any]:
        """Return the handles of the machines that an image's definitions are, by name."""
        current = self.current_of(image.marker)
        found = {image.definition.name: image.machine}
        if current is not None:
            found[current.definition.name] = current.machine
        return found

    def _add(self, machine: Any) -> None:
        definition = self.host.definition(machine)
        if definition is None:
            return
        image = kept_image(machine, definition, self.site)
        if image is not None:
            self.images.append(image)
        current = kept_current(machine, definition, self.site)
        if current is not None:
            self.currents[definition.identifier] = current

    def _problem(self, image: Kept) -> str | None:
        if not image.record.whole:
            return "its registration did not end"
        if not self.is_present(image):
            return f"its file {image.record.volume} is not in the pool {image.record.pool}"
        return None

    def _drift(self, image: Kept) -> str | None:
        state, path = image.marker.state, disk_path(self.host, image.record)
        found = []
        startable, listed = path in image.definition.disks, self.leads_to(image)
        if startable is not (state in STARTABLE):
            found.append(f"it is {state} and {'can' if startable else 'cannot'} be started")
        if listed is not (state is ImageState.AVAILABLE):
            found.append(f"it is {state} and {'is' if listed else 'is not'} what its current version leads to")
        current = self.current_of(image.marker)
        if path in image.definition.lasting or (current is not None and path in current.definition.lasting):
            found.append("a machine that is started from it would write to it")
        if self.stale_overlays(image.record, self.machines_of(image)):
            found.append("what a machine wrote that did not end in order is in the way of its next start")
        return "; ".join(found) or None


def disk_path(host: Host, record: Record) -> str:
    """Return where an image's file is on the machine that has the pool."""
    return f"{host.pool(record.pool).path.rstrip('/')}/{record.volume}"
