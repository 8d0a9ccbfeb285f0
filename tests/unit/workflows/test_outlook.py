# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy, Revocation
from coppice.testing.desired import (
    LATER,
    NOW,
    desired_image,
    desired_list,
    image_identifier,
    list_identifier,
    registered_image,
)
from coppice.workflows.outlook import NextStep, Standing, outlook

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE)
DAY = timedelta(days=1)


def one(desired, registered, *, policy=POLICY, now=NOW):
    (found,) = outlook("main", desired, registered, policy, now)
    return found


def wanted(*images, **said):
    return Desired(lists=(desired_list(*images, **said),))


def told(step):
    return None if step is None else (step.what, step.version, step.at, step.held)


def test_what_is_registered_as_listed_is_current_until_its_endorsement_ends():
    image = desired_image("debian", "2")
    found = one(wanted(image), [registered_image(image, since=NOW - 3 * DAY)])
    assert (found.standing, found.listed, found.registered) == (Standing.CURRENT, "2", "2")
    assert (found.state, found.since, found.expires) == (ImageState.AVAILABLE, NOW - 3 * DAY, LATER)
    assert told(found.next_step) == ("expired", "2", LATER, False)


def test_what_is_listed_and_not_there_is_missing_and_registered_with_the_next_run():
    found = one(wanted(desired_image("debian", "2")), [])
    assert (found.standing, found.registered, found.state) == (Standing.MISSING, None, None)
    assert told(found.next_step) == ("register", "2", None, False)


def test_an_unfinished_registration_is_missing():
    image = desired_image("debian", "2")
    found = one(wanted(image), [registered_image(image, ready=False)])
    assert found.standing is Standing.MISSING
    assert told(found.next_step)[:3] == ("register", "2", None)


def test_what_has_a_newer_version_listed_is_behind():
    old, new = desired_image("debian", "1"), desired_image("debian", "2")
    found = one(wanted(new), [registered_image(old)])
    assert (found.standing, found.listed, found.registered) == (Standing.BEHIND, "2", "1")
    assert told(found.next_step) == ("register", "2", None, False)


def test_a_superseded_version_goes_when_its_grace_is_over():
    old, new = desired_image("debian", "1"), desired_image("debian", "2")
    gone = registered_image(old, state=ImageState.SUPERSEDED, since=NOW - 2 * DAY)
    found = one(wanted(new), [gone, registered_image(new)])
    assert found.standing is Standing.CURRENT
    assert told(found.next_step) == ("remove", "1", NOW - 2 * DAY + GRACE, False)
    assert [each.marker.version for each in found.versions] == ["2", "1"]


def test_what_is_pinned_says_so():
    old, new = desired_image("debian", "1"), desired_image("debian", "2")
    found = one(wanted(new), [registered_image(old, pin="1"), registered_image(new, state=ImageState.SUPERSEDED)])
    assert (found.standing, found.registered) == (Standing.PINNED, "1")


def test_what_no_list_names_any_more_is_leaving():
    image = desired_image("debian", "1")
    gone = registered_image(image, state=ImageState.WITHDRAWN, since=NOW - 8 * DAY)
    rest = desired_image("alma", "1")
    second, first = outlook("main", wanted(rest), [gone, registered_image(rest)], POLICY, NOW)
    assert (first.standing, second.standing) == (Standing.CURRENT, Standing.LEAVING)
    assert told(second.next_step) == ("remove", "1", None, False)
    assert second.title == gone.name


def test_what_has_ended_is_leaving():
    image = desired_image("debian", "1")
    found = one(wanted(image), [registered_image(image)], now=LATER)
    assert found.standing is Standing.LEAVING
    assert told(found.next_step) == ("expired", "1", None, False)


