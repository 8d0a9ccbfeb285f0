# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the only caller of what changes a cloud.

An item that fails does not stop the others; what depends on it is not tried. Nothing is removed that is in use, that is
within its grace period, or after the clock jumped.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.draft import STARTABLE, fingerprint
from coppice.cloud.model import ImageState, OwnershipMarker
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.cloud.steps import ActionKind, ActionResult, ApplyResult
from coppice.errors import ChecksumMismatchError, CloudError, CoppiceError, PlanError, StalePlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, Policy, RegisteredImage
    from coppice.cloud.steps import Action, Plan
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor

    Obtain = Callable[[DesiredImage, Formats, Monitor], ConvertedImage]
    """Gives an image in one of the formats that a cloud takes."""
    Soonest = Callable[[Sequence[DesiredImage]], int]
    """Returns the position of the image that is here first, when it is."""

MAXIMUM_CLOCK_JUMP = timedelta(days=1)


class _NotTried(Exception):  # noqa: N818 - it never leaves this module: nothing failed, so it is no error
    """An action was not tried; nothing failed by it."""

    def __init__(self, why: PlanError) -> None:
        super().__init__(why.message)
        self.why = why


def apply(
    plan: Plan,
    cloud: Cloud,
    *,
    obtain: Obtain,
    clock: Clock,
    policy: Policy,
    monitor: Monitor,
    on_result: Callable[[ActionResult], None] | None = None,
    soonest: Soonest | None = None,
) -> ApplyResult:
    """Carry out ``plan`` on ``cloud``, one action after the other.

    Steps on one image keep their order, and none is done before the one that it depends on. Otherwise an image that is
    not here yet is waited for last, so that it holds up no other.

    Args:
        plan: What to do.
        cloud: On what.
        obtain: Fetches and converts what is to be registered; called only for that.
        clock: Tells the time; a jump of more than a day during the run stops removals.
        policy: The one that the plan was made with; the grace period is asked again before each removal.
        monitor: Where progress is told.
        on_result: Called after each action, before the next.
        soonest: Says which of several images is here first, and waits for it; None: in the order of the plan.

    Raises:
        StalePlanError: What is registered has changed since the plan was made; nothing was done.
        CloudError: The cloud could not be asked for what is registered; nothing was done.
    """
    _refuse_stale(plan, cloud)
    run = _Run(cloud, obtain=obtain, clock=clock, policy=policy, monitor=monitor)
    results: dict[int, ActionResult] = {}
    pending = list(range(len(plan.actions)))
    with monitor.task(f"cloud {plan.cloud}", total=len(plan.actions)) as task:
        while pending:
            number = _next(plan, pending, soonest)
            pending.remove(number)
            action = plan.actions[number]
            task.note(f"{action.kind} {action.key} version {action.version}")
            results[number] = result = run.carry_out(action, results)
            if on_result is not None:
                on_result(result)
            task.advance(1)
    return ApplyResult(plan=plan, results=tuple(results[number] for number in range(len(plan.actions))))


def _next(plan: Plan, pending: Sequence[int], soonest: Soonest | None) -> int:
    """Return which step comes next: the first that waits for no other and for no image, else the image here first."""
    if soonest is None:
        return pending[0]
    awaited: list[tuple[int, DesiredImage]] = []
    blocked: set[ImageKey] = set()
    for number in pending:
        action = plan.actions[number]
        if action.key not in blocked and not set(action.after) & set(pending):
            if action.kind is not ActionKind.REGISTER or action.desired is None:
                return number
            awaited.append((number, action.desired))
        blocked.add(action.key)
    if not awaited:
        return pending[0]
    return awaited[soonest([desired for _, desired in awaited])][0]


