# SPDX-License-Identifier: Apache-2.0
"""What a site does when a newer list names older versions of images: as after `coppice set rollback`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.cloud.steps import ActionKind
from coppice.testing.desired import NOW, desired_image, desired_list, list_identifier, registered_image

pytestmark = pytest.mark.unit
POLICY = Policy(grace=timedelta(days=7))
PARTS = ("database", "portal")


def planned(*registered, version="3", now=NOW):
    wanted = [desired_image(part, "1", list_version=version) for part in PARTS]
    desired = Desired(lists=(desired_list(*wanted, version=version),), unsubscribed=frozenset())
    return plan(desired, registered, POLICY, now, "test")


def replaced(part, *, since=NOW):
    old = registered_image(desired_image(part, "1", list_version="1"), state=ImageState.SUPERSEDED, since=since)
    return old, registered_image(desired_image(part, "2", list_version="2"))


def test_every_part_becomes_available_again_before_its_newer_version_is_hidden():
    registered = [image for part in PARTS for image in replaced(part)]
    found = planned(*registered)
    states = [(action.kind, action.state) for action in found.actions if action.kind is ActionKind.CHANGE_STATE]
    assert states.count((ActionKind.CHANGE_STATE, ImageState.AVAILABLE)) == 2
    assert states.count((ActionKind.CHANGE_STATE, ImageState.WITHDRAWN)) == 2
    assert states.index((ActionKind.CHANGE_STATE, ImageState.AVAILABLE)) < states.index(
        (ActionKind.CHANGE_STATE, ImageState.WITHDRAWN)
    )
    assert found.held == ()
    assert not [action for action in found.actions if action.kind is ActionKind.REMOVE]


def test_a_part_whose_older_version_is_gone_is_registered_anew():
    newer = [replaced(part)[1] for part in PARTS]
    found = planned(*newer)
    registering = [action.desired.listed.version for action in found.actions if action.kind is ActionKind.REGISTER]
    assert registering == ["1", "1"]


def test_going_back_needs_a_newer_list_and_an_older_list_does_not_do_it():
    registered = [image for part in PARTS for image in replaced(part)]
    found = planned(*registered, version="1")
    assert found.actions == ()
    assert [held.list_identifier for held in found.held] == [list_identifier("a")]
