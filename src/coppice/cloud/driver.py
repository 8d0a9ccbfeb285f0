# SPDX-License-Identifier: Apache-2.0
"""The `Cloud` plug-in kind, and what some clouds can do beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.model import OwnershipMarker, Presentation, RegisteredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor


class Cloud(Protocol):
    """A plug-in that registers images somewhere (entry point group ``coppice.clouds``).

    Every method is idempotent where its meaning allows, may be called from several threads at once (never two on the
    same image), and ends within a bounded time. `describe` is complete or raises: a cloud that cannot be asked has no
    registered images to plan with. What else a cloud can do is said by the small protocols below, which a driver
    implements where it makes sense.
    """

    name: str
    site: str
    formats: Formats

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Return every image that bears this site's marker, unfinished ones included, in a stable order.

        Raises:
            CloudError: The cloud could not be asked, or its answer was incomplete.
        """
        ...

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Register an image with its marker set from the start; it is usable when this returns.

        It is listed when ``marker.state`` is available, and not when it is staged. The cloud's bytes were compared with
        ``converted``'s checksum, as far as the cloud tells one.

        An image with the same key, version and digest that is there and ready is returned as it is; one that is not
        ready is made anew, or mended where its bytes are found to be whole.

        Raises:
            CloudError: It could not be registered; nothing usable is left behind.
        """
        ...

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Write a new presentation (name, facts, audience) and the marker that goes with it.

        Raises:
            CloudError: It could not be written.
        """
        ...

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Bring the image to ``marker.state`` (list, hide, deactivate, reactivate) and write the marker, in this order.

        An unfinished registration takes the marker and stays unfinished.

        Raises:
            CloudError: It could not be changed.
        """
        ...

    def in_use(self, registered: RegisteredImage) -> bool:
        """Tell whether something runs from the image, so that it must not be removed.

        Raises:
            CloudError: It could not be found out.
        """
        ...

    def remove(self, registered: RegisteredImage) -> None:
        """Remove the image; one that is gone already is fine, one without this site's marker is never touched.

        Raises:
            CloudError: It could not be removed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something in a cloud that a registration of this site left behind and that no marker accounts for.

    Attributes:
        cloud: Name of the target.
        identifier: The cloud's own, or the path of a file.
        what: What it is, for people: a file without an image, an image that was never whole.
        can_be_cleared: Whether `Tidy.clear` can remove it; False: an administrator must, and `what` says where.
    """

    cloud: str
    identifier: str
    what: str
    can_be_cleared: bool


class Tidy(Protocol):
    """A cloud that can find what failed registrations left behind."""

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return what is left behind; never what somebody else owns, and nothing that may still be at work.

        Raises:
            CloudError: It could not be found out.
        """
        ...

    def clear(self, leftover: Leftover) -> None:
        """Remove one; what is gone already is fine.

        Raises:
            CloudError: It could not be removed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignImage:
    """An image without this site's marker, as the cloud describes it.

    Attributes:
        cloud: Name of the target.
        cloud_identifier: The cloud's own identifier.
        name: What users see.
        properties: All that the cloud tells of it, as texts; the cloud's own facts and those that others wrote.
        ready: Whether machines can be started from it.
        checksum: Of the bytes that the cloud holds, as the cloud computed it; None: it does not tell.
        size_bytes: Of the bytes that the cloud holds; None: it does not tell.
    """

    cloud: str
    cloud_identifier: str
    name: str
    properties: Mapping[str, str]
    ready: bool
    checksum: Checksum | None = None
    size_bytes: int | None = None


class Adopting(Protocol):
    """A cloud whose images can come from another program, and be taken over without a new upload."""

    def foreign(self) -> tuple[ForeignImage, ...]:
        """Return every image without this site's marker that these credentials own, in a stable order; or raise.

        Raises:
            CloudError: The cloud could not be asked, or its answer was incomplete.
        """
        ...

    def adopt(self, foreign: ForeignImage, marker: OwnershipMarker, presentation: Presentation) -> RegisteredImage:
        """Write the marker on an image that bears none, in one step, leaving its bytes and what others wrote.

        Raises:
            CloudError: It could not be done, or the image has an owner's marker by now.
        """
        ...