def test_what_nothing_is_known_of_stays_until_its_own_date():
    image = desired_image("debian", "1")
    for desired in (Desired(lists=()), Desired(lists=(desired_list(unknown=("debian",)),))):
        found = one(desired, [registered_image(image)])
        assert (found.standing, found.listed) == (Standing.UNKNOWN, None)
        assert told(found.next_step) == ("expired", "1", LATER, False)


def test_what_is_not_followed_any_more_is_leaving():
    image = desired_image("debian", "1")
    desired = Desired(lists=(), unsubscribed=frozenset({list_identifier("a")}))
    found = one(desired, [registered_image(image)])
    assert found.standing is Standing.LEAVING
    assert told(found.next_step) == ("withdrawn", "1", None, False)


def test_what_is_held_says_that_it_waits_for_somebody():
    images = [desired_image(name) for name in ("alma", "debian", "ubuntu")]
    found = outlook("main", wanted(images[0]), [registered_image(each) for each in images], POLICY, NOW)
    assert [told(each.next_step)[3] for each in found if each.standing is Standing.LEAVING] == [True, True]


def test_of_a_cloud_that_was_never_asked_nothing_is_known():
    found = one(wanted(desired_image("debian", "2")), None)
    assert (found.standing, found.listed, found.registered, found.next_step) == (Standing.UNSEEN, "2", None, None)


def test_what_is_kept_for_its_vo_stays_longer():
    old, new = desired_image("debian", "1"), desired_image("debian", "2")
    gone = registered_image(old, state=ImageState.SUPERSEDED, since=NOW - 8 * DAY)
    kept = replace(POLICY, keep_versions=1)
    assert told(one(wanted(new), [gone, registered_image(new)]).next_step)[0] == "remove"
    assert told(one(wanted(new), [gone, registered_image(new)], policy=kept).next_step) == (
        "expired",
        "1",
        LATER,
        False,
    )


def test_appliances_are_in_the_order_of_their_titles_and_every_one_is_told_of_once():
    images = [desired_image(name, title=title) for name, title in (("a", "zeta"), ("b", "Alpha"), ("c", "beta"))]
    there = [registered_image(images[0]), registered_image(desired_image("a", "0"), state=ImageState.SUPERSEDED)]
    found = outlook("main", wanted(*images), there, POLICY, NOW)
    assert [each.title for each in found] == ["Alpha", "beta", "zeta"]
    assert found[2].key.image_identifier == image_identifier("a")
    assert isinstance(found[0].next_step, NextStep)


def test_what_is_revoked_says_so_whether_an_earlier_version_is_there_or_not():
    old, new = desired_image("debian", "1"), desired_image("debian", "2")
    said = Revocation(digest=new.listed.checksum, key=None, version=None, reason="a hole", at=NOW)
    desired = replace(wanted(new), revocations=(said,))
    found = one(desired, [])
    assert (found.standing, found.registered, found.next_step) == (Standing.REVOKED, None, None)
    found = one(desired, [registered_image(old)])
    assert (found.standing, found.registered) == (Standing.REVOKED, "1")
    found = one(desired, [registered_image(new)])
    assert (found.standing, told(found.next_step)) == (Standing.REVOKED, ("revoked", "2", None, False))


def test_what_is_revoked_by_what_another_list_says_is_not_said_to_be_registered_later():
    base, middle = desired_image("base", of_list="b"), desired_image("middle", of_list="b")
    middle = replace(middle, built_on=(base.listed.checksum,))
    top = replace(desired_image("top", "2"), built_on=(middle.listed.checksum,))
    earlier = registered_image(desired_image("top", "1", expires=NOW + DAY))
    revocation = Revocation(digest=base.listed.checksum, key=None, version=None, reason="a door", at=NOW)
    desired = Desired(lists=(desired_list(middle, name="b"), desired_list(top)), revocations=(revocation,))
    found = next(each for each in outlook("main", desired, [earlier], POLICY, NOW) if each.key == top.key)
    assert found.standing is Standing.REVOKED
    assert told(found.next_step) == ("expired", "1", NOW + DAY, False)
