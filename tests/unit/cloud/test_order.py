# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.cloud.apply.order import Order
from coppice.cloud.model import ImageState
from coppice.cloud.steps import Action, ActionKind
from coppice.testing.desired import desired_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.cloud.apply.order import Unit

pytestmark = pytest.mark.unit


def action(
    name: str,
    kind: ActionKind = ActionKind.UPDATE_METADATA,
    *,
    after: tuple[int, ...] = (),
    together: str | None = None,
    state: ImageState | None = None,
) -> Action:
    desired = desired_image(name)
    return Action(
        kind=kind,
        key=desired.key,
        version="1",
        digest=desired.listed.checksum,
        reason="a test",
        after=after,
        together=together,
        state=state,
    )


def flip(name: str, together: str | None = "s", *, after: tuple[int, ...] = ()) -> Action:
    return action(name, ActionKind.CHANGE_STATE, after=after, together=together, state=ImageState.AVAILABLE)


def order_of(actions: Sequence[Action], awaits: Callable[[Action], bool] = lambda _action: False) -> Order:
    return Order(actions, awaits)


def ready(order: Order) -> list[Unit]:
    found = []
    while (unit := order.next()) is not None:
        found.append(unit)
    return found


def positions(units: Sequence[Unit]) -> list[list[int]]:
    return [unit.actions for unit in units]


def test_what_depends_on_nothing_may_begin_in_the_order_of_the_plan_and_the_rest_when_all_of_it_has_ended():
    order = order_of([action("a"), action("b"), action("c", after=(0, 1)), action("d")])
    first = ready(order)
    assert positions(first) == [[0], [1], [3]]
    order.end(first[0])
    assert ready(order) == []
    order.end(first[1])
    assert positions(ready(order)) == [[2]]


def test_steps_on_one_image_keep_their_order():
    order = order_of([action("a"), action("a"), action("b"), action("a")])
    first = ready(order)
    assert positions(first) == [[0], [2]]
    order.end(first[0])
    (second,) = ready(order)
    assert second.actions == [1]
    order.end(second)
    assert positions(ready(order)) == [[3]]


def test_the_flips_of_a_set_are_one_unit_that_waits_for_all_that_any_of_them_waits_for():
    register = ActionKind.REGISTER
    plan = [action("a", register), action("b", register), flip("a", after=(0,)), flip("b", after=(1,))]
    order = order_of([*plan, action("a", after=(2,))])
    first = ready(order)
    order.end(first[0])
    assert (ready(order), order.unseen()) == ([], ())
    order.end(first[1])
    assert ready(order) == []
    assert positions(order.unseen()) == [[2, 3]]
    order.seen()
    (flips,) = ready(order)
    order.end(flips)
    assert positions(ready(order)) == [[4]]


def test_what_ends_or_hides_an_image_is_no_part_of_what_is_taken_back():
    hide = action("a", ActionKind.CHANGE_STATE, together="s", state=ImageState.EXPIRED)
    order = order_of([hide, hide, flip("b"), flip("c"), flip("d", "other"), flip("e", None)])
    assert positions(ready(order)) == [[0], [2, 3], [4], [5]]


def test_what_depends_on_a_registration_waits_until_the_cloud_shows_it():
    order = order_of([action("a", ActionKind.REGISTER), action("b", after=(0,)), action("c", after=(1,))])
    (register,) = ready(order)
    order.end(register)
    assert ready(order) == []
    order.seen()
    assert positions(ready(order)) == [[1]]


def test_what_is_awaited_is_left_out_with_all_that_depends_on_it():
    wanted = [action("a", ActionKind.REGISTER), action("b"), action("c", after=(0,)), action("a"), action("d")]
    order = order_of([*wanted, action("e", after=(2,))], lambda each: each.kind is ActionKind.REGISTER)
    assert order.left_out() == (0, 2, 3, 5)
    for unit in (units := ready(order)):
        order.end(unit)
    assert positions(units) == [[1], [4]]
    assert (ready(order), order.unseen()) == ([], ())


def test_what_was_tried_in_vain_keeps_back_what_depends_on_it_and_not_what_only_comes_after_it():
    failed = action("a", ActionKind.CHANGE_STATE, state=ImageState.REVOKED)
    order = order_of(
        [failed, action("a", ActionKind.REGISTER), action("b", after=(0,)), action("a", after=(1,))],
        lambda each: each.state is ImageState.REVOKED,
    )
    assert order.left_out() == (0, 2)
    (register,) = ready(order)
    assert register.actions == [1]
    order.end(register)
    order.seen()
    assert positions(ready(order)) == [[3]]