def plan_as_dict(plan: Plan) -> dict[str, object]:
    """Return the plan for ``--json``."""
    return {
        "cloud": plan.cloud,
        "made_at": to_rfc3339(plan.made_at),
        "fingerprint": plan.fingerprint,
        "unchanged": plan.unchanged,
        "actions": [action_as_dict(action) for action in plan.actions],
        "held": [
            {
                "list": held.list_identifier,
                "action": action_as_dict(held.action) if held.action is not None else None,
                "error": held.error.as_dict(),
            }
            for held in plan.held
        ],
    }


def action_as_dict(action: Action) -> dict[str, object]:
    """Return one step of a plan for ``--json``."""
    return {
        "kind": str(action.kind),
        "list": action.key.list_identifier,
        "image": action.key.image_identifier,
        "version": action.version,
        "digest": str(action.digest),
        "state": str(action.state) if action.state is not None else None,
        "cloud_identifier": action.registered.cloud_identifier if action.registered is not None else None,
        "reason": action.reason,
        "after": list(action.after),
    }


def _refuse_stale(plan: Plan, cloud: Cloud) -> None:
    if fingerprint(cloud.describe()) != plan.fingerprint:
        raise StalePlanError(
            f"what is registered in cloud {plan.cloud} has changed since the plan was made",
            details=f"planned at {to_rfc3339(plan.made_at)}",
            resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
            context={"cloud": plan.cloud},
        )


