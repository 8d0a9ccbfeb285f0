# SPDX-License-Identifier: Apache-2.0
"""What an administrator revoked is revoked at once, whatever else is known, and what is built on it as well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy, Revocation, RevokedContent
from coppice.cloud.plan import plan
from coppice.cloud.properties import lineage_of
from coppice.cloud.revocations import Target, plan_taking_back
from coppice.cloud.steps import ActionKind
from coppice.errors import RevokedImageError
from coppice.testing.desired import NOW, content_of, desired_image, desired_list, list_identifier, registered_image

pytestmark = pytest.mark.unit
POLICY = Policy(grace=timedelta(days=7))
OLD = NOW - timedelta(days=8)


def revocation(*, digest=None, key=None, version=None, reason="a door"):
    return Revocation(digest=digest, key=key, version=version, reason=reason, at=NOW)


def of(image, *, version=None):
    return revocation(key=image.key, version=version)


def known_to_hold(revoked, *images, everywhere=True):
    contents = tuple(RevokedContent(digest=each.listed.checksum, everywhere=everywhere) for each in images)
    return replace(revoked, contents=contents)


def make(registered, *lists, revocations=(), unsubscribed=(), policy=POLICY):
    gone = frozenset(list_identifier(name) for name in unsubscribed)
    desired = Desired(lists=lists, revocations=tuple(revocations), unsubscribed=gone)
    return plan(desired, registered, policy, NOW, "test")


def states(made):
    return [(action.kind.value, action.version, str(action.state), action.reason) for action in made.actions]


def built_on(image, *bases):
    return replace(image, built_on=tuple(each.listed.checksum for each in bases))


def registered_on(image, *bases, **changes):
    found = registered_image(image, **changes)
    lineage = lineage_of(each.listed.checksum for each in bases)
    return replace(found, marker=replace(found.marker, built_on=lineage))


@pytest.mark.parametrize("by", ["digest", "key", "version"])
def test_what_is_revoked_is_revoked_first_of_all_and_not_registered_anew(by: str):
    image, other = desired_image(), desired_image("alma")
    revoked = {
        "digest": revocation(digest=image.listed.checksum),
        "key": of(image),
        "version": of(image, version="1.0"),
    }[by]
    image = replace(image, listed=replace(image.listed, version="1-0"))
    made = make([registered_image(image)], desired_list(other, image), revocations=[revoked])
    assert states(made)[0] == ("change-state", "1-0", "revoked", "a door")
    assert [action.kind for action in made.actions[1:]] == [ActionKind.REGISTER]
    assert [type(error) for error in made.refused] == [RevokedImageError]
    assert make([], desired_list(image), revocations=[revoked]).actions == ()


def test_one_version_is_revoked_and_the_others_are_not():
    old, new = desired_image(version="1"), desired_image(version="2")
    both = [registered_image(old, state=ImageState.SUPERSEDED), registered_image(new)]
    made = make(both, desired_list(new), revocations=[of(new, version="2")])
    assert states(made) == [("change-state", "2", "revoked", "a door")]
    made = make(both, desired_list(new), revocations=[of(new, version="1")])
    assert states(made) == [("change-state", "1", "revoked", "a door")]
    assert made.refused == ()


@pytest.mark.parametrize("known", ["unknown", "unsubscribed", "older", "nothing listed"])
def test_a_revocation_holds_whatever_is_known_of_the_list_and_however_much_it_takes(known: str):
    images = [desired_image(name, list_version="2") for name in ("p", "q", "r", "s")]
    lists = {"older": [desired_list(version="1")], "nothing listed": [desired_list(version="2")]}.get(known, [])
    made = make(
        [registered_image(image) for image in images],
        *lists,
        revocations=[of(image) for image in images],
        unsubscribed=("a",) if known == "unsubscribed" else (),
    )
    assert [step[2] for step in states(made)] == ["revoked"] * 4


def test_what_is_built_on_what_is_revoked_is_revoked_over_any_number_of_steps():
    base, middle, top = desired_image("base"), desired_image("middle", of_list="b"), desired_image("top", of_list="c")
    other = desired_image("other", of_list="c")
    registered = [registered_image(base), registered_on(top, middle), registered_image(other)]
    listed = desired_list(built_on(middle, base), name="b")
    made = make(registered, listed, revocations=[revocation(digest=base.listed.checksum)])
    assert sorted(str(action.key) for action in made.actions) == sorted([str(base.key), str(top.key)])
    assert {action.state for action in made.actions} == {ImageState.REVOKED}
    reasons = {str(action.key): action.reason for action in made.actions}
    assert reasons[str(top.key)] == "what it is built on is revoked: a door"
    assert [error.context["image"] for error in made.refused] == [str(middle.key)]


def test_what_was_registered_before_its_list_said_what_it_is_built_on_is_revoked_as_well():
    base, top = desired_image("base", of_list="b"), desired_image("top")
    revoked = [revocation(digest=base.listed.checksum)]
    made = make([registered_image(top)], desired_list(built_on(top, base)), revocations=revoked)
    assert states(made) == [("change-state", "1", "revoked", "what it is built on is revoked: a door")]
    assert len(made.refused) == 1


@pytest.mark.parametrize("state", [ImageState.AVAILABLE, ImageState.SUPERSEDED, ImageState.STAGED])
@pytest.mark.parametrize("drift", [None, "it is another's way"])
def test_a_list_that_says_no_more_what_an_image_is_built_on_takes_no_revocation_back(state, drift):
    base, top = desired_image("base", of_list="b"), desired_image("top")
    registered = [replace(registered_on(top, base, state=state), drift=drift)]
    made = make(registered, desired_list(top), revocations=[revocation(digest=base.listed.checksum)])
    assert [action.state for action in made.actions] == [ImageState.REVOKED]
    assert len(made.refused) == 1


def test_what_lists_say_that_are_not_followed_now_tells_what_is_built_on_what_is_revoked():
    base, top = desired_image("base", of_list="b"), desired_image("top")
    middle = built_on(desired_image("middle", of_list="b"), base)
    desired = Desired(lists=(), revocations=(revocation(digest=base.listed.checksum),))
    registered = [registered_on(top, middle), registered_image(desired_image("other"))]
    assert plan(desired, registered, POLICY, NOW, "test").actions == ()
    made = plan(desired, registered, POLICY, NOW, "test", listed=Desired(lists=(desired_list(middle, name="b"),)))
    assert [(action.key, action.state) for action in made.actions] == [(top.key, ImageState.REVOKED)]


def test_a_lineage_that_bites_its_own_tail_comes_to_an_end():
    one, two = desired_image("one"), desired_image("two")
    listed = desired_list(built_on(one, two), built_on(two, one))
    made = make([], listed, revocations=[of(one)])
    assert made.actions == ()
    assert len(made.refused) == 2


def test_a_marker_that_says_revoked_holds_although_the_database_was_lost():
    image = desired_image()
    revoked = registered_image(image, state=ImageState.REVOKED, since=OLD)
    made = make([revoked], desired_list(image))
    assert made.actions == ()
    assert [type(error) for error in made.refused] == [RevokedImageError]


def test_a_revoked_image_is_removed_after_its_grace_when_it_is_not_listed_any_more():
    image = desired_image()
    revoked = registered_image(image, state=ImageState.REVOKED, since=OLD)
    kept = [registered_image(desired_image(name)) for name in ("p", "q")]
    made = make([revoked, *kept], desired_list(*(desired_image(name) for name in ("p", "q"))), revocations=[of(image)])
    assert [action.kind for action in made.actions] == [ActionKind.REMOVE]
    young = registered_image(image, state=ImageState.REVOKED)
    assert make([young], revocations=[of(image)]).actions == ()


def test_the_last_good_version_before_a_revoked_one_is_kept():
    old, new = desired_image(version="1"), desired_image(version="2")
    hidden = registered_image(old, state=ImageState.SUPERSEDED, since=OLD)
    revoked = registered_image(new, state=ImageState.REVOKED, since=OLD)
    assert make([hidden, revoked], desired_list(new), revocations=[of(new, version="2")]).actions == ()


def test_a_pin_on_what_is_revoked_counts_no_more():
    old, new = desired_image(version="1"), desired_image(version="2")
    pinned = registered_image(old, pin="1")
    hidden = registered_image(new, state=ImageState.SUPERSEDED)
    made = make([pinned, hidden], desired_list(new), revocations=[of(old, version="1")])
    assert states(made) == [
        ("change-state", "1", "revoked", "a door"),
        ("change-state", "2", "available", "it was superseded and is listed"),
    ]


def test_what_cannot_be_started_anyhow_is_not_changed_by_a_revocation_and_does_not_come_back():
    image = desired_image()
    withdrawn = registered_image(image, state=ImageState.WITHDRAWN)
    made = make([withdrawn], desired_list(image), revocations=[of(image)])
    assert made.actions == ()
    assert len(made.refused) == 1


def taken_back(registered, target, *remaining):
    return plan_taking_back(registered, target, remaining, NOW, "test")


def test_a_revocation_that_is_taken_back_lets_go_of_what_is_revoked_by_nothing_else():
    base, top, other = desired_image("base"), desired_image("top"), desired_image("other")
    registered = [
        registered_image(base, state=ImageState.REVOKED),
        registered_on(top, base, state=ImageState.REVOKED),
        registered_image(other, state=ImageState.REVOKED),
    ]
    target = Target(digest=base.listed.checksum)
    made = taken_back(registered, target)
    assert {str(action.key) for action in made.actions} == {str(base.key), str(top.key)}
    assert {action.state for action in made.actions} == {ImageState.WITHDRAWN}
    made = taken_back(registered, target, of(top))
    assert {str(action.key) for action in made.actions} == {str(base.key)}


def test_what_is_built_on_what_this_cloud_never_had_is_let_go_too_when_that_is_taken_back():
    base, top = desired_image("base", of_list="b"), desired_image("top")
    registered = [registered_on(top, base, state=ImageState.REVOKED)]
    target, listed = Target(key=base.key, version="1"), Desired(lists=(desired_list(base, name="b"),))
    made = plan_taking_back(registered, target, (), NOW, "test", listed=listed)
    assert [(action.key, action.state) for action in made.actions] == [(top.key, ImageState.WITHDRAWN)]
    remaining = (known_to_hold(of(base), base),)
    assert plan_taking_back(registered, target, remaining, NOW, "test", listed=listed).actions == ()


def test_what_a_revoked_version_is_known_to_hold_is_let_go_with_it_and_revokes_nothing_of_other_names():
    base, top, other = desired_image("base", of_list="b"), desired_image("top"), desired_image("base", of_list="d")
    kept = known_to_hold(of(base, version="1"), base)
    made = make([registered_on(top, base), registered_image(other)], revocations=[kept])
    assert [(action.key, action.state) for action in made.actions] == [(top.key, ImageState.REVOKED)]
    revoked, target = [registered_on(top, base, state=ImageState.REVOKED)], Target(key=base.key, version="1")
    made = plan_taking_back(revoked, target, (), NOW, "test", taken=(kept,))
    assert [action.state for action in made.actions] == [ImageState.WITHDRAWN]


def test_what_was_revoked_and_is_listed_becomes_available_after_its_revocation_was_taken_back():
    image = desired_image()
    withdrawn = registered_image(image, state=ImageState.WITHDRAWN)
    made = make([withdrawn], desired_list(image))
    assert [action.state for action in made.actions] == [ImageState.AVAILABLE]


def test_the_order_in_which_a_cloud_says_what_it_has_does_not_matter_to_what_is_revoked():
    there = [registered_image(desired_image(name)) for name in ("a", "b", "c")]
    everything = [of(desired_image(name)) for name in ("a", "b", "c")]
    assert make(there, revocations=everything) == make(there[::-1], revocations=everything)


def test_a_list_cannot_have_what_others_build_on_revoked_by_what_it_says_of_the_same_content():
    bad, base = desired_image("bad", of_list="hostile"), desired_image("base")
    built = registered_on(desired_image("built"), base)
    claimed = built_on(desired_image("claimed", of_list="hostile", content=content_of("base", "1")), bad)
    assert claimed.listed.checksum == base.listed.checksum
    made = make(
        [registered_image(base), built],
        desired_list(base, built_on(desired_image("built"), base)),
        desired_list(claimed, name="hostile"),
        revocations=[revocation(digest=bad.listed.checksum)],
    )
    assert made.actions == ()
    assert len(made.refused) == 1


def hostile_world():
    """A good base with what two lists build on it; and a hostile image that is revoked by its name."""
    base, evil = desired_image("base"), desired_image("evil", of_list="hostile")
    alike = desired_image("evil", version="2", of_list="hostile", content=content_of("base", "1"))
    assert alike.listed.checksum == base.listed.checksum
    own, others = desired_image("own"), desired_image("others", of_list="c")
    registered = [registered_image(base), registered_on(own, base), registered_on(others, base)]
    lists = (desired_list(base, built_on(own, base)), desired_list(built_on(others, base), name="c"))
    return base, evil, alike, registered, lists


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("by", ["key", "version"])
def test_an_image_that_is_revoked_by_its_name_has_no_other_list_s_images_revoked_by_what_it_holds_later(by, is_kept):
    base, evil, alike, registered, lists = hostile_world()
    mine = desired_image("mine", of_list="hostile")
    revoked = of(evil, version="2" if by == "version" else None)
    revoked = known_to_hold(revoked, base, everywhere=False) if is_kept else revoked
    hostile = desired_list(alike, built_on(mine, alike), name="hostile")
    made = make([*registered, registered_on(mine, alike)], *lists, hostile, revocations=[revoked])
    assert [(action.key, action.state) for action in made.actions] == [(mine.key, ImageState.REVOKED)]
    assert {error.context["image"] for error in made.refused} == {str(alike.key), str(mine.key)}


def test_what_a_list_builds_on_what_it_names_late_reaches_no_other_list_over_more_steps():
    base, evil, alike, registered, lists = hostile_world()
    # It names what another list built on the base, and agrees on that.
    own = desired_image("own")
    again = desired_image("again", of_list="hostile", content=content_of("own", "1"))
    assert again.listed.checksum == own.listed.checksum
    top = registered_on(desired_image("top", of_list="d"), own)
    hostile = desired_list(alike, built_on(again, base), name="hostile")
    made = make([*registered, top], *lists, hostile, revocations=[of(evil)])
    assert made.actions == ()
    # Nor does what it alone says of a base.
    bad = desired_image("bad", of_list="hostile")
    claimed = built_on(replace(alike, key=desired_image("claimed", of_list="hostile").key), bad)
    hostile = desired_list(claimed, built_on(again, base), name="hostile")
    made = make([*registered, top], *lists, hostile, revocations=[revocation(digest=bad.listed.checksum)])
    assert made.actions == ()


@pytest.mark.parametrize("known", ["kept", "registered then", "registered and revoked"])
def test_what_an_image_held_when_it_was_revoked_by_its_name_is_revoked_in_every_list(known):
    base = desired_image("base")
    built = [registered_on(desired_image(name, of_list=name), base) for name in ("b", "c")]
    # What a list says of it afterwards does not free it.
    claimed = built_on(desired_image("x", of_list="hostile", content=content_of("base", "1")), desired_image("y"))
    there = {
        "kept": [],
        "registered then": [registered_image(base, since=OLD)],
        "registered and revoked": [registered_image(base, state=ImageState.REVOKED, since=NOW + timedelta(hours=1))],
    }[known]
    revoked = known_to_hold(of(base), base) if known == "kept" else of(base)
    made = make([*built, *there], desired_list(claimed, name="hostile"), revocations=[revoked])
    changed = [action for action in made.actions if action.kind is ActionKind.CHANGE_STATE and action.key != base.key]
    found = {(action.key.list_identifier, action.state) for action in changed}
    assert found == {(each.marker.key.list_identifier, ImageState.REVOKED) for each in built}


def test_what_each_list_that_names_it_says_to_be_built_on_what_is_revoked_is_revoked_for_all():
    base, other = desired_image("base"), desired_image("other")
    middle = desired_image("middle", of_list="b")
    mirrored = desired_image("copy", of_list="c", content=content_of("middle", "1"))
    assert mirrored.listed.checksum == middle.listed.checksum
    top = registered_on(desired_image("top", of_list="d"), middle)
    lists = (
        desired_list(built_on(middle, base), name="b"),
        desired_list(built_on(mirrored, base, other), name="c"),
    )
    made = make([top], *lists, revocations=[revocation(digest=base.listed.checksum)])
    assert [action.state for action in made.actions] == [ImageState.REVOKED]
