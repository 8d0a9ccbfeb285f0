# SPDX-License-Identifier: Apache-2.0
"""What a site does with images of lists that it trusts no more, and of versions that were taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind
from coppice.testing.desired import NOW, desired_image, desired_list, list_identifier, registered_image

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)
POLICY = Policy(grace=GRACE)
LIST = list_identifier("a")


def planned(desired, *registered, now=NOW):
    found = plan(desired, registered, POLICY, now, "test")
    return [(action.kind, action.state) for action in found.actions], [held.error.code for held in found.held]


@pytest.mark.threat("T19")
def test_images_of_a_distrusted_list_are_withdrawn_without_a_cap_and_removed_after_grace():
    images = [registered_image(desired_image(name, "1")) for name in "wxyz"]
    desired = Desired(lists=(), distrusted=frozenset({LIST}))
    assert planned(desired, *images) == ([(ActionKind.CHANGE_STATE, ImageState.WITHDRAWN)] * 4, [])
    gone = registered_image(desired_image("w", "1"), state=ImageState.WITHDRAWN, since=NOW - GRACE)
    assert planned(desired, gone) == ([(ActionKind.REMOVE, None)], [])
    # A list that is only unknown keeps what it has.
    assert planned(Desired(lists=()), *images) == ([], [])


@pytest.mark.threat("T33")
def test_a_version_that_was_taken_back_is_no_floor_any_more_and_a_higher_one_still_is():
    high = registered_image(desired_image("x", "9", list_version="999"))
    wanted = desired_list(desired_image("x", "1", list_version="5"), version="5")
    assert planned(Desired(lists=(wanted,)), high)[1] == ["list-older"]
    assert planned(Desired(lists=(replace(wanted, taken_back="999"),)), high)[1] == []
    assert planned(Desired(lists=(replace(wanted, taken_back="998"),)), high)[1] == ["list-older"]
