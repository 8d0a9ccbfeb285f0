# SPDX-License-Identifier: Apache-2.0
"""What some clouds can do beside: each ability is a suite of its own, which a member's tests derive from as well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.model import Audience, ImageState, Visibility
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.errors import CloudError
from coppice.monitor import SILENT
from coppice.testing.contracts.stand import described, register, register_at, to_state
from coppice.testing.desired import desired_image, marker_of

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.model import DesiredImage, OwnershipMarker, RegisteredImage
    from coppice.testing.contracts.stand import (
        AdoptingStand,
        AudienceStand,
        CloudStand,
        DriftStand,
        TidyStand,
        UseStand,
    )

    class DriftingCloud(CloudStand, DriftStand):
        """A stand for `DriftContract`."""

    class UsedCloud(CloudStand, UseStand):
        """A stand for `UseContract`."""

    class SharingCloud(CloudStand, AudienceStand):
        """A stand for `AudienceContract`."""

    class TidyingCloud(CloudStand, TidyStand):
        """A stand for `TidyContract`."""

    class AdoptingCloud(CloudStand, AdoptingStand):
        """A stand for `AdoptingContract`."""


class DriftContract:
    """What somebody's hand changed is seen by `describe`, and mended by the state's being asked for once more."""

    def _mend(self, stand: CloudStand, image: RegisteredImage, store: Path) -> RegisteredImage:
        found = described(stand.cloud, image)
        assert found.marker == image.marker
        assert found.drift or not found.ready
        # As a plan does: what is whole takes its state once more, what is not is registered once more.
        if found.ready:
            mended = stand.cloud.change_state(found, found.marker)
        else:
            mended = register(stand, desired_image(), store, state=image.marker.state)
        assert mended.marker == image.marker
        assert mended.cloud_identifier == image.cloud_identifier
        assert mended == described(stand.cloud, image)
        assert mended.ready
        assert mended.drift is None
        return mended

    def test_an_available_image_that_was_hidden_by_hand_is_listed_again(
        self, stand: DriftingCloud, store: Path
    ) -> None:
        image = register(stand, desired_image(), store)
        stand.unlist_by_hand(image)
        assert stand.is_listed(self._mend(stand, image, store))

    def test_an_available_image_that_was_disabled_by_hand_is_enabled_again(
        self, stand: DriftingCloud, store: Path
    ) -> None:
        image = register(stand, desired_image(), store)
        stand.disable_by_hand(image)
        assert not stand.can_start(image)
        assert stand.can_start(self._mend(stand, image, store))

    @pytest.mark.parametrize("state", [ImageState.STAGED, ImageState.SUPERSEDED])
    def test_a_hidden_image_that_was_listed_by_hand_is_hidden_again(
        self, stand: DriftingCloud, store: Path, state: ImageState
    ) -> None:
        image = to_state(stand.cloud, register(stand, desired_image(), store), state)
        stand.list_by_hand(image)
        assert stand.is_listed(image)
        assert not stand.is_listed(self._mend(stand, image, store))

    @pytest.mark.parametrize("state", [ImageState.EXPIRED, ImageState.REVOKED, ImageState.WITHDRAWN])
    def test_a_disabled_image_that_was_enabled_by_hand_is_disabled_again(
        self, stand: DriftingCloud, store: Path, state: ImageState
    ) -> None:
        image = to_state(stand.cloud, register(stand, desired_image(), store), state)
        stand.enable_by_hand(image)
        assert stand.can_start(image)
        found = described(stand.cloud, image)
        assert found.drift
        mended = stand.cloud.change_state(found, found.marker)
        assert mended.marker == image.marker
        assert mended.drift is None
        assert not stand.can_start(mended)
        assert not stand.is_listed(mended)


class UseContract:
    """What runs from an image is seen."""

    @pytest.mark.threat("T37")
    @pytest.mark.parametrize("state", [ImageState.AVAILABLE, ImageState.SUPERSEDED, ImageState.EXPIRED])
    def test_an_image_that_a_machine_runs_from_is_in_use_until_it_ends(
        self, stand: UsedCloud, store: Path, state: ImageState
    ) -> None:
        image = register(stand, desired_image(), store)
        other = register(stand, desired_image("alma"), store)
        stand.use(image)
        if state is not ImageState.AVAILABLE:
            image = to_state(stand.cloud, image, state)
        assert stand.cloud.in_use(image)
        assert not stand.cloud.in_use(other)
        stand.end_use(image)
        assert not stand.cloud.in_use(image)


def _shared(desired: DesiredImage, *members: str, visibility: Visibility = Visibility.SHARED) -> DesiredImage:
    presentation = replace(presentation_of(desired), audience=Audience(visibility=visibility, members=members))
    return replace(desired, presentation=presentation)


def _marker(desired: DesiredImage) -> OwnershipMarker:
    return replace(marker_of(desired), metadata_digest=presentation_digest(presentation_of(desired)))


class AudienceContract:
    """Who may use an image is as it is asked for, no more and no less."""

    def test_an_image_is_shared_with_its_members_alone(self, stand: SharingCloud, store: Path) -> None:
        one, two = stand.members
        image = register(stand, _shared(desired_image(), one), store)
        assert list(stand.shared_with(image)) == [one]
        assert stand.visibility_of(image) is Visibility.SHARED
        other = register(stand, _shared(desired_image("alma"), one, two), store)
        assert list(stand.shared_with(other)) == [one, two]
        assert list(stand.shared_with(image)) == [one]

    def test_members_come_and_go(self, stand: SharingCloud, store: Path) -> None:
        one, two = stand.members
        image = register(stand, _shared(desired_image(), one), store)
        wanted = _shared(desired_image(), two)
        image = stand.cloud.update_metadata(image, _marker(wanted), presentation_of(wanted))
        assert list(stand.shared_with(image)) == [two]
        wanted = _shared(desired_image(), visibility=Visibility.PRIVATE)
        image = stand.cloud.update_metadata(image, _marker(wanted), presentation_of(wanted))
        assert list(stand.shared_with(image)) == []
        assert stand.visibility_of(image) is Visibility.PRIVATE

    def test_a_staged_image_has_its_audience_when_it_is_flipped(self, stand: SharingCloud, store: Path) -> None:
        one, two = stand.members
        staged = register(stand, _shared(desired_image(), one, two), store, state=ImageState.STAGED)
        flipped = to_state(stand.cloud, staged, ImageState.AVAILABLE)
        assert list(stand.shared_with(flipped)) == [one, two]
        assert stand.visibility_of(flipped) is Visibility.SHARED

    def test_registering_twice_shares_once(self, stand: SharingCloud, store: Path) -> None:
        one, _ = stand.members
        wanted = _shared(desired_image(), one)
        first = register(stand, wanted, store)
        assert (
            stand.cloud.register(stand.convert(wanted, store), _marker(wanted), presentation_of(wanted), SILENT)
            == first
        )
        assert list(stand.shared_with(first)) == [one]


class TidyContract:
    """What failed registrations left behind is found and cleared, and nothing else."""

    def test_an_ordinary_cloud_has_no_leftovers(self, stand: TidyingCloud, store: Path) -> None:
        stand.add_foreign("theirs")
        register(stand, desired_image(), store)
        to_state(stand.cloud, register(stand, desired_image("alma"), store), ImageState.EXPIRED)
        assert stand.tidy.leftovers() == ()

    def test_what_is_left_behind_is_found_and_cleared_alone(self, stand: TidyingCloud, store: Path) -> None:
        stand.add_foreign("theirs")
        image = register(stand, desired_image(), store)
        stand.leave_behind()
        found = stand.tidy.leftovers()
        assert len(found) == 1
        assert found[0].cloud == stand.cloud.name
        assert found[0].what
        assert found[0].identifier != image.cloud_identifier
        if found[0].can_be_cleared:
            stand.tidy.clear(found[0])
            stand.tidy.clear(found[0])
            assert stand.tidy.leftovers() == ()
        else:
            with pytest.raises(CloudError):
                stand.tidy.clear(found[0])
        assert stand.cloud.describe() == (image,)
        assert stand.can_start(image)
        assert stand.foreign_is_whole()


class AdoptingContract:
    """Images of other programs are shown, and taken over as they are."""

    def test_what_bears_no_marker_is_shown_and_what_bears_one_is_not(self, stand: AdoptingCloud, store: Path) -> None:
        stand.add_foreign("theirs")
        register(stand, desired_image(), store)
        foreign = stand.adopting.foreign()
        assert [each.name for each in foreign] == ["theirs"]
        assert foreign[0].cloud == stand.cloud.name
        assert foreign[0].ready
        assert stand.adopting.foreign() == foreign

    def test_another_sites_images_are_not_for_adoption(self, stand: AdoptingCloud, store: Path) -> None:
        register_at(stand.of_site("another-site"), stand, desired_image(), store)
        assert stand.adopting.foreign() == ()

    def test_an_adopted_image_is_described_and_listed_and_bears_what_others_wrote(self, stand: AdoptingCloud) -> None:
        stand.add_foreign("theirs")
        (foreign,) = stand.adopting.foreign()
        desired = desired_image()
        marker = replace(marker_of(desired), adopted_from="another program")
        adopted = stand.adopting.adopt(foreign, marker, presentation_of(desired))
        assert adopted.cloud_identifier == foreign.cloud_identifier
        assert adopted.marker == marker
        assert adopted.ready
        assert stand.cloud.describe() == (adopted,)
        assert stand.adopting.foreign() == ()
        assert stand.can_start(adopted)
        assert stand.is_listed(adopted)

    def test_nothing_is_adopted_twice(self, stand: AdoptingCloud) -> None:
        stand.add_foreign("theirs")
        (foreign,) = stand.adopting.foreign()
        desired, other = desired_image(), desired_image("alma")
        adopted = stand.adopting.adopt(foreign, marker_of(desired), presentation_of(desired))
        with pytest.raises(CloudError):
            stand.adopting.adopt(foreign, marker_of(other), presentation_of(other))
        assert stand.cloud.describe() == (adopted,)
