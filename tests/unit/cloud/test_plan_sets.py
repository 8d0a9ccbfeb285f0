# SPDX-License-Identifier: Apache-2.0
"""The images of a set are made available together, gone back to together, and end together, or stay as they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy, Revocation
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind
from coppice.errors import IncompleteSetError
from coppice.testing.desired import NOW, desired_image, desired_list, registered_image

pytestmark = pytest.mark.unit
POLICY = Policy(grace=timedelta(days=7))
PARTS = ("database", "portal", "worker")
SET = "a-set"


def part(name, version, *, release, list_version="1", **changes):
    image = desired_image(name, version, list_version=list_version, **changes)
    return replace(image, set_identifier=SET, set_version=release)


def there(name, version, *, release, state=ImageState.AVAILABLE, ready=True, **changes):
    image = registered_image(
        part(name, version, release=release, **changes), state=state, ready=ready, since=NOW - timedelta(days=1)
    )
    marker = replace(image.marker, set_identifier=SET, set_version=release)
    return replace(image, marker=marker)


def make(registered, *wanted, version="1", revocations=()):
    desired = Desired(lists=(desired_list(*wanted, version=version),), revocations=revocations)
    return plan(desired, registered, POLICY, NOW, "test")


def told(made):
    return [
        (action.kind.value, action.version, str(action.state) if action.state else None, action.after)
        for action in made.actions
    ]


def test_all_parts_are_registered_before_any_is_listed():
    made = make([], *(part(name, "1", release="1") for name in PARTS))
    assert [action.state for action in made.actions] == [ImageState.STAGED] * 3 + [ImageState.AVAILABLE] * 3
    flips = made.actions[3:]
    assert {action.kind for action in flips} == {ActionKind.CHANGE_STATE}
    assert all(action.registered is None and action.desired is not None for action in flips)
    assert len({action.together for action in flips}) == 1
    assert flips[0].together
    assert all(made.actions[action.after[0]].key == action.key for action in flips)


def test_what_a_set_takes_the_place_of_is_hidden_after_the_flip():
    old = [there(name, "1", release="1") for name in PARTS]
    made = make(old, *(part(name, "2", release="2", list_version="2") for name in PARTS), version="2")
    hides = [action for action in made.actions if action.state is ImageState.SUPERSEDED]
    assert len(hides) == 3
    for hide in hides:
        (flip,) = (made.actions[position] for position in hide.after)
        assert flip.key == hide.key
        assert flip.state is ImageState.AVAILABLE
        assert flip.together is not None


def test_a_part_that_is_staged_already_waits_for_the_others_and_is_flipped_with_them():
    staged = there("database", "1", release="1", state=ImageState.STAGED)
    made = make([staged], *(part(name, "1", release="1") for name in PARTS))
    flips = [action for action in made.actions if action.state is ImageState.AVAILABLE]
    assert len(flips) == 3
    assert {action.together for action in flips} == {flips[0].together}
    assert [action.registered for action in flips].count(staged) == 1


def test_a_part_that_did_not_change_is_left_alone_and_one_that_did_is_listed_in_one_step():
    old = [there(name, "1", release="1") for name in PARTS]
    wanted = [part("database", "2", release="2"), *(part(name, "1", release="2") for name in PARTS[1:])]
    made = make(old, *wanted)
    assert told(made) == [
        ("register", "2", "available", ()),
        ("update-metadata", "1", None, ()),
        ("update-metadata", "1", None, ()),
        ("change-state", "1", "superseded", (0,)),
    ]


@pytest.mark.parametrize("problem", ["its list names 2 of its 3 images", "an entry of its list cannot be read"])
def test_a_set_that_is_not_whole_is_held_and_what_is_there_stays(problem: str):
    old = [there(name, "1", release="1") for name in PARTS]
    wanted = [replace(part(name, "2", release="2"), set_problem=problem) for name in PARTS[:2]]
    made = make(old, *wanted, part("worker", "1", release="1"))
    assert [action.state for action in made.actions if action.state is not None] == []
    errors = {id(held.error): held.error for held in made.held}
    assert [type(error) for error in errors.values()] == [IncompleteSetError]
    assert problem in next(iter(errors.values())).message
    assert {held.action.kind for held in made.held} == {ActionKind.REGISTER}


def test_parts_of_different_releases_are_held():
    made = make([], part("database", "2", release="2"), part("portal", "1", release="1"))
    assert made.actions == ()
    assert all(isinstance(held.error, IncompleteSetError) for held in made.held)
    assert len(made.held) == 2


def test_a_set_that_is_available_as_it_is_listed_is_not_held_for_what_its_list_lacks():
    old = [there(name, "1", release="1") for name in PARTS]
    wanted = [replace(part(name, "1", release="1"), set_problem="its list names 3 of its 4 images") for name in PARTS]
    made = make(old, *wanted)
    assert made.actions == ()
    assert made.held == ()


def test_a_set_with_a_revoked_part_is_held_and_the_revoked_part_is_revoked():
    wanted = [part(name, "1", release="1") for name in PARTS]
    revocation = Revocation(digest=wanted[0].listed.checksum, key=None, version=None, reason="a door", at=NOW)
    made = make([there("database", "1", release="1")], *wanted, revocations=(revocation,))
    assert [(action.kind, action.state) for action in made.actions] == [(ActionKind.CHANGE_STATE, ImageState.REVOKED)]
    assert {held.error.code for held in made.held} == {"plan-incomplete-set"}


def test_a_part_with_other_content_holds_the_whole_set():
    old = [there("database", "2", release="2", content=b"other")]
    made = make(old, *(part(name, "2", release="2") for name in PARTS))
    assert made.actions == ()
    assert {held.error.code for held in made.held} == {"plan-incomplete-set"}


def test_a_set_goes_back_to_its_earlier_release_as_a_whole():
    registered = [
        image
        for name in PARTS
        for image in (
            there(name, "1", release="1", state=ImageState.SUPERSEDED),
            there(name, "2", release="2"),
        )
    ]
    made = make(registered, *(part(name, "1", release="3", list_version="3") for name in PARTS), version="3")
    flips = [action for action in made.actions if action.state is ImageState.AVAILABLE]
    gone = [action for action in made.actions if action.state is ImageState.WITHDRAWN]
    assert len(flips) == len(gone) == 3
    assert len({action.together for action in flips}) == 1
    assert all(made.actions[action.after[0]] in flips for action in gone)


@pytest.mark.parametrize("lists", ["known", "unknown"])
def test_a_part_that_is_staged_waits_for_the_others_for_longer_than_the_grace_period(lists: str):
    staged = there("database", "2", release="2", state=ImageState.STAGED)
    registered = [staged, there("database", "1", release="1")]
    wanted = [replace(part(name, "2", release="2"), set_problem="an entry cannot be read") for name in PARTS]
    desired = Desired(lists=(desired_list(*wanted),) if lists == "known" else ())
    made = plan(desired, registered, POLICY, NOW + timedelta(days=8), "test")
    assert made.actions == ()


def test_a_staged_part_of_a_release_that_was_never_listed_is_withdrawn():
    registered = [there(name, "1", release="1") for name in PARTS]
    registered.append(there("database", "2", release="2", state=ImageState.STAGED))
    made = make(registered, *(part(name, "3", release="3") for name in PARTS))
    withdrawn = [action for action in made.actions if action.state is ImageState.WITHDRAWN]
    assert [action.version for action in withdrawn] == ["2"]
    assert made.actions[withdrawn[0].after[0]].state is ImageState.AVAILABLE


def test_while_one_part_is_pinned_the_others_wait_as_well():
    registered = []
    for name in PARTS:
        old = there(name, "1", release="1")
        registered.append(replace(old, marker=replace(old.marker, pin="1")) if name == "portal" else old)
    made = make(registered, *(part(name, "2", release="2") for name in PARTS))
    assert made.actions == ()
    assert made.held == ()


def test_a_part_whose_pinned_version_somebody_deleted_is_made_available_as_it_is_listed():
    registered = []
    for name in PARTS:
        old = there(name, "1", release="1")
        old = replace(old, marker=replace(old.marker, pin="1"))
        registered += [old, there(name, "2", release="2", state=ImageState.SUPERSEDED)]
    del registered[2]
    made = make(registered, *(part(name, "2", release="2") for name in PARTS))
    assert [(each.version, each.state, each.registered) for each in made.actions] == [
        ("2", ImageState.AVAILABLE, registered[2])
    ]


def test_a_part_of_a_pinned_set_of_which_all_was_deleted_is_registered_as_it_is_listed():
    registered = []
    for name in PARTS[1:]:
        old = there(name, "1", release="1")
        registered.append(replace(old, marker=replace(old.marker, pin="1")))
    wanted = [part(name, "2", release="2") for name in PARTS]
    made = make(registered, *wanted)
    assert [(each.kind, each.desired, each.state) for each in made.actions] == [
        (ActionKind.REGISTER, wanted[0], ImageState.AVAILABLE)
    ]


def test_the_parts_of_a_set_that_is_not_whole_end_by_their_dates_all_the_same():
    old = [there(name, "1", release="1", expires=NOW) for name in PARTS]
    wanted = [replace(part(name, "2", release="2"), set_problem="not whole") for name in PARTS]
    made = make(old, *wanted)
    assert [action.state for action in made.actions] == [ImageState.EXPIRED] * 3


def test_the_work_of_a_large_set_grows_in_step_with_its_images():
    def dependencies(count: int) -> int:
        made = make([], *(part(f"image{number}", "1", release="1") for number in range(count)))
        assert len(made.actions) == 2 * count
        return sum(len(action.after) for action in made.actions)

    assert dependencies(400) == 400


def gone_back_to(release, *others):
    """A set that was gone back to ``release``; its other releases are superseded."""
    registered = []
    for name in PARTS:
        old = there(name, release, release=release)
        registered.append(replace(old, marker=replace(old.marker, pin=release)))
        registered += [there(name, other, release=other, state=ImageState.SUPERSEDED) for other in others]
    return registered


def revoked_of(*versions, name=PARTS[0]):
    return tuple(
        Revocation(digest=None, key=desired_image(name).key, version=each, reason="a door", at=NOW) for each in versions
    )


def after(registered, made):
    """Return what users find of each part when all of a plan is done; and what bears a pin and is not revoked."""
    found = {each.cloud_identifier: (each.marker.version, each.marker.state, each.marker.pin) for each in registered}
    for action in made.actions:
        if action.registered is not None and action.kind is ActionKind.CHANGE_STATE:
            version, _, pin = found[action.registered.cloud_identifier]
            pin = pin if action.pin is None else action.pin or None
            found[action.registered.cloud_identifier] = (version, action.state, pin)
    shown = sorted(version for version, state, _ in found.values() if state is ImageState.AVAILABLE)
    pins = {version for version, state, pin in found.values() if pin and state is not ImageState.REVOKED}
    return shown, pins


def test_a_set_that_was_gone_back_to_leaves_that_release_as_a_whole_when_a_part_of_it_is_revoked():
    registered, wanted = gone_back_to("1", "2"), [part(name, "2", release="2") for name in PARTS]
    made = make(registered, *wanted, revocations=revoked_of("1"))
    assert after(registered, made) == (["2"] * 3, set())
    flips = [action for action in made.actions if action.state is ImageState.AVAILABLE]
    assert len({action.together for action in flips} - {None}) == 1
    assert made.held == ()


def test_a_newer_release_that_waited_is_registered_when_a_part_of_what_was_gone_back_to_is_revoked():
    made = make(gone_back_to("1"), *(part(name, "2", release="2") for name in PARTS), revocations=revoked_of("1"))
    assert [action.kind for action in made.actions].count(ActionKind.REGISTER) == 3
    # The older parts are hidden, and follow their list again, when the new ones are listed.
    hidden = [action for action in made.actions if action.state is ImageState.SUPERSEDED]
    assert [(action.pin, bool(action.after)) for action in hidden] == [("", True)] * 2


@pytest.mark.parametrize("done", range(3))
def test_leaving_a_release_that_was_interrupted_goes_on_where_it_was(done: int):
    registered = gone_back_to("1", "2")
    registered[0] = replace(registered[0], marker=replace(registered[0].marker, state=ImageState.REVOKED))
    for place in range(done):
        old, new = registered[2 * place], registered[2 * place + 1]
        if place:
            marker = replace(old.marker, state=ImageState.SUPERSEDED, pin=None)
            registered[2 * place] = replace(old, marker=marker)
        registered[2 * place + 1] = replace(new, marker=replace(new.marker, state=ImageState.AVAILABLE))
    made = make(registered, *(part(name, "2", release="2") for name in PARTS), revocations=revoked_of("1"))
    assert after(registered, made) == (["2"] * 3, set())


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_part_that_is_the_same_in_both_releases_is_fixed_no_more(*, is_confirmed: bool):
    registered = gone_back_to("1", "2")
    del registered[-1]
    if is_confirmed:
        registered[-1] = replace(registered[-1], marker=replace(registered[-1].marker, set_version="2"))
    wanted = [part(name, "1" if name == PARTS[-1] else "2", release="2") for name in PARTS]
    made = make(registered, *wanted, revocations=revoked_of("1"))
    # What is to be described anew is so first: nothing is changed in two ways at once.
    assert after(registered, made) == (["1", "2", "2"], set() if is_confirmed else {"1"})


def test_where_the_listed_release_is_revoked_too_a_set_goes_to_the_newest_that_is_not():
    registered, wanted = gone_back_to("2", "1", "0", "3"), [part(name, "3", release="3") for name in PARTS]
    revocations = (*revoked_of("2"), *revoked_of("3", name=PARTS[1]))
    made = make(registered, *wanted, revocations=revocations)
    assert after(registered, made) == (["1"] * 3, set())
    assert {held.error.code for held in made.held} == {"plan-incomplete-set"}


def test_where_each_release_of_a_set_has_a_part_that_is_revoked_what_is_not_stays_as_it_is_and_that_is_told():
    registered, wanted = gone_back_to("1", "2"), [part(name, "2", release="2") for name in PARTS]
    made = make(registered, *wanted, revocations=revoked_of("1", "2"))
    assert {action.state for action in made.actions} == {ImageState.REVOKED}
    assert after(registered, made) == (["1", "1"], {"1"})
    assert ["there is no release of which none is" in held.error.message for held in made.held] == [True]
    # A newer release takes its place when it comes.
    made = make(registered, *(part(name, "3", release="3") for name in PARTS), revocations=revoked_of("1", "2"))
    assert [action.kind for action in made.actions].count(ActionKind.REGISTER) == 3
