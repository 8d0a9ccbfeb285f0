# SPDX-License-Identifier: Apache-2.0
"""How long what is not available any more is kept, and what becomes of what somebody's hand changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy, Retention
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind
from coppice.testing.desired import NOW, desired_image, desired_list, image_identifier, registered_image

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE)
OLD = NOW - GRACE


def make(registered, *lists, policy=POLICY):
    return plan(Desired(lists=lists), registered, policy, NOW, "test")


def versions(*names, ready=(), state=ImageState.SUPERSEDED):
    broken = set(ready)
    return [
        registered_image(desired_image(version=name), state=state, since=OLD, ready=name not in broken)
        for name in names
    ]


def removed(made):
    return [action.version for action in made.actions if action.kind is ActionKind.REMOVE]


@pytest.mark.parametrize(("keep", "gone"), [(0, ["1", "2", "9", "10"]), (1, ["1", "2", "9"]), (3, ["1"]), (4, [])])
def test_the_newest_superseded_versions_stay_in_any_case(keep: int, gone: list[str]):
    newest = desired_image(version="11")
    registered = [registered_image(newest), *versions("10", "2", "1", "9")]
    made = make(registered, desired_list(newest), policy=replace(POLICY, keep_versions=keep))
    assert sorted(removed(made), key=int) == gone


def test_what_is_broken_expired_withdrawn_or_revoked_is_not_counted_among_the_versions_to_keep():
    newest = desired_image(version="9")
    registered = [
        registered_image(newest),
        *versions("8", ready=("8",)),
        *versions("7", state=ImageState.WITHDRAWN),
        *versions("6", state=ImageState.EXPIRED),
        *versions("5", state=ImageState.REVOKED),
        *versions("4", "3"),
    ]
    made = make(registered, desired_list(newest), policy=replace(POLICY, keep_versions=1))
    assert sorted(removed(made)) == ["3", "5", "6", "7", "8"]


def test_an_image_and_its_vo_can_have_a_grace_and_a_number_of_versions_of_their_own():
    newest = desired_image(version="3")

    def found(vo, **policy):
        registered = [registered_image(newest), *versions("1", "2")]
        registered = [replace(each, marker=replace(each.marker, vo=vo)) for each in registered]
        wanted = desired_list(replace(newest, vo=vo))
        return removed(make(registered, wanted, policy=replace(POLICY, **policy)))

    longer, one = Retention(grace=2 * GRACE), Retention(grace=GRACE, keep_versions=1)
    assert found(None) == ["1", "2"]
    assert found("bio", by_vo={"bio": longer}) == []
    assert found("other", by_vo={"bio": longer}) == ["1", "2"]
    assert found("bio", by_vo={"bio": longer}, by_image={image_identifier("debian"): one}) == ["1"]


def test_the_last_good_version_stays_while_the_newer_is_not_as_it_should_be():
    newest = desired_image(version="2")
    drifted = replace(registered_image(newest), drift="it is not listed")
    made = make([drifted, *versions("1")], desired_list(newest))
    assert [(action.kind, action.state) for action in made.actions] == [(ActionKind.CHANGE_STATE, ImageState.AVAILABLE)]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("state", [state for state in ImageState if state is not ImageState.STAGED])
def test_what_somebodys_hand_changed_is_brought_back_to_its_state(state: ImageState, *, known: bool):
    newest, image = desired_image(version="2"), desired_image(version="1")
    of_version = newest if state is ImageState.AVAILABLE else image
    drifted = replace(registered_image(of_version, state=state), drift="it is another's way")
    registered = [drifted] if state is ImageState.AVAILABLE else [drifted, registered_image(newest)]
    made = make(registered, *([desired_list(newest)] if known else []))
    (action,) = made.actions
    assert (action.kind, action.state, action.registered) == (ActionKind.CHANGE_STATE, state, drifted)
    assert "it is another's way" in action.reason


def test_of_two_that_are_available_the_older_is_not_shown_again_but_superseded_after_the_newer_is():
    old = replace(registered_image(desired_image(version="1")), drift="the pointer leads elsewhere")
    new = replace(registered_image(desired_image(version="2")), drift="it is not listed")
    made = make([old, new], desired_list(desired_image(version="2")))
    assert [(action.version, action.state, action.after) for action in made.actions] == [
        ("2", ImageState.AVAILABLE, ()),
        ("1", ImageState.SUPERSEDED, (0,)),
    ]
    unknown = make([old, replace(new, drift=None)])
    assert unknown.actions == ()


def test_what_is_not_whole_is_registered_anew_with_what_the_cloud_says_of_it():
    half = replace(registered_image(desired_image(), ready=False), problem="it is stuck in saving")
    (action,) = make([half], desired_list(desired_image())).actions
    assert action.kind is ActionKind.REGISTER
    assert "it is stuck in saving" in action.reason


def test_a_version_past_its_own_date_is_no_pin_any_more():
    new = desired_image(version="2")
    pinned = registered_image(desired_image(version="1", expires=NOW), pin="1")
    made = make([pinned], desired_list(new))
    assert [(action.kind, action.version) for action in made.actions] == [
        (ActionKind.REGISTER, "2"),
        (ActionKind.CHANGE_STATE, "1"),
    ]
    assert made.actions[1].state is ImageState.EXPIRED


def test_what_is_pinned_and_hidden_by_hand_is_shown_before_another_version_is_hidden():
    pinned = replace(registered_image(desired_image(version="1"), pin="1"), drift="it is available and not listed")
    other = registered_image(desired_image(version="2"))
    made = make([pinned, other], desired_list(desired_image(version="3")))
    assert [(each.version, each.state, each.after) for each in made.actions] == [
        ("1", ImageState.AVAILABLE, ()),
        ("2", ImageState.SUPERSEDED, (0,)),
    ]
