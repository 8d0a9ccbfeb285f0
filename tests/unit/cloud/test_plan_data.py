# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cloud.model import Desired, Policy
from coppice.cloud.plan import plan
from coppice.cloud.plan_data import plan_as_dict, plan_differences
from coppice.testing.desired import LATER, NOW, desired_image, desired_list, registered_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cloud.steps import Plan

pytestmark = pytest.mark.unit


def made(*, version: str = "2") -> Plan:
    wanted = desired_list(desired_image(version=version))
    return plan(Desired(lists=(wanted,)), (registered_image(desired_image()),), Policy(grace=LATER - NOW), NOW, "test")


def written() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(plan_as_dict(made())))
    return found


def test_a_plan_that_was_written_is_the_same_when_it_is_read_whatever_its_words():
    document = written()
    assert len(document["actions"]) == 2
    document["made_at"] = "another time"
    document["actions"][0]["reason"] = "other words"
    assert document["actions"][0]["name"] == desired_image().listed.title
    document["actions"][0]["name"] = "another name"
    del document["actions"][1]["name"]
    assert plan_differences(document, made()) == ()


def test_what_was_planned_then_or_now_alone_is_said():
    found = plan_differences(written(), made(version="3"))
    image = desired_image().key
    assert found == (
        f"planned then, and not now: register {image} version 2 (available)",
        f"planned now, and not then: register {image} version 3 (available)",
    )


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "an action more": lambda plan: plan["actions"].append({**plan["actions"][0], "kind": "remove"}),
    "an action less": lambda plan: plan["actions"].pop(),
    "another digest": lambda plan: plan["actions"][0].update(digest="sha512:" + "0" * 128),
    "another description": lambda plan: plan["actions"][0].update(metadata_digest="0"),
    "another order": lambda plan: plan["actions"].reverse(),
    "no dependency": lambda plan: plan["actions"][1].update(after=[]),
    "another image": lambda plan: plan["actions"][0].update(image="x\u202e\x1b[2J'\"\n"),
    "another state of the cloud": lambda plan: plan.update(fingerprint="0" * 64),
    "odd actions": lambda plan: plan.update(actions=[1, None, {"kind": {"a": []}}, [[]], {"action": 1}, {"error": 1}]),
    "no actions": lambda plan: plan.update(actions="none"),
    "nothing": lambda plan: plan.clear(),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_plan_that_somebody_wrote_differs_and_is_told_in_plain_letters(forge: Callable[[dict[str, Any]], object]):
    document = written()
    forge(document)
    found = plan_differences(document, made())
    assert found
    assert all(each.isascii() and each.isprintable() for each in found)
