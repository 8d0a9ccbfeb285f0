# SPDX-License-Identifier: Apache-2.0
"""Going back to an earlier version, and forward again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import ImageState
from coppice.cloud.pins import plan_release, plan_rollback
from coppice.errors import NotFoundError, PlanError
from coppice.testing.desired import NOW, desired_image, registered_image

pytestmark = pytest.mark.unit
KEY = desired_image().key


def version(number, state=ImageState.SUPERSEDED, *, name="debian", release=None, pin=None, **changes):
    image = registered_image(desired_image(name, number), state=state, pin=pin)
    marker = image.marker
    if release is not None:
        marker = replace(marker, set_identifier="a-set", set_version=release)
    return replace(image, marker=marker, **changes)


def told(made):
    return [(action.version, action.state, action.pin, action.after) for action in made.actions]


def back(registered, to, **options):
    return plan_rollback(registered, KEY, to, NOW, "test", **options)


def test_the_older_version_is_listed_and_pinned_before_the_newer_is_hidden():
    made = back([version("1"), version("2", ImageState.AVAILABLE)], "1")
    assert told(made) == [("1", ImageState.AVAILABLE, "1", ()), ("2", ImageState.SUPERSEDED, None, (0,))]


def test_going_back_where_one_is_already_changes_nothing():
    assert back([version("1", ImageState.AVAILABLE, pin="1"), version("2")], "1").actions == ()


def test_the_version_that_is_available_can_be_fixed():
    made = back([version("1", ImageState.AVAILABLE)], "1")
    assert told(made) == [("1", ImageState.AVAILABLE, "1", ())]


def test_an_earlier_pin_goes_when_another_version_is_gone_back_to():
    registered = [version("1"), version("2", ImageState.AVAILABLE, pin="2"), version("3")]
    assert told(back(registered, "1")) == [("1", ImageState.AVAILABLE, "1", ()), ("2", ImageState.SUPERSEDED, "", (0,))]


@pytest.mark.parametrize("obstacle", ["not whole", "revoked", "expired", "ended"])
def test_what_nothing_may_start_from_is_not_gone_back_to(obstacle: str):
    old = version("1")
    old = {
        "not whole": replace(old, ready=False, problem="ERROR"),
        "revoked": version("1", ImageState.REVOKED),
        "expired": version("1", ImageState.EXPIRED),
        "ended": replace(old, marker=replace(old.marker, expires=NOW)),
    }[obstacle]
    with pytest.raises(PlanError, match="cannot be gone back to"):
        back([old, version("2", ImageState.AVAILABLE)], "1")


def test_a_version_that_a_cloud_does_not_have_is_named_with_those_that_it_has():
    with pytest.raises(NotFoundError) as caught:
        back([version("2", ImageState.AVAILABLE), version("3")], "1")
    assert caught.value.details == "versions that are: 2, 3"


def a_set(*, second_version="2"):
    return [
        version("1", release="1"),
        version("2", ImageState.AVAILABLE, release="2"),
        *([version("1", name="alma", release="1")] if second_version == "2" else []),
        version(second_version, ImageState.AVAILABLE, name="alma", release="2"),
    ]


@pytest.mark.parametrize("second", ["2", "1"])
def test_all_images_of_a_set_go_back_together(second: str):
    made = back(a_set(second_version=second), "1")
    flips = [action for action in made.actions if action.state is ImageState.AVAILABLE]
    assert {(action.version, action.pin) for action in flips} == {("1", "1")}
    assert len({action.key for action in flips}) == 2
    assert len({action.together for action in flips}) == 1


def test_a_set_of_which_a_part_is_not_there_in_that_release_does_not_go_back():
    registered = [each for each in a_set() if each.marker.key == KEY or each.marker.version == "2"]
    registered.append(version("3", name="alma", release="3"))
    with pytest.raises(PlanError, match="a part of set"):
        back(registered, "1")
    made = back(registered, "1", alone=True)
    assert {action.key for action in made.actions} == {KEY}
    assert {action.together for action in made.actions} == {None}


def test_a_release_takes_every_pin_from_the_image_and_its_set_and_leaves_states_as_they_are():
    registered = [
        version("1", ImageState.AVAILABLE, release="1", pin="1"),
        version("1", ImageState.AVAILABLE, name="alma", release="1", pin="1"),
        version("1", ImageState.AVAILABLE, name="other", pin="1"),
        version("2", release="2"),
    ]
    made = plan_release(registered, KEY, NOW, "test")
    assert {(action.key, action.state, action.pin) for action in made.actions} == {
        (registered[0].marker.key, ImageState.AVAILABLE, ""),
        (registered[1].marker.key, ImageState.AVAILABLE, ""),
    }


def test_a_date_that_is_still_to_come_is_no_obstacle():
    old = version("1")
    old = replace(old, marker=replace(old.marker, expires=NOW + timedelta(seconds=1)))
    assert back([old, version("2", ImageState.AVAILABLE)], "1").actions