class _Run:
    """One application of a plan: what has become of each image so far, and whether the clock can be believed."""

    def __init__(self, cloud: Cloud, *, obtain: Obtain, clock: Clock, policy: Policy, monitor: Monitor) -> None:
        self._cloud = cloud
        self._obtain = obtain
        self._clock = clock
        self._policy = policy
        self._monitor = monitor
        self._started = (clock.now(), clock.monotonic())
        # A step may follow another on the same image: it goes on from what that one left.
        self._current: dict[str, RegisteredImage] = {}

    def carry_out(self, action: Action, done: Mapping[int, ActionResult]) -> ActionResult:
        """Do one action; whatever Coppice knows to fail becomes part of the result."""
        begun = self._clock.monotonic()
        try:
            self._refuse_without(action, done)
            registered = self._do(action)
        except _NotTried as skip:
            return ActionResult(action=action, error=skip.why, skipped=True)
        except CoppiceError as problem:
            return ActionResult(action=action, error=problem, seconds=self._clock.monotonic() - begun)
        if registered is not None:
            self._current[registered.cloud_identifier] = registered
        return ActionResult(action=action, registered=registered, seconds=self._clock.monotonic() - begun)

    def _refuse_without(self, action: Action, done: Mapping[int, ActionResult]) -> None:
        if any(done[each].error is not None for each in action.after):
            raise _NotTried(
                PlanError(
                    f"{action.kind} of image {action.key} version {action.version} was not tried: what it depends on "
                    "failed",
                    context={"image": str(action.key), "after": list(action.after)},
                )
            )

    def _do(self, action: Action) -> RegisteredImage | None:
        if action.kind is ActionKind.REGISTER:
            return self._register(action)
        registered = self._registered(action)
        if action.kind is ActionKind.UPDATE_METADATA:
            return self._update_metadata(action, registered)
        if action.kind is ActionKind.CHANGE_STATE:
            return self._change_state(action, registered)
        self._remove(registered)
        return None

    def _register(self, action: Action) -> RegisteredImage:
        desired = _desired(action)
        converted = self._obtain(desired, self._cloud.formats, self._monitor)
        _refuse_other_bytes(desired, converted)
        now = self._clock.now()
        if desired.expires <= now:
            raise CloudError(
                f"the endorsement of image {desired.key} ended while it was fetched",
                resolution="Nothing was registered; the list's endorser must publish it anew.",
            )
        presentation = presentation_of(desired)
        marker = OwnershipMarker(
            site=self._cloud.site,
            key=desired.key,
            version=desired.listed.version,
            list_version=desired.list_version,
            digest=desired.listed.checksum,
            state=action.state or ImageState.AVAILABLE,
            state_since=now,
            expires=desired.expires,
            vo=desired.vo,
            set_identifier=desired.set_identifier,
            set_version=desired.set_version,
            metadata_digest=presentation_digest(presentation),
        )
        registered = self._cloud.register(converted, marker, presentation, self._monitor)
        is_what_was_asked = registered.marker.key == marker.key and registered.marker.digest.matches(marker.digest)
        if not (registered.ready and is_what_was_asked):
            raise CloudError(
                f"cloud {self._cloud.name} says that image {desired.key} was registered, and it is not usable",
                details=f"cloud identifier {registered.cloud_identifier}, ready: {registered.ready}",
                resolution="The version before it stays available. Run again: it is registered anew.",
            )
        return registered

    def _update_metadata(self, action: Action, registered: RegisteredImage) -> RegisteredImage:
        desired = _desired(action)
        presentation = presentation_of(desired)
        marker = replace(
            _confirmed(registered.marker, desired),
            metadata_digest=presentation_digest(presentation),
        )
        return self._cloud.update_metadata(registered, marker, presentation)

    def _change_state(self, action: Action, registered: RegisteredImage) -> RegisteredImage:
        if action.state is None:
            message = f"an action that changes a state must name it: {action}"
            raise ValueError(message)
        marker = registered.marker if action.desired is None else _confirmed(registered.marker, action.desired)
        if action.state is not marker.state:
            # One that is only brought back to what it should be stays as old as it is.
            marker = replace(marker, state=action.state, state_since=self._clock.now())
        startable = action.state in STARTABLE
        marker = replace(marker, reason=None if startable else action.reason)
        return self._cloud.change_state(registered, marker)

    def _remove(self, registered: RegisteredImage) -> None:
        self._refuse_after_jump()
        marker = registered.marker
        if marker.state is ImageState.AVAILABLE or self._clock.now() - marker.state_since < self._policy.grace:
            raise PlanError(
                f"image {registered.cloud_identifier} is not removed: it is available, or within its grace period",
                details=f"{marker.state} since {to_rfc3339(marker.state_since)}",
            )
        if self._cloud.in_use(registered):
            raise _NotTried(
                PlanError(
                    f"image {registered.cloud_identifier} in cloud {self._cloud.name} is in use and is kept for now",
                    resolution="It is removed by a later run, when nothing runs from it any more.",
                    context={"image": str(marker.key), "cloud_identifier": registered.cloud_identifier},
                )
            )
        self._cloud.remove(registered)

    def _refuse_after_jump(self) -> None:
        wall, monotonic = self._started
        elapsed = timedelta(seconds=self._clock.monotonic() - monotonic)
        jump = abs(self._clock.now() - wall - elapsed)
        if jump > MAXIMUM_CLOCK_JUMP:
            raise PlanError(
                f"nothing is removed: this machine's clock jumped by {jump} during the run",
                resolution="Set the clock right, then run again.",
            )

    def _registered(self, action: Action) -> RegisteredImage:
        if action.registered is None:
            message = f"an action on what is registered must name it: {action}"
            raise ValueError(message)
        return self._current.get(action.registered.cloud_identifier, action.registered)


def _desired(action: Action) -> DesiredImage:
    if action.desired is None:
        message = f"an action that registers or describes must say what: {action}"
        raise ValueError(message)
    return action.desired


def _confirmed(marker: OwnershipMarker, desired: DesiredImage) -> OwnershipMarker:
    return replace(
        marker,
        expires=desired.expires,
        list_version=desired.list_version,
        vo=desired.vo,
        set_identifier=desired.set_identifier,
        set_version=desired.set_version,
    )


def _refuse_other_bytes(desired: DesiredImage, converted: ConvertedImage) -> None:
    if converted.key == desired.key and converted.source_checksum.matches(desired.listed.checksum):
        return
    raise ChecksumMismatchError(
        f"what was obtained for image {desired.key} is not what its list names",
        details=f"listed {desired.listed.checksum}, obtained {converted.source_checksum} of image {converted.key}",
        resolution="Nothing was registered.",
    )
