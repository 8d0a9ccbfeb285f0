# SPDX-License-Identifier: Apache-2.0
"""Taking an image in: allocate, wait, compare, and clear away what did not become one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.opennebula import document, machine, objects, written
from coppice.cloud.opennebula.failures import taken_by
from coppice.cloud.opennebula.objects import State
from coppice.cloud.opennebula.publishing import UNKNOWN_OUTCOME, image_names
from coppice.cloud.properties import clean
from coppice.errors import (
    CloudChecksumError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageBrokenError,
    CloudImageGoneError,
    CloudNameTakenError,
    CloudTimeoutError,
    ImageError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.cloud.opennebula.front_end import FrontEnd
    from coppice.cloud.opennebula.objects import Datastore, StoredImage
    from coppice.cloud.opennebula.view import Appliance
    from coppice.cloud.opennebula.written import Written
    from coppice.cloud.transports.transport import Offered, Transport
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor, Task

MIB = 1024**2
LEAST_WAIT_SECONDS = 30.0
"""For what is being copied already; it may have been begun long ago."""
GONE_SECONDS = 60.0
_SLOWEST_POLL = 10
_ATTEMPTS = 3
_UNTOLD_SIZE_DRIVERS = frozenset({"dummy"})
"""Datastores that say of every image the same size."""
_IDENTITY = (written.SITE, written.LIST, written.IMAGE, "COPPICE_VERSION", "COPPICE_DIGEST")
_HASH = re.compile(r"hash|md5|sha1|checksum", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Takes images into datastores.

    Attributes:
        front_end: Where.
        transport: Brings the bytes to where the front-end finds them.
        find: Returns the images that bear the same marker, as the pool has them now.
        monitor: Where progress is told.
    """

    front_end: FrontEnd
    transport: Transport
    find: Callable[[], tuple[StoredImage, ...]]
    monitor: Monitor

    def take(
        self, converted: ConvertedImage, wanted: Written, places: Sequence[Datastore], existing: Appliance | None
    ) -> tuple[StoredImage, ...]:
        """Return one whole image in each of the places; those that are there and whole stay.

        Raises:
            CloudError: One could not be made; what this call made is cleared away.
            ImageError: The converted file is not what it was.
            StorageError: The disk failed.
        """
        with self.monitor.task(f"image {wanted.presentation.name}", total=len(places) + 1) as task:
            kept = self._kept(existing, places, task)
            missing = [place for place in places if place.identifier not in kept]
            if missing:
                task.note("offering it to the front-end")
                with self.transport.offer(converted, self.monitor) as offered:
                    made = self._make(converted, offered, wanted, missing, alone=len(places) == 1, task=task)
                kept |= {image.datastore: image for image in made}
            return tuple(sorted(kept.values(), key=lambda image: image.identifier))

    def _kept(self, existing: Appliance | None, places: Sequence[Datastore], task: Task) -> dict[int, StoredImage]:
        """Return what is whole, by datastore; what is not, and what is one too many, is cleared away."""
        kept: dict[int, StoredImage] = {}
        numbers = {place.identifier for place in places}
        for copy in existing.copies if existing is not None else ():
            image = copy
            if copy.state in objects.WORKING and copy.datastore in numbers - kept.keys():
                # A run that was killed began it: what oned copies, it goes on copying.
                task.note(f"waiting for image {copy.identifier}, which is being copied")
                begun = time.time() - copy.registered_at
                patience = max(LEAST_WAIT_SECONDS, self.front_end.settings.image_seconds - begun)
                patience = min(patience, self.front_end.settings.image_seconds)
                try:
                    image = self._await(copy.identifier, time.monotonic() + patience)
                except CloudTimeoutError:
                    image = copy
                except CloudImageBrokenError:
                    image = copy
                except CloudImageGoneError:
                    continue
            if image.state in objects.WHOLE and image.datastore in numbers - kept.keys():
                kept[image.datastore] = image
            elif not image.machines:
                self.clear(image.identifier)
        return kept

    def _make(
        self,
        converted: ConvertedImage,
        offered: Offered,
        wanted: Written,
        places: Sequence[Datastore],
        *,
        alone: bool,
        task: Task,
    ) -> tuple[StoredImage, ...]:
        made: list[int] = []
        before = {image.identifier for image in self.find()}
        deadline = time.monotonic() + self.front_end.settings.image_seconds
        try:
            for place in places:
                names = image_names(wanted.marker, wanted.presentation.name, None if alone else place.name)
                attributes = _image_attributes(converted, offered, wanted, place)
                made.append(self._allocate(attributes, names, place, before=before))
            images = []
            for number, place in zip(made, places, strict=True):
                task.note(f"waiting for image {number} in datastore {place.name}")
                images.append(self._compared(self._await(number, deadline), converted, place))
                task.advance(1)
        except (CloudError, ImageError, StorageError):
            # What was made, whether its number came back or not.
            for number in {*made, *self._made_since(before)}:
                self._clear_quietly(number)
            raise
        return tuple(images)

    def _made_since(self, before: set[int]) -> set[int]:
        try:
            return {image.identifier for image in self.find()} - before
        except CloudError:
            return set()

    def _allocate(
        self, attributes: document.Attributes, names: Sequence[str], place: Datastore, *, before: set[int]
    ) -> int:
        pause = self.front_end.settings.retry_seconds
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._allocate_named(attributes, names, place, before=before)
            except UNKNOWN_OUTCOME as problem:
                if isinstance(problem, CloudFaultError) and "code" in problem.context:
                    raise
                # It may have been made: look for the marker before it is tried again.
                time.sleep(pause)
                number = self._appeared(place, before)
                if number is not None:
                    return number
                if attempt == _ATTEMPTS:
                    raise
                pause *= 2
        raise AssertionError

    def _allocate_named(
        self, attributes: document.Attributes, names: Sequence[str], place: Datastore, *, before: set[int]
    ) -> int:
        last: CloudNameTakenError | None = None
        for name in names:
            try:
                return self.front_end.allocate_image((("NAME", name), *attributes), place)
            except CloudNameTakenError as problem:
                last = problem
                # By an image that this very call made, when an earlier answer was lost.
                number = self._appeared(place, before)
                if number is not None:
                    return number
                self._refuse_half(attributes, taken_by(problem))
        raise last or self.front_end.failures.unreadable("an image has no name")

    def _refuse_half(self, attributes: document.Attributes, number: int | None) -> None:
        """Refuse to make a second image where the first has the name, and the pool left it out."""
        if number is None or number in {image.identifier for image in self.find()}:
            return
        try:
            image = self.front_end.image(number)
        except (CloudForbiddenError, CloudImageGoneError):
            return
        wanted, said = document.texts(attributes), document.texts(image.attributes)
        if image.state is not State.DELETE and all(said.get(name) == wanted[name] for name in _IDENTITY):
            raise self.front_end.failures.unreadable(
                f"image {number}, which is there, is not among those that it names"
            )

    def _appeared(self, place: Datastore, before: set[int]) -> int | None:
        found = [
            image.identifier
            for image in self.find()
            if image.identifier not in before and image.datastore == place.identifier
        ]
        return min(found, default=None)

    def _await(self, number: int, deadline: float) -> StoredImage:
        pause = self.front_end.settings.poll_seconds
        slowest = pause * _SLOWEST_POLL
        while True:
            image = self.front_end.image(number)
            if image.state in objects.WHOLE:
                return image
            if image.state not in objects.WORKING:
                raise self._broken(image)
            if time.monotonic() >= deadline:
                raise CloudTimeoutError(
                    f"cloud {self.front_end.failures.cloud}: image {number} is in state {image.state.name} for longer "
                    "than an image may take",
                    resolution="It is cleared away and made anew. When oned was stopped while it copied, it never gets "
                    "done by itself; otherwise raise `image_timeout` in the cloud's settings.",
                    context={"cloud": self.front_end.failures.cloud, "image": str(number)},
                )
            time.sleep(pause)
            pause = min(pause * 2, slowest)

    def _broken(self, image: StoredImage) -> CloudError:
        reason = clean(document.texts(image.attributes).get("ERROR", ""), 400) or "OpenNebula does not say why"
        kind = CloudChecksumError if _HASH.search(reason) else CloudImageBrokenError
        return kind(
            f"cloud {self.front_end.failures.cloud}: image {image.identifier} is in state {image.state.name}: {reason}",
            details=f"datastore {image.datastore_name}; its file may be left there: `coppice cloud tidy` looks for it",
            resolution="See whether the front-end can read what it was offered (SAFE_DIRS of the datastore, the "
            "address of the transport), then run again.",
            context={"cloud": self.front_end.failures.cloud, "image": str(image.identifier)},
        )

    def _compared(self, image: StoredImage, converted: ConvertedImage, place: Datastore) -> StoredImage:
        # The bytes were compared by the datastore's driver, with what it was told (MD5, SHA1); the size tells what an
        # interrupted download can do behind its back.
        # Which way the last part of a MiB is rounded depends on the driver.
        least = converted.image.virtual_size_bytes // MIB
        if place.driver not in _UNTOLD_SIZE_DRIVERS and image.size_mib < least:
            raise CloudChecksumError(
                f"cloud {self.front_end.failures.cloud}: image {image.identifier} has {image.size_mib} MiB in the "
                f"datastore {place.name}, and the disk has {least} MiB",
                resolution="It is cleared away; run again. Something between Coppice and the front-end changes what is "
                "fetched.",
                context={"cloud": self.front_end.failures.cloud, "image": str(image.identifier)},
            )
        return image

    def clear(self, number: int) -> None:
        """Delete an image, by force where it is being copied, and wait until it is gone.

        Raises:
            CloudError: It could not be deleted.
        """
        clear(self.front_end, number, self.monitor)

    def _clear_quietly(self, number: int) -> None:
        try:
            self.clear(number)
        except CloudError as problem:
            # It bears its marker, and that it is not finished: the next run clears it.
            self.monitor.message(f"image {number} could not be cleared away yet: {problem.message}")


