# SPDX-License-Identifier: Apache-2.0
"""What the contract suite of clouds needs to know of a member beyond its methods.

A member's tests make one class of the suites that apply to it, and give it a stand::

    from coppice.testing.contracts.clouds import CloudContract
    from coppice.testing.contracts.cloud_abilities import DriftContract

    class TestMyCloud(CloudContract, DriftContract):
        @pytest.fixture
        def stand(self, tmp_path):
            return MyStand(tmp_path)

A stand looks at the cloud as its users do, and never through the driver that it tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.cloud.properties import presentation_of
from coppice.monitor import SILENT
from coppice.testing.desired import NOW, content_of, converted_image, marker_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.cloud.driver import Adopting, Cloud, Tidy
    from coppice.cloud.model import DesiredImage, ImageState, Presentation, RegisteredImage, Visibility
    from coppice.conversion.model import ConvertedImage


class CloudStand(ABC):
    """A cloud under test, as its users and its administrator see it.

    Attributes:
        cloud: The driver under test, of site `coppice.testing.desired.SITE`; it has no image at the start.
    """

    cloud: Cloud

    def convert(self, desired: DesiredImage, directory: Path) -> ConvertedImage:
        """Return an image of bytes that this cloud takes, written into ``directory``; others than any other's."""
        content = content_of(str(desired.key), desired.listed.version)
        return converted_image(desired, directory, content)

    @abstractmethod
    def of_site(self, site: str) -> Cloud:
        """Return the driver of another site, in the same cloud with the same rights."""

    @abstractmethod
    def add_foreign(self, name: str) -> None:
        """Make an image of somebody else: one without a marker, that users see under ``name`` if the cloud allows."""

    @abstractmethod
    def foreign_is_whole(self) -> bool:
        """Tell whether every image of `add_foreign` is as it was made."""

    @abstractmethod
    def break_off(self, image: RegisteredImage) -> None:
        """Leave ``image`` as a run does that is killed while it registers: its marker is there, its bytes are not."""

    @abstractmethod
    def damage_marker(self, image: RegisteredImage) -> None:
        """Write the state ``ripe``, which is none, into the marker of ``image``."""

    @abstractmethod
    def delete_behind(self, image: RegisteredImage) -> None:
        """Remove ``image`` from the cloud as its administrator would, marker and all."""

    @abstractmethod
    def can_start(self, image: RegisteredImage) -> bool:
        """Tell whether a user who names ``image`` can start a machine from it; none runs afterwards."""

    @abstractmethod
    def is_listed(self, image: RegisteredImage) -> bool:
        """Tell whether a user who looks for images finds ``image`` as the one to use."""

    @abstractmethod
    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        """Assert that users see the name, facts and properties of ``presentation``, as far as this cloud shows them."""


class DriftStand(ABC):
    """A cloud in which somebody's hand can change what is shown."""

    @abstractmethod
    def list_by_hand(self, image: RegisteredImage) -> None:
        """Make ``image`` listed, past the driver; its marker stays."""

    @abstractmethod
    def unlist_by_hand(self, image: RegisteredImage) -> None:
        """Make ``image`` not listed, past the driver; its marker stays."""

    @abstractmethod
    def enable_by_hand(self, image: RegisteredImage) -> None:
        """Make machines start from ``image`` again, past the driver; its marker stays."""

    @abstractmethod
    def disable_by_hand(self, image: RegisteredImage) -> None:
        """Make no machine start from ``image``, past the driver; its marker and its bytes stay."""


class UseStand(ABC):
    """A cloud that can tell whether something runs from an image."""

    @abstractmethod
    def use(self, image: RegisteredImage) -> None:
        """Start a machine from ``image``, or whatever else counts as use."""

    @abstractmethod
    def end_use(self, image: RegisteredImage) -> None:
        """End what `use` started."""


class AudienceStand(ABC):
    """A cloud that can tell people apart.

    Attributes:
        members: Two members of an audience that this cloud knows, sorted.
    """

    members: tuple[str, str]

    @abstractmethod
    def shared_with(self, image: RegisteredImage) -> Sequence[str]:
        """Return the members that ``image`` is shared with, sorted."""

    @abstractmethod
    def visibility_of(self, image: RegisteredImage) -> Visibility:
        """Return how far ``image`` is seen."""


class TidyStand(ABC):
    """A cloud that can find what failed registrations left behind."""

    tidy: Tidy
    """The driver under test once more, as what can tidy."""

    @abstractmethod
    def leave_behind(self) -> None:
        """Make something that a registration of this site left behind and that no marker accounts for."""


class AdoptingStand(ABC):
    """A cloud whose images can come from another program."""

    adopting: Adopting
    """The driver under test once more, as what can adopt."""


def register(stand: CloudStand, desired: DesiredImage, store: Path, **changes: object) -> RegisteredImage:
    """Register ``desired`` with the marker that it gives, but for ``changes``."""
    return register_at(stand.cloud, stand, desired, store, **changes)


def register_at(
    cloud: Cloud, stand: CloudStand, desired: DesiredImage, store: Path, **changes: object
) -> RegisteredImage:
    """Register ``desired`` by ``cloud``, which may be another site's."""
    marker = replace(marker_of(desired, site=cloud.site), **changes)  # type: ignore[arg-type]
    return cloud.register(stand.convert(desired, store), marker, presentation_of(desired), SILENT)


def to_state(cloud: Cloud, image: RegisteredImage, state: ImageState, **changes: object) -> RegisteredImage:
    """Bring ``image`` to ``state``, a day after it was registered."""
    marker = replace(image.marker, state=state, state_since=NOW + timedelta(days=1))
    return cloud.change_state(image, replace(marker, **changes))  # type: ignore[arg-type]


def described(cloud: Cloud, image: RegisteredImage) -> RegisteredImage:
    """Return ``image`` as the cloud describes it now."""
    (found,) = (each for each in cloud.describe() if each.cloud_identifier == image.cloud_identifier)
    return found
