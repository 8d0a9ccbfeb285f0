# SPDX-License-Identifier: Apache-2.0
"""What every cloud must do: `CloudContract`.

The cases stand in classes by what they are about; `CloudContract` is all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.model import ImageState
from coppice.cloud.properties import presentation_of
from coppice.errors import CloudError
from coppice.monitor import SILENT
from coppice.testing.contracts.cloud_faults import FaultCases, HostileCases
from coppice.testing.contracts.stand import register, register_at, to_state
from coppice.testing.desired import NOW, desired_image, marker_of

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.contracts.stand import CloudStand


class RegistrationCases:
    """Images are registered, described, and removed."""

    def test_what_was_registered_is_described_with_the_marker_that_was_given(
        self, stand: CloudStand, store: Path
    ) -> None:
        desired = desired_image()
        marker = marker_of(desired)
        registered = stand.cloud.register(stand.convert(desired, store), marker, presentation_of(desired), SILENT)
        assert registered.marker == marker
        assert registered.ready
        assert stand.cloud.describe() == (registered,)
        assert stand.can_start(registered)
        assert stand.is_listed(registered)
        stand.check_shown(registered, presentation_of(desired))

    def test_an_empty_cloud_has_no_images(self, stand: CloudStand) -> None:
        assert stand.cloud.describe() == ()

    def test_a_marker_with_a_pin_and_without_an_end_comes_back_as_it_was(self, stand: CloudStand, store: Path) -> None:
        registered = register(stand, desired_image(), store, pin="1", expires=None)
        described = stand.cloud.describe()[0].marker
        assert (described.pin, described.expires) == ("1", None)
        assert described == registered.marker

    def test_all_that_a_marker_can_say_comes_back_as_it_was(self, stand: CloudStand, store: Path) -> None:
        image = register(
            stand,
            desired_image(),
            store,
            pin="1",
            vo="biomed.example.org",
            set_identifier="3f9a1c0b-7d2e-4c55-9d0e-2f1f3e5b7a90",
            set_version="7",
            adopted_from="somebody else's program",
        )
        changed = to_state(stand.cloud, image, ImageState.REVOKED, reason="it has a door at the back")
        assert changed.marker.reason == "it has a door at the back"
        assert stand.cloud.describe() == (changed,)
        freed = to_state(
            stand.cloud, changed, ImageState.AVAILABLE, reason=None, pin=None, set_identifier=None, set_version=None
        )
        marker = stand.cloud.describe()[0].marker
        assert marker == freed.marker
        assert (marker.reason, marker.pin, marker.set_identifier, marker.set_version) == (None, None, None, None)
        assert marker.vo == "biomed.example.org"

    def test_registering_twice_gives_the_same_image(self, stand: CloudStand, store: Path) -> None:
        first = register(stand, desired_image(), store)
        assert register(stand, desired_image(), store) == first
        assert len(stand.cloud.describe()) == 1

    def test_describe_gives_every_image_in_one_order(self, stand: CloudStand, store: Path) -> None:
        wanted = [desired_image(name, version) for name in ("a", "b", "c") for version in ("1", "2")]
        for desired in wanted:
            register(stand, desired, store)
        described = stand.cloud.describe()
        assert {(image.marker.key, image.marker.version) for image in described} == {
            (desired.key, desired.listed.version) for desired in wanted
        }
        assert stand.cloud.describe() == described

    @pytest.mark.threat("T41")
    def test_the_same_image_of_two_lists_is_two_images(self, stand: CloudStand, store: Path) -> None:
        one = register(stand, desired_image(of_list="a"), store)
        two = register(stand, desired_image(of_list="b"), store)
        stand.cloud.remove(one)
        assert stand.cloud.describe() == (two,)
        assert stand.can_start(two)
        assert stand.is_listed(two)

    def test_new_metadata_and_its_marker_are_kept(self, stand: CloudStand, store: Path) -> None:
        image = register(stand, desired_image(), store)
        retitled = desired_image(title="A better title")
        changed = stand.cloud.update_metadata(image, marker_of(retitled), presentation_of(retitled))
        assert changed.marker.metadata_digest == marker_of(retitled).metadata_digest != image.marker.metadata_digest
        assert changed.cloud_identifier == image.cloud_identifier
        assert changed.ready
        assert stand.cloud.describe() == (changed,)
        assert stand.can_start(changed)
        assert stand.is_listed(changed)
        stand.check_shown(changed, presentation_of(retitled))

    def test_new_metadata_of_one_that_is_not_listed_does_not_list_it(self, stand: CloudStand, store: Path) -> None:
        image = to_state(stand.cloud, register(stand, desired_image(), store), ImageState.SUPERSEDED)
        retitled = desired_image(title="A better title")
        marker = marker_of(retitled, state=ImageState.SUPERSEDED)
        changed = stand.cloud.update_metadata(image, marker, presentation_of(retitled))
        assert changed.marker == marker
        assert stand.can_start(changed)
        assert not stand.is_listed(changed)

    def test_removing_twice_is_fine(self, stand: CloudStand, store: Path) -> None:
        image = register(stand, desired_image(), store)
        stand.cloud.remove(image)
        stand.cloud.remove(image)
        assert stand.cloud.describe() == ()

    def test_an_image_that_nothing_runs_from_is_not_in_use(self, stand: CloudStand, store: Path) -> None:
        assert not stand.cloud.in_use(register(stand, desired_image(), store))


class StateCases:
    """What the states of an image mean to users."""

    @pytest.mark.parametrize(
        ("state", "startable", "listed"),
        [
            (ImageState.SUPERSEDED, True, False),
            (ImageState.EXPIRED, False, False),
            (ImageState.WITHDRAWN, False, False),
            (ImageState.REVOKED, False, False),
        ],
    )
    def test_a_state_shows_in_what_can_be_started_and_what_is_listed(
        self, stand: CloudStand, store: Path, state: ImageState, *, startable: bool, listed: bool
    ) -> None:
        image = register(stand, desired_image(), store)
        changed = to_state(stand.cloud, image, state, reason=None if startable else "the test says so")
        assert changed.marker.state is state
        assert changed.marker.state_since == NOW + timedelta(days=1)
        assert changed.cloud_identifier == image.cloud_identifier
        assert stand.cloud.describe() == (changed,)
        assert changed.ready
        assert changed.drift is None
        assert stand.can_start(changed) is startable
        assert stand.is_listed(changed) is listed

    @pytest.mark.threat("T36")
    @pytest.mark.parametrize("state", [ImageState.EXPIRED, ImageState.REVOKED, ImageState.WITHDRAWN])
    def test_what_could_not_be_started_becomes_available_again_under_its_identifier(
        self, stand: CloudStand, store: Path, state: ImageState
    ) -> None:
        image = register(stand, desired_image(), store)
        back = to_state(stand.cloud, to_state(stand.cloud, image, state), ImageState.AVAILABLE)
        assert back.cloud_identifier == image.cloud_identifier
        assert back.ready
        assert stand.cloud.describe() == (back,)
        assert stand.can_start(back)
        assert stand.is_listed(back)

    def test_changing_a_state_twice_changes_nothing_more(self, stand: CloudStand, store: Path) -> None:
        image = register(stand, desired_image(), store)
        first = to_state(stand.cloud, image, ImageState.EXPIRED)
        assert to_state(stand.cloud, first, ImageState.EXPIRED) == first

    @pytest.mark.threat("T90")
    def test_a_newer_version_takes_over_while_the_older_can_still_be_started(
        self, stand: CloudStand, store: Path
    ) -> None:
        old = register(stand, desired_image(version="1"), store)
        new = register(stand, desired_image(version="2"), store)
        assert stand.can_start(old)
        assert stand.is_listed(new)
        hidden = to_state(stand.cloud, old, ImageState.SUPERSEDED)
        assert stand.can_start(hidden)
        assert not stand.is_listed(hidden)
        assert stand.is_listed(new)
        assert all(image.ready for image in stand.cloud.describe())

    def test_an_older_version_is_made_available_again_and_the_newer_hidden(
        self, stand: CloudStand, store: Path
    ) -> None:
        old = to_state(stand.cloud, register(stand, desired_image(version="1"), store), ImageState.SUPERSEDED)
        new = register(stand, desired_image(version="2"), store)
        back = to_state(stand.cloud, old, ImageState.AVAILABLE, pin="1")
        hidden = to_state(stand.cloud, new, ImageState.SUPERSEDED)
        assert stand.is_listed(back)
        assert not stand.is_listed(hidden)
        assert stand.can_start(hidden)
        assert all(image.ready for image in stand.cloud.describe())
        assert back.marker.pin == "1"

    @pytest.mark.threat("T90")
    def test_a_staged_version_leaves_the_older_listed_until_it_is_flipped(self, stand: CloudStand, store: Path) -> None:
        old = register(stand, desired_image(version="1"), store)
        staged = register(stand, desired_image(version="2"), store, state=ImageState.STAGED)
        assert staged.ready
        assert staged.marker.state is ImageState.STAGED
        assert {image.cloud_identifier: image for image in stand.cloud.describe()} == {
            image.cloud_identifier: image for image in (old, staged)
        }
        assert not stand.is_listed(staged)
        assert stand.is_listed(old)
        assert stand.can_start(old)
        flipped = to_state(stand.cloud, staged, ImageState.AVAILABLE)
        assert flipped.cloud_identifier == staged.cloud_identifier
        assert stand.is_listed(flipped)
        assert stand.can_start(flipped)
        assert stand.can_start(old)

    def test_a_flip_is_taken_back(self, stand: CloudStand, store: Path) -> None:
        old = register(stand, desired_image(version="1"), store)
        new = register(stand, desired_image(version="2"), store)
        assert stand.is_listed(new)
        staged = to_state(stand.cloud, new, ImageState.STAGED)
        back = to_state(stand.cloud, old, ImageState.AVAILABLE)
        assert stand.is_listed(back)
        assert stand.can_start(back)
        assert not stand.is_listed(staged)
        assert staged.ready
        assert all(image.drift is None and image.ready for image in stand.cloud.describe())

    def test_registering_a_staged_image_twice_gives_the_same_image(self, stand: CloudStand, store: Path) -> None:
        first = register(stand, desired_image(), store, state=ImageState.STAGED)
        assert register(stand, desired_image(), store, state=ImageState.STAGED) == first
        assert stand.cloud.describe() == (first,)
        assert not stand.is_listed(first)


class OwnershipCases:
    """Nothing is touched but what bears this site's marker, and nothing that bears it is overlooked."""

    def test_what_bears_no_marker_is_neither_described_nor_touched(self, stand: CloudStand, store: Path) -> None:
        stand.add_foreign("theirs")
        image = register(stand, desired_image(), store)
        assert stand.cloud.describe() == (image,)
        stand.cloud.remove(image)
        assert stand.foreign_is_whole()

    @pytest.mark.threat("T88")
    def test_somebody_elses_image_with_our_name_is_neither_described_nor_touched(
        self, stand: CloudStand, store: Path
    ) -> None:
        desired = desired_image()
        stand.add_foreign(presentation_of(desired).name)
        image = register(stand, desired, store)
        assert stand.cloud.describe() == (image,)
        assert stand.can_start(image)
        hidden = to_state(stand.cloud, image, ImageState.WITHDRAWN)
        stand.cloud.remove(hidden)
        assert stand.foreign_is_whole()

    @pytest.mark.threat("T88")
    def test_a_name_that_somebody_else_has_is_no_hindrance_to_a_new_title(self, stand: CloudStand, store: Path) -> None:
        retitled = desired_image(title="A better title")
        stand.add_foreign("A better title")
        image = register(stand, desired_image(), store)
        changed = stand.cloud.update_metadata(image, marker_of(retitled), presentation_of(retitled))
        assert stand.cloud.describe() == (changed,)
        assert stand.foreign_is_whole()

    def test_another_sites_images_are_neither_described_nor_touched(self, stand: CloudStand, store: Path) -> None:
        other = stand.of_site("another-site")
        theirs = register_at(other, stand, desired_image(), store)
        ours = register(stand, desired_image(), store)
        assert stand.cloud.describe() == (ours,)
        with pytest.raises(CloudError):
            stand.cloud.remove(theirs)
        with pytest.raises(CloudError):
            to_state(stand.cloud, theirs, ImageState.WITHDRAWN)
        with pytest.raises(CloudError):
            stand.cloud.update_metadata(theirs, theirs.marker, presentation_of(desired_image()))
        assert other.describe() == (theirs,)
        assert stand.can_start(theirs)

    def test_a_damaged_marker_of_this_site_is_an_error_and_no_absence(self, stand: CloudStand, store: Path) -> None:
        image = register(stand, desired_image(), store)
        stand.damage_marker(image)
        with pytest.raises(CloudError, match="damaged") as caught:
            stand.cloud.describe()
        assert image.cloud_identifier in caught.value.message


class CloudContract(RegistrationCases, StateCases, OwnershipCases, FaultCases, HostileCases, ABC):
    """All that every cloud must do; a member's tests derive from it and give the stand."""

    pytestmark = pytest.mark.contract

    @pytest.fixture
    @abstractmethod
    def stand(self) -> CloudStand:
        """Return the cloud under test, empty."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        """Return where the files of converted images are."""
        return tmp_path / "store"
