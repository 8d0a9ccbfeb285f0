# SPDX-License-Identifier: Apache-2.0
"""Images as files of a libvirt's storage pool, each with a machine definition from which it is started.

An image in one version has a machine definition of its own, which bears the marker and is there before the file. What
is available has a second one beside it, under a name without a version: that leads to the current version, stays the
same over all of them, and is what people and scripts start. A version that is superseded or staged is started by its
own definition alone; of one that is expired, withdrawn or revoked, that leads to a file that is not there.

A definition that is written anew counts from the next start on: machines that run go on as they are.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE
from coppice.cloud.libvirt_pool import leftovers, naming, use
from coppice.cloud.libvirt_pool.definition import (
    Machine,
    architecture_of,
    blocked_path,
    current_definition,
    image_definition,
    volume_definition,
)
from coppice.cloud.libvirt_pool.record import CurrentRecord, Record
from coppice.cloud.libvirt_pool.transfer import check_room, checksum_of, upload
from coppice.cloud.libvirt_pool.view import Kept, View, disk_path
from coppice.cloud.model import ImageState
from coppice.errors import CloudChecksumError, CloudError, CloudImageGoneError, CloudImageInUseError
from coppice.model.image import DiskFormat
from coppice.model.version import Version

if TYPE_CHECKING:
    from coppice.cloud.driver import Leftover
    from coppice.cloud.libvirt_pool.host import Host
    from coppice.cloud.libvirt_pool.options import Placing
    from coppice.cloud.libvirt_pool.session import Session
    from coppice.cloud.model import OwnershipMarker, Presentation, RegisteredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor

DEFAULT_FORMATS = (DiskFormat.QCOW2, DiskFormat.RAW)
_UNFINISHED = "registering"
_REMOVED = "removed"


class LibvirtCloud:
    """Images in the pools of one libvirt. Threads take turns but while bytes are sent.

    Args:
        name: Of the target.
        site: Identifier of the site.
        session: With the libvirt.
        placing: Where images lie, and what their machines are like.
        formats: That it takes, most wanted first.
    """

    def __init__(
        self, name: str, site: str, *, session: Session, placing: Placing, formats: Formats = DEFAULT_FORMATS
    ) -> None:
        self.name = name
        self.site = site
        self.formats = formats
        self.session = session
        self.placing = placing
        self._lock = threading.RLock()
        self._hypervisors: dict[str, str] = {}

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return this site's images, in the order of their identifiers."""

        def describe(host: Host) -> tuple[RegisteredImage, ...]:
            with self._lock:
                view = View.of_all(host, self.site)
                # A pool that cannot be looked into is an error even when no image is known to be in it.
                view.files(self.placing.pool)
                return tuple(view.described(image, self.name) for image in view.images)

        return self.session.run("looking at what is registered", describe)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Define a machine that cannot start yet, with its marker; send the file; read it back; let machines start."""

        def register(host: Host) -> RegisteredImage:
            identifier = naming.image_uuid(marker)
            with self._lock:
                view = View.of_one(host, self.site, identifier)
                existing = next(iter(view.images), None)
                if existing is not None:
                    found = view.described(existing, self.name)
                    if found.ready and found.drift is None:
                        return found
                    if found.ready:
                        record = existing.record.with_marker(marker).with_presentation(presentation)
                        return self._enforce(host, view, existing, record, marker)
                self._refuse_taken(host, identifier, existing)
                record = self._begin(host, converted, marker, presentation, existing)
            try:
                self._fill(host, record, converted, monitor)
            except BaseException:
                self._clean(host, record, identifier)
                raise
            with self._lock:
                view = View.of_one(host, self.site, identifier)
                written = self._one(view, identifier)
                whole = replace(written.record, whole=True)
                # What cannot be listed now is whole all the same, and is not sent again.
                self._define(host, whole, written.definition.name, disk=disk_path(host, whole))
                return self._enforce(host, view, written, whole, written.marker)

        return self.session.run(f"registering image {marker.key} version {marker.version}", register)

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write the definitions anew."""

        def update(host: Host) -> RegisteredImage:
            with self._lock:
                view, image = self._owned(host, registered)
                record = image.record.with_marker(marker).with_presentation(presentation)
                return self._enforce(host, view, image, record, marker)

        return self.session.run(f"describing image {registered.cloud_identifier}", update)

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Write the definitions anew, so that they start what the state lets start; the marker last."""

        def change(host: Host) -> RegisteredImage:
            with self._lock:
                view, image = self._owned(host, registered)
                return self._enforce(host, view, image, image.record.with_marker(marker), marker)

        return self.session.run(f"changing image {registered.cloud_identifier}", change)

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether a machine has the file, or another file is based on it (`coppice.cloud.libvirt_pool.use`)."""

        def in_use(host: Host) -> bool:
            _, image = self._owned(host, registered)
            return self._is_used(host, image)

        return self.session.run(f"finding out whether image {registered.cloud_identifier} is in use", in_use)

    def remove(self, registered: RegisteredImage) -> None:
        """Let nothing start any more, see that nothing runs, delete the file, and the definition, its marker, last."""

        def remove(host: Host) -> None:
            with self._lock:
                if host.machine(registered.cloud_identifier) is None:
                    return
                view, image = self._owned(host, registered)
                path = disk_path(host, image.record)
                self._define(host, image.record, image.definition.name, disk=blocked_path(path, _REMOVED))
                if self._is_used(host, image):
                    self._enforce(host, view, image, image.record, image.marker)
                    raise CloudImageInUseError(
                        f"image {image.definition.name} in cloud {self.name} is in use: a machine has its file, or "
                        "another file is based on it",
                        resolution="It is removed by a later run, when nothing uses it any more.",
                    )
                self._unlist(host, view, image)
                for overlay in view.stale_overlays(image.record, view.machines_of(image)):
                    host.delete_volume(image.record.pool, overlay)
                host.delete_volume(image.record.pool, image.record.volume)
                host.undefine(image.machine)

        self.session.run(f"removing image {registered.cloud_identifier}", remove)

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return files that no image accounts for, and definitions of current versions that lead nowhere."""

        def find(host: Host) -> tuple[Leftover, ...]:
            with self._lock:
                return leftovers.find(host, self.name, self.site, self.placing.pools)

        return self.session.run("looking for what is left behind", find)

    def clear(self, leftover: Leftover) -> None:
        """Remove a file or a definition that is still left behind."""

        def clear(host: Host) -> None:
            with self._lock:
                found = leftovers.find(host, self.name, self.site, self.placing.pools)
                now = next((each for each in found if each.identifier == leftover.identifier), None)
                if now is None:
                    return
                if not now.can_be_cleared:
                    raise CloudImageInUseError(
                        f"cloud {self.name}: {now.what}", resolution="End what uses it, then run again."
                    )
                leftovers.clear(host, now)

        self.session.run(f"clearing {leftover.identifier}", clear)

    def _begin(
        self,
        host: Host,
        converted: ConvertedImage,
        marker: OwnershipMarker,
        presentation: Presentation,
        existing: Kept | None,
    ) -> Record:
        pool = presentation.datastores[0] if presentation.datastores else self.placing.pool
        if existing is None:
            name = naming.image_name(marker, presentation.name)
            volume = naming.volume_name(marker, presentation.name, converted.image.format)
        else:
            # The file stays where it was begun: one that is left elsewhere would be nobody's.
            name, volume, pool = existing.definition.name, existing.record.volume, existing.record.pool
        record = Record.of(converted, marker, presentation, pool=pool, volume=volume)
        self._define(host, record, name, disk=blocked_path(disk_path(host, record), _UNFINISHED))
        return record

    def _refuse_taken(self, host: Host, identifier: str, existing: Kept | None) -> None:
        if existing is None and host.machine(identifier) is not None:
            raise CloudImageGoneError(
                f"the machine definition {identifier} in cloud {self.name} bears no marker of this site any more",
                resolution="Nothing was changed. Undefine it if nobody needs it: the image is then registered anew.",
            )

    def _fill(self, host: Host, record: Record, converted: ConvertedImage, monitor: Monitor) -> None:
        if host.volume(record.pool, record.volume) is not None:
            # Of a run that was killed, or of a definition that somebody took away; its name says what is in it.
            if use.is_used(host, record):
                self._verify(host, record, monitor)
                return
            host.delete_volume(record.pool, record.volume)
        check_room(host, record.pool, converted)
        volume = host.create_volume(record.pool, volume_definition(record.volume, record.size_bytes))
        upload(host, volume, converted, monitor)
        host.refresh(record.pool)
        if self.placing.verify:
            self._verify(host, record, monitor)

    def _verify(self, host: Host, record: Record, monitor: Monitor) -> None:
        volume = host.volume(record.pool, record.volume)
        if volume is None:
            raise CloudImageGoneError(f"the file {record.volume} went away while it was registered")
        found = checksum_of(host, volume, record.size_bytes, record.checksum.algorithm, monitor)
        if not found.matches(record.checksum):
            raise CloudChecksumError(
                f"cloud {self.name}: the file {record.volume} in the pool {record.pool} has other bytes than were sent",
                details=f"sent {record.checksum}, there is {found}",
                resolution="Nothing was registered. Look at that machine's disks and memory, then run again.",
            )

    def _clean(self, host: Host, record: Record, identifier: str) -> None:
        # What cannot be cleaned bears the marker of an image that is not whole: the next run knows it by that.
        with suppress(CloudError, host.library.libvirtError), self._lock:
            if use.is_used(host, record):
                return
            host.delete_volume(record.pool, record.volume)
            machine = host.machine(identifier)
            if machine is not None:
                host.undefine(machine)

    def _enforce(self, host: Host, view: View, image: Kept, record: Record, marker: OwnershipMarker) -> RegisteredImage:
        # The marker comes last: a run that is killed before it is repeated by the next one.
        path = disk_path(host, record)
        record = record.with_marker(marker)
        is_whole = record.whole and record.volume in view.files(record.pool)
        if is_whole:
            for overlay in view.stale_overlays(record, view.machines_of(image)):
                host.delete_volume(record.pool, overlay)
        if is_whole and marker.state is ImageState.AVAILABLE:
            self._list(host, view, record, marker)
        else:
            self._unlist(host, view, image)
        why = str(marker.state) if record.whole else _UNFINISHED
        disk = path if is_whole and marker.state in STARTABLE else blocked_path(path, why)
        self._define(host, record, image.definition.name, disk=disk)
        return self._described(host, image.definition.identifier)

    def _list(self, host: Host, view: View, record: Record, marker: OwnershipMarker) -> None:
        current = view.current_of(marker)
        identifier = naming.current_uuid(self.site, str(marker.key))
        text = CurrentRecord(site=self.site, key=str(marker.key), leads_to=naming.image_uuid(marker))
        host.define(
            current_definition(
                record,
                text,
                identifier=identifier,
                name=naming.current_name(marker, record.name) if current is None else current.definition.name,
                disk_path=disk_path(host, record),
                machine=self._machine(host, record),
            )
        )

    def _unlist(self, host: Host, view: View, image: Kept) -> None:
        """Let the current version be another one that is available, if there is one, else none."""
        current = view.current_of(image.marker)
        if current is None or not view.leads_to(image):
            return
        for other in self._others(host, image):
            self._list(host, view, other.record, other.marker)
            return
        if host.is_active(current.machine):
            # A definition that is taken from a running machine takes the machine with it when that ends.
            path = disk_path(host, image.record)
            host.define(
                current_definition(
                    image.record,
                    current.record,
                    identifier=current.definition.identifier,
                    name=current.definition.name,
                    disk_path=blocked_path(path, _REMOVED),
                    machine=self._machine(host, image.record),
                )
            )
        else:
            host.undefine(current.machine)

    def _others(self, host: Host, image: Kept) -> list[Kept]:
        """Return the other available versions of an image, the newest first."""
        found = []
        for machine in host.machines():
            identifier = machine.UUIDString()
            if identifier != image.definition.identifier and naming.is_version_of(machine.name(), image.marker):
                view = View.of_one(host, self.site, identifier)
                found += [
                    each
                    for each in view.images
                    if each.marker.key == image.marker.key
                    and each.marker.state is ImageState.AVAILABLE
                    and each.record.whole
                    and view.is_present(each)
                ]
        return sorted(found, key=lambda each: Version(each.marker.version), reverse=True)

    def _define(self, host: Host, record: Record, name: str, *, disk: str) -> None:
        marker = record.marker(self.site)
        state = "its registration has not ended" if not record.whole else f"{marker.state}"
        because = f" ({marker.reason})" if marker.reason else ""
        host.define(
            image_definition(
                record,
                identifier=naming.image_uuid(marker),
                name=name,
                disk_path=disk,
                machine=self._machine(host, record),
                remark=f"Version {marker.version}: {state}{because}.",
            )
        )

    def _machine(self, host: Host, record: Record) -> Machine:
        if self.placing.hypervisor != "auto":
            return Machine(hypervisor=self.placing.hypervisor, network=self.placing.network)
        architecture = architecture_of(record)
        if architecture not in self._hypervisors:
            self._hypervisors[architecture] = host.hypervisor_of(architecture)
        return Machine(hypervisor=self._hypervisors[architecture], network=self.placing.network)

    def _is_used(self, host: Host, image: Kept) -> bool:
        own = frozenset({image.definition.identifier, naming.current_uuid(self.site, str(image.marker.key))})
        return use.is_used(host, image.record, own, self.session.uri)

    def _described(self, host: Host, identifier: str) -> RegisteredImage:
        view = View.of_one(host, self.site, identifier)
        return view.described(self._one(view, identifier), self.name)

    def _owned(self, host: Host, registered: RegisteredImage) -> tuple[View, Kept]:
        view = View.of_one(host, self.site, registered.cloud_identifier)
        return view, self._one(view, registered.cloud_identifier)

    def _one(self, view: View, identifier: str) -> Kept:
        for image in view.images:
            return image
        raise CloudImageGoneError(
            f"image {identifier} in cloud {self.name} is not there, or is not this site's",
            resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
        )