def clear(front_end: FrontEnd, number: int, monitor: Monitor | None = None) -> None:
    """Delete an image, by force where it is being copied, and wait until it is gone.

    Raises:
        CloudError: It could not be deleted.
    """
    try:
        image = front_end.image(number)
        was_copied = image.state in objects.WORKING
        if image.state is not State.DELETE:
            _delete(front_end, number, force=was_copied)
    except CloudImageGoneError:
        return
    if monitor is not None and (was_copied or image.state is State.ERROR):
        monitor.message(
            f"image {number} was cleared away before it was whole: its file may be left in datastore "
            f"{image.datastore_name} of cloud {front_end.failures.cloud}"
        )
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        try:
            image = front_end.image(number)
        except CloudImageGoneError:
            return
        if image.state is not State.DELETE:
            raise CloudImageBrokenError(
                f"cloud {front_end.failures.cloud}: image {number} was to be deleted, and is in state "
                f"{image.state.name}",
                details=clean(document.texts(image.attributes).get("ERROR", ""), 400) or None,
                resolution="See the front-end's /var/log/one/oned.log, then run again.",
            )
        time.sleep(front_end.settings.poll_seconds)


def _delete(front_end: FrontEnd, number: int, *, force: bool) -> None:
    try:
        front_end.delete_image(number, force=force)
    except CloudError:
        # The answer to the first attempt may have been lost, and the second be refused because of it.
        if front_end.image(number).state is not State.DELETE:
            raise


def _image_attributes(
    converted: ConvertedImage, offered: Offered, wanted: Written, place: Datastore
) -> document.Attributes:
    kind = str(converted.image.format)
    checksums: Iterable[tuple[str, str]] = (
        (name, offered.checksums[algorithm]) for name, algorithm in (("MD5", "md5"), ("SHA1", "sha1"))
    )
    return (
        ("TYPE", "OS"),
        ("PATH", offered.path_or_url),
        ("FORMAT", kind),
        ("DRIVER", machine.disk_driver(kind, place)),
        ("DEV_PREFIX", machine.disk_prefix(wanted.hardware.disk_bus)),
        ("PERSISTENT", "NO"),
        *checksums,
        *wanted.attributes(),
    )
