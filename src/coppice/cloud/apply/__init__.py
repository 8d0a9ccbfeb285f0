# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the only caller of what changes a cloud.

Several images are worked on at a time. Steps on one image keep their order, and none is done before those that it
depends on. What a new version is to take the place of is touched only when the cloud itself shows the new one: upload,
verify, flip the pointer, hide the old. An item that fails does not stop the others; what depends on it is not tried.
Steps of a set succeed together or are taken back together. Nothing is removed that is in use, that is within its grace
period, or after the clock jumped.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.apply.application import Application
from coppice.cloud.apply.execution import Execution
from coppice.cloud.draft import fingerprint
from coppice.cloud.model import ImageState
from coppice.cloud.steps import ActionKind
from coppice.errors import StalePlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.clock import Clock
    from coppice.cloud.apply.execution import Obtain
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import Policy, RegisteredImage
    from coppice.cloud.steps import Action, ActionResult, ApplyResult, Plan
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor


def apply(
    plan: Plan,
    cloud: Cloud,
    *,
    obtain: Obtain,
    clock: Clock,
    policy: Policy,
    monitor: Monitor,
    registered: Sequence[RegisteredImage] | None = None,
    on_result: Callable[[ActionResult], None] | None = None,
    awaits: Callable[[Action], bool] | None = None,
    images_at_once: int = 1,
    stop: threading.Event | None = None,
) -> ApplyResult:
    """Carry out ``plan`` on ``cloud``.

    Args:
        plan: What to do.
        cloud: On what.
        obtain: Gives what is to be registered; called only for that.
        clock: Tells the time; a jump of more than a day during the run stops removals.
        policy: The one that the plan was made with; the grace period is asked again before each removal.
        monitor: Where progress is told.
        registered: What the cloud was just seen to have, by a caller who holds its lock; None: it is asked.
        on_result: Called in the caller's thread after each action; after all of a set, when what became of it is known.
        awaits: Tells which actions are not to be begun now; neither is what depends on them. None: none.
        images_at_once: How many are worked on at a time, each in a thread of its own; 1: in the caller's.
        stop: Nothing is begun any more once it is set.

    Raises:
        StalePlanError: What is registered has changed since the plan was made; nothing was done.
        CloudError: The cloud could not be asked for what is registered; nothing was done.
    """
    refuse_stale(plan, cloud.describe() if registered is None else registered)
    with monitor.task(f"cloud {plan.cloud}", total=len(plan.actions)) as task:
        return Application(
            plan,
            cloud,
            Execution(
                cloud,
                obtain=obtain,
                clock=clock,
                policy=policy,
                monitor=monitor,
                predecessors=_predecessors(plan.actions),
            ),
            task=task,
            on_result=on_result or (lambda _result: None),
            awaits=awaits or (lambda _action: False),
            images_at_once=images_at_once,
            stop=stop or threading.Event(),
        ).run()


def _predecessors(actions: Iterable[Action]) -> dict[ImageKey, RegisteredImage]:
    """Return what users have now of each image that another version is to take the place of."""
    return {
        action.key: action.registered
        for action in actions
        if action.after
        and action.kind is ActionKind.CHANGE_STATE
        and action.registered is not None
        and action.registered.marker.state is ImageState.AVAILABLE
        and action.state is not ImageState.AVAILABLE
    }


def refuse_stale(plan: Plan, registered: Sequence[RegisteredImage]) -> None:
    """Refuse a plan that was made from anything but what is ``registered``.

    Raises:
        StalePlanError: It was.
    """
    if fingerprint(registered) != plan.fingerprint:
        raise StalePlanError(
            f"what is registered in cloud {plan.cloud} has changed since the plan was made",
            details=f"planned at {to_rfc3339(plan.made_at)}",
            resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            context={"cloud": plan.cloud},
        )
