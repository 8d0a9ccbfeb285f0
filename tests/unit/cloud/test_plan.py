# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.draft import fingerprint
from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind, Plan
from coppice.errors import ChangedListError, DeletionCapError, OlderListError
from coppice.model.identifiers import ImageKey
from coppice.testing.desired import (
    LATER,
    NOW,
    desired_image,
    desired_list,
    image_identifier,
    list_identifier,
    registered_image,
)

if TYPE_CHECKING:
    from types import FrameType

    from coppice.cloud.model import DesiredList, RegisteredImage

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE)
OLD = NOW - GRACE
Step = tuple[str, str, str | None, int | None]


def key(number: int) -> ImageKey:
    return ImageKey(list_identifier("a"), image_identifier(str(number)))


def make(
    registered: list[RegisteredImage],
    *lists: DesiredList,
    now: datetime = NOW,
    policy: Policy = POLICY,
    unsubscribed: tuple[str, ...] = (),
) -> Plan:
    desired = Desired(lists=lists, unsubscribed=frozenset(list_identifier(name) for name in unsubscribed))
    return plan(desired, registered, policy, now, "test")


def steps(made: Plan) -> list[Step]:
    return [
        (
            action.kind.value,
            action.version,
            action.state.value if action.state else None,
            min(action.after, default=None),
        )
        for action in made.actions
    ]


def test_what_is_listed_and_not_registered_is_registered():
    made = make([], desired_list(desired_image()))
    assert steps(made) == [("register", "1", "available", None)]
    assert made.cloud == "test"
    assert made.made_at == NOW


def test_what_is_registered_as_listed_stays_as_it_is():
    made = make([registered_image(desired_image())], desired_list(desired_image()))
    assert made.actions == ()
    assert made.unchanged == 1


@pytest.mark.threat("T90")
def test_an_older_version_is_superseded_only_after_the_newer_is_registered():
    made = make([registered_image(desired_image(version="1"))], desired_list(desired_image(version="2")))
    assert steps(made) == [("register", "2", "available", None), ("change-state", "1", "superseded", 0)]


def test_versions_are_compared_as_versions():
    made = make([registered_image(desired_image(version="1.9"))], desired_list(desired_image(version="1.10")))
    assert steps(made)[1] == ("change-state", "1.9", "superseded", 0)


def test_a_list_that_goes_back_to_an_older_version_of_an_image_withdraws_the_newer():
    made = make([registered_image(desired_image(version="2"))], desired_list(desired_image(version="1")))
    assert steps(made) == [("register", "1", "available", None), ("change-state", "2", "withdrawn", 0)]


def test_another_description_updates_the_metadata():
    made = make([registered_image(desired_image(title="old"))], desired_list(desired_image(title="new")))
    assert steps(made) == [("update-metadata", "1", None, None)]


def test_a_new_list_version_confirms_the_marker_so_that_the_floor_and_the_dates_hold():
    confirmed = desired_image(list_version="2", expires=LATER + timedelta(days=9))
    made = make([registered_image(desired_image())], desired_list(confirmed, version="2"))
    assert steps(made) == [("update-metadata", "1", None, None)]
    assert make([registered_image(confirmed)], desired_list(confirmed, version="2")).actions == ()


@pytest.mark.threat("T36")
@pytest.mark.parametrize("state", [ImageState.WITHDRAWN, ImageState.EXPIRED, ImageState.SUPERSEDED])
def test_what_is_listed_again_becomes_available_again_and_is_not_removed(state: ImageState):
    registered = registered_image(desired_image(), state=state, since=OLD)
    made = make([registered], desired_list(desired_image()))
    assert steps(made) == [("change-state", "1", "available", None)]
    assert made.actions[0].registered is registered


def test_a_registration_that_did_not_end_is_made_anew():
    half = registered_image(desired_image(), ready=False)
    made = make([half], desired_list(desired_image()))
    assert steps(made) == [("register", "1", "available", None)]
    assert made.actions[0].registered is half


def test_the_older_version_waits_for_a_registration_that_is_made_anew():
    registered = [
        registered_image(desired_image(version="1")),
        registered_image(desired_image(version="2"), ready=False),
    ]
    made = make(registered, desired_list(desired_image(version="2")))
    assert steps(made) == [("register", "2", "available", None), ("change-state", "1", "superseded", 0)]


def test_of_two_registrations_of_one_version_one_stays_available():
    two = [registered_image(desired_image(), cloud_identifier=name) for name in ("x", "y")]
    made = make(two, desired_list(desired_image()))
    assert steps(made) == [("change-state", "1", "superseded", None)]
    assert made.actions[0].registered is two[1]


