# SPDX-License-Identifier: Apache-2.0
"""The calls of ``oned`` that Coppice makes, with arguments in their order and of their type, and the answers read.

What can be repeated without harm is, some times, when the connection failed or the server had a fault; what cannot
(allocate) is the caller's to look after.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from coppice.cloud.opennebula import document, wire
from coppice.cloud.opennebula.objects import (
    USE_OWNER,
    datastore_of,
    group_of,
    image_of,
    template_of,
)
from coppice.errors import CloudFaultError, CloudImageGoneError, CloudTimeoutError, CloudUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coppice.cloud.opennebula.document import Attributes
    from coppice.cloud.opennebula.failures import Failures
    from coppice.cloud.opennebula.objects import Datastore, Rights, StoredImage, StoredTemplate
    from coppice.cloud.opennebula.options import FrontEndSettings

_Thing = TypeVar("_Thing", "StoredImage", "StoredTemplate")

MINE = -3
"""Only what the connected user owns. A marker on somebody else's image would be that person's word, not ours."""
EVERYBODYS = -2
MYSELF = -1
WHOLE_POOL = (-1, -1)
REPLACE, MERGE = 0, 1
WITH_IMAGES = False
"""Images go by themselves, when nothing needs them."""
UNCHANGED = -1
ATTEMPTS = 3
_PASSING = (CloudUnreachableError, CloudTimeoutError, CloudFaultError)
"""What may be otherwise a moment later."""


class FrontEnd:
    """One front-end; threads may share it."""

    def __init__(self, settings: FrontEndSettings, failures: Failures) -> None:
        self.settings = settings
        self.failures = failures
        self._lock = threading.Lock()
        self._server: Any = None

    def images(self) -> tuple[StoredImage, ...]:
        """Return every image that the connected user owns, by number.

        Raises:
            CloudError: It could not be asked, or its answer is not whole.
        """
        root = wire.require_root(
            self._repeat(lambda one: one.imagepool.info(MINE, *WHOLE_POOL)), "IMAGE_POOL", self.failures
        )
        return self._mine(image_of(each) for each in root.findall("IMAGE"))

    def all_images(self) -> tuple[StoredImage, ...]:
        """Return every image of everybody that the connected user may see."""
        root = wire.require_root(
            self._repeat(lambda one: one.imagepool.info(EVERYBODYS, *WHOLE_POOL)), "IMAGE_POOL", self.failures
        )
        return tuple(image_of(each) for each in root.findall("IMAGE"))

    def sees_all(self) -> bool:
        """Tell whether the connected user sees everybody's objects: ``oneadmin``, or a member of that group."""
        root = wire.require_root(self._repeat(lambda one: one.user.info(MYSELF)), "USER", self.failures)
        return root.findtext("ID") == "0" or root.findtext("GID") == "0"

    def templates(self) -> tuple[StoredTemplate, ...]:
        """Return every VM template that the connected user owns, by number.

        Raises:
            CloudError: It could not be asked, or its answer is not whole.
        """
        root = wire.require_root(
            self._repeat(lambda one: one.templatepool.info(MINE, *WHOLE_POOL)), "VMTEMPLATE_POOL", self.failures
        )
        return self._mine(template_of(each) for each in root.findall("VMTEMPLATE"))

    def _mine(self, given: Iterable[_Thing]) -> tuple[_Thing, ...]:
        """Return what was given by number, when each is there once and all have one owner: who asked."""
        found = tuple(sorted(given, key=lambda each: each.identifier))
        if len({each.identifier for each in found}) != len(found):
            raise self.failures.unreadable("it names something twice")
        if len({each.owner for each in found}) > 1:
            raise self.failures.unreadable("it names what other users own, who were not asked for")
        return found

    def datastores(self) -> tuple[Datastore, ...]:
        """Return every datastore that may be seen."""
        root = wire.require_root(self._repeat(lambda one: one.datastorepool.info()), "DATASTORE_POOL", self.failures)
        found = (datastore_of(each) for each in root.findall("DATASTORE"))
        return tuple(sorted(found, key=lambda datastore: datastore.identifier))

    def groups(self) -> dict[str, int]:
        """Return the number of every group by its name."""
        root = wire.require_root(self._repeat(lambda one: one.grouppool.info()), "GROUP_POOL", self.failures)
        return {name: number for number, name in map(group_of, root.findall("GROUP"))}

    def image(self, identifier: int) -> StoredImage:
        """Return an image.

        Raises:
            CloudImageGoneError: It is not there.
        """
        root = self._repeat(lambda one: one.image.info(identifier))
        return image_of(wire.require_root(root, "IMAGE", self.failures))

    def template(self, identifier: int) -> StoredTemplate:
        """Return a VM template.

        Raises:
            CloudImageGoneError: It is not there.
        """
        root = self._repeat(lambda one: one.template.info(identifier))
        return template_of(wire.require_root(root, "VMTEMPLATE", self.failures))

    def allocate_image(self, attributes: Attributes, datastore: Datastore) -> int:
        """Make an image; whether one was made is not known when this fails with a fault or in time.

        Whether it fits is compared by the front-end; where it does not know yet how much room there is, it takes that
        for none, and administrators may have it not look.
        """
        skip_capacity_check = not datastore.is_measured
        text = document.document(attributes)
        return self._number(self._one().image.allocate(text, datastore.identifier, skip_capacity_check))

    def allocate_template(self, attributes: Attributes) -> int:
        """Make a VM template; whether one was made is not known when this fails with a fault or in time."""
        return self._number(self._one().template.allocate(document.document(attributes)))

    def write_image(self, identifier: int, attributes: Attributes, *, replace: bool) -> None:
        """Write attributes of an image: instead of all that it has, or beside."""
        text = document.document(attributes)
        self._repeat(lambda one: one.image.update(identifier, text, REPLACE if replace else MERGE))

    def write_template(self, identifier: int, attributes: Attributes, *, replace: bool) -> None:
        """Write attributes of a VM template: instead of all that it has, or beside."""
        text = document.document(attributes)
        self._repeat(lambda one: one.template.update(identifier, text, REPLACE if replace else MERGE))

    def rename_image(self, identifier: int, name: str) -> None:
        """Give an image another name."""
        self._repeat(lambda one: one.image.rename(identifier, name))

    def rename_template(self, identifier: int, name: str) -> None:
        """Give a VM template another name."""
        self._repeat(lambda one: one.template.rename(identifier, name))

    def enable_image(self, identifier: int, *, enable: bool) -> None:
        """Enable or disable an image; one that is used, or being copied, cannot be."""
        self._repeat(lambda one: one.image.enable(identifier, enable))

    def share_image(self, identifier: int, rights: Rights, group: int | None) -> None:
        """Say who may use an image; None: it stays in its group."""
        if group is not None:
            self._repeat(lambda one: one.image.chown(identifier, UNCHANGED, group))
        self._repeat(lambda one: one.image.chmod(identifier, *_mode(rights)))

    def share_template(self, identifier: int, rights: Rights, group: int | None) -> None:
        """Say who may use a VM template; None: it stays in its group."""
        if group is not None:
            self._repeat(lambda one: one.template.chown(identifier, UNCHANGED, group))
        self._repeat(lambda one: one.template.chmod(identifier, *_mode(rights)))

    def delete_image(self, identifier: int, *, force: bool = False) -> None:
        """Delete an image; one that is gone is fine."""
        self._gone_is_fine(lambda one: one.image.delete(identifier, force))

    def delete_template(self, identifier: int) -> None:
        """Delete a VM template and leave its images; one that is gone is fine."""
        self._gone_is_fine(lambda one: one.template.delete(identifier, WITH_IMAGES))

    def _gone_is_fine(self, call: Callable[[Any], Any]) -> None:
        try:
            self._repeat(call)
        except CloudImageGoneError:
            return

    def _number(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.failures.unreadable("a number was expected")
        return value

    def _repeat(self, call: Callable[[Any], Any]) -> Any:
        pause = self.settings.retry_seconds
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(self._one())
            except _PASSING as problem:
                if attempt == ATTEMPTS or (isinstance(problem, CloudFaultError) and "code" in problem.context):
                    # What oned itself says it failed at, it fails at again: only what is between may pass.
                    raise
                time.sleep(pause)
                pause *= 2
        raise AssertionError

    def _one(self) -> Any:
        with self._lock:
            if self._server is None:
                self._server = wire.connect(self.settings, self.failures)
            return self._server


def _mode(rights: Rights) -> tuple[int, ...]:
    return (*USE_OWNER, int(rights.group), 0, 0, int(rights.other), 0, 0)