@pytest.mark.parametrize("listed_in", ["a", "other"])
def test_a_date_that_has_passed_expires_an_image_whether_its_list_is_known_or_not(listed_in: str):
    image = desired_image(expires=NOW)
    made = make([registered_image(image)], desired_list(*([image] if listed_in == "a" else []), name=listed_in))
    assert steps(made) == [("change-state", "1", "expired", None)]


def test_an_image_whose_date_has_passed_is_not_registered():
    assert make([], desired_list(desired_image(expires=NOW))).actions == ()


def test_a_list_whose_date_has_passed_expires_all_that_is_registered_of_it_whatever_the_cap_says():
    names = [f"image{number}" for number in range(5)]
    made = make([registered_image(desired_image(name)) for name in names], desired_list(expires=NOW))
    assert [step[2] for step in steps(made)] == ["expired"] * 5
    assert made.held == ()


def test_one_of_three_that_is_not_listed_any_more_is_withdrawn():
    registered = [registered_image(desired_image(name)) for name in ("x", "y", "z")]
    made = make(registered, desired_list(desired_image("x"), desired_image("y")))
    assert steps(made) == [("change-state", "1", "withdrawn", None)]
    assert made.actions[0].registered is registered[2]
    assert made.unchanged == 2


@pytest.mark.threat("T38")
def test_a_list_that_withdraws_more_than_half_is_held_until_it_is_confirmed():
    registered = [registered_image(desired_image(name)) for name in ("x", "y", "z")]
    wanted = desired_list(desired_image("x"))
    made = make(registered, wanted)
    assert made.actions == ()
    assert len(made.held) == 2
    assert all(isinstance(held.error, DeletionCapError) and held.action is not None for held in made.held)
    assert made.held[0].error is made.held[1].error
    confirmed = make(registered, wanted, policy=replace(POLICY, allow_withdrawals=True))
    assert [step[2] for step in steps(confirmed)] == ["withdrawn"] * 2


def test_below_three_images_the_cap_does_not_count():
    registered = [registered_image(desired_image(name)) for name in ("x", "y")]
    assert make(registered, desired_list(desired_image("x"), version="1")).held == ()


@pytest.mark.threat("T38")
def test_a_list_that_names_no_image_is_held_even_for_one():
    made = make([registered_image(desired_image())], desired_list())
    assert made.actions == ()
    assert isinstance(made.held[0].error, DeletionCapError)


def test_what_a_held_list_would_withdraw_is_not_removed_either():
    old = registered_image(desired_image("x"), state=ImageState.WITHDRAWN, since=OLD)
    others = [registered_image(desired_image(name)) for name in ("p", "q", "r")]
    made = make([old, *others], desired_list(desired_image("p")))
    assert made.actions == ()


@pytest.mark.threat("T44")
def test_an_entry_that_cannot_be_read_leaves_its_image_as_it_is():
    registered = [registered_image(desired_image("x")), registered_image(desired_image("y"))]
    assert make(registered, desired_list(desired_image("x"), unknown=("y",))).actions == ()


@pytest.mark.threat("T35")
def test_a_list_that_is_not_known_leaves_its_images_as_they_are_until_their_dates_say_otherwise():
    image = desired_image()
    assert make([registered_image(image)]).actions == ()
    ended = make([registered_image(image)], now=image.expires)
    assert steps(ended) == [("change-state", "1", "expired", None)]
    expired = registered_image(image, state=ImageState.EXPIRED, since=image.expires)
    assert make([expired], now=image.expires + GRACE - timedelta(seconds=1)).actions == ()
    assert steps(make([expired], now=image.expires + GRACE)) == [("remove", "1", None, None)]


def test_a_list_that_is_not_subscribed_to_any_more_is_withdrawn_without_a_cap():
    registered = [registered_image(desired_image(name)) for name in ("x", "y", "z")]
    made = make(registered, unsubscribed=("a",))
    assert [step[2] for step in steps(made)] == ["withdrawn"] * 3


def test_a_list_older_than_what_is_registered_is_refused_although_the_database_was_lost():
    registered = [registered_image(desired_image(list_version="10"))]
    made = make(registered, desired_list(desired_image(version="0.9"), desired_image("new"), version="9"))
    assert made.actions == ()
    assert [type(held.error) for held in made.held] == [OlderListError]
    assert made.held[0].action is None
    assert made.held[0].list_identifier == list_identifier("a")


def test_one_version_with_other_content_is_held():
    made = make([registered_image(desired_image())], desired_list(desired_image(content=b"other")))
    assert made.actions == ()
    assert isinstance(made.held[0].error, ChangedListError)


def test_a_superseded_version_is_removed_after_the_grace_period():
    new, old = desired_image(version="2"), desired_image(version="1")
    hidden = registered_image(old, state=ImageState.SUPERSEDED, since=OLD + timedelta(seconds=1))
    assert make([registered_image(new), hidden], desired_list(new)).actions == ()
    hidden = registered_image(old, state=ImageState.SUPERSEDED, since=OLD)
    assert steps(make([registered_image(new), hidden], desired_list(new))) == [("remove", "1", None, None)]


@pytest.mark.parametrize("newer", ["absent", "half-made", "expired"])
def test_a_superseded_version_is_kept_while_no_newer_one_is_available(newer: str):
    new, old = desired_image(version="2"), desired_image(version="1")
    hidden = registered_image(old, state=ImageState.SUPERSEDED, since=OLD)
    others = {
        "absent": [],
        "half-made": [registered_image(new, ready=False)],
        "expired": [registered_image(new, state=ImageState.EXPIRED)],
    }[newer]
    made = make([hidden, *others], desired_list(new))
    assert ActionKind.REMOVE not in {action.kind for action in made.actions}


def test_a_version_that_is_about_to_leave_takes_nobodys_place():
    older = registered_image(desired_image(version="1"), state=ImageState.SUPERSEDED, since=OLD)
    leaving = registered_image(desired_image(version="3"))
    made = make([older, leaving], desired_list(desired_image(version="2")))
    assert steps(made) == [("register", "2", "available", None), ("change-state", "3", "withdrawn", 0)]


def test_the_last_version_of_what_is_still_listed_is_kept():
    withdrawn = registered_image(desired_image(version="1"), state=ImageState.WITHDRAWN, since=OLD)
    assert steps(make([withdrawn], desired_list(desired_image(version="2")))) == [("register", "2", "available", None)]


def test_a_pinned_version_stays_available_and_newer_ones_wait():
    new = desired_image(version="2")
    pinned = registered_image(desired_image(version="1"), pin="1")
    hidden = registered_image(new, state=ImageState.SUPERSEDED, since=OLD)
    made = make([pinned, hidden], desired_list(new))
    assert made.actions == ()
    assert make([pinned], desired_list(new)).actions == ()


@pytest.mark.threat("T41")
def test_the_same_identifier_in_two_lists_is_two_images():
    registered = [registered_image(desired_image(of_list="b", version="1"))]
    made = make(
        registered, desired_list(desired_image(version="2")), desired_list(desired_image(of_list="b"), name="b")
    )
    assert [(step[0], step[1]) for step in steps(made)] == [("register", "2")]


def test_registrations_come_first_and_removals_last():
    registered = [
        registered_image(desired_image("a", "1")),
        registered_image(desired_image("b", "1"), state=ImageState.SUPERSEDED, since=OLD),
        registered_image(desired_image("b", "2")),
        registered_image(desired_image("c")),
        registered_image(desired_image("d", title="old")),
    ]
    wanted = desired_list(desired_image("a", "2"), desired_image("b", "2"), desired_image("d"), desired_image("e"))
    kinds = [step[0] if step[2] is None else step[2] for step in steps(make(registered, wanted))]
    assert kinds == ["available", "available", "update-metadata", "superseded", "withdrawn", "remove"]


def test_the_order_in_which_a_cloud_answers_changes_neither_plan_nor_fingerprint():
    registered = [registered_image(desired_image(f"i{number}", str(number % 3))) for number in range(20)]
    wanted = desired_list(*(desired_image(f"i{number}", "2") for number in range(20)))
    first = make(registered, wanted)
    shuffled = random.Random(1).sample(registered, len(registered))  # noqa: S311 - an order, no secret
    assert make(shuffled, wanted) == first


def test_a_fingerprint_tells_any_change():
    image = registered_image(desired_image())
    marker = replace(image.marker, state=ImageState.EXPIRED)
    changes = [replace(image, ready=False), replace(image, cloud_identifier="x"), replace(image, marker=marker)]
    assert len({fingerprint([each]) for each in [image, *changes]} | {fingerprint([])}) == 5


def test_the_work_of_a_plan_grows_in_step_with_the_images():
    def comparisons(count: int) -> int:
        asked = 0

        def watch(frame: FrameType, event: str, argument: object) -> None:
            nonlocal asked
            asked += event == "call"

        image = registered_image(desired_image())
        registered = [
            replace(image, cloud_identifier=str(number), marker=replace(image.marker, key=key(number)))
            for number in range(count)
        ]
        wanted = desired_list(*(replace(desired_image(), key=key(number)) for number in range(count)))
        sys.setprofile(watch)
        try:
            assert make(registered, wanted).unchanged == count
        finally:
            sys.setprofile(None)
        return asked

    assert comparisons(400) < 5 * comparisons(100)
