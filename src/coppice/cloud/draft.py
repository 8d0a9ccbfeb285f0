# SPDX-License-Identifier: Apache-2.0
"""A plan in the making: steps with their phase and what they depend on, brought into one order at the end."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.properties import to_properties
from coppice.cloud.steps import Action, ActionKind, Held, Plan
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coppice.cloud.model import DesiredImage, Policy, RegisteredImage
    from coppice.errors import CoppiceError

STARTABLE = frozenset({ImageState.AVAILABLE, ImageState.STAGED, ImageState.SUPERSEDED})
"""States from which a machine can be started, by those who name the image at least."""


def fingerprint(registered: Iterable[RegisteredImage]) -> str:
    """Return the sha256 of all that is registered, in hexadecimal; the order does not matter."""
    rows = sorted(
        json.dumps([image.cloud_identifier, image.name, image.ready, to_properties(image.marker)], sort_keys=True)
        for image in registered
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def action_on(
    kind: ActionKind,
    image: RegisteredImage,
    reason: str,
    *,
    state: ImageState | None = None,
    desired: DesiredImage | None = None,
) -> Action:
    """Return an action on what is registered."""
    return Action(
        kind=kind,
        key=image.marker.key,
        version=image.marker.version,
        digest=image.marker.digest,
        reason=reason,
        desired=desired,
        registered=image,
        state=state,
    )


class Phase(IntEnum):
    """The order in which a plan is applied."""

    REGISTER = 0
    REACTIVATE = 1
    DESCRIBE = 2
    DEPENDENT = 3
    RETIRE = 4
    REMOVE = 5


@dataclass(slots=True, eq=False)
class Step:
    """An action with its place in the order; `after` becomes a position at the end."""

    phase: Phase
    action: Action
    after: Step | None = None


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan in the making.

    Attributes:
        touched: Cloud identifiers of what some step acts upon: nothing is changed in two ways at once.
        leaving: Cloud identifiers of what will not be available any more.
    """

    policy: Policy
    now: datetime
    steps: list[Step] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)

    def add(self, phase: Phase, action: Action, after: Step | None = None) -> Step:
        """Add a step that is tried only when ``after`` went well."""
        step = Step(phase, action, after)
        self.steps.append(step)
        if action.registered is not None:
            self.touched.add(action.registered.cloud_identifier)
        return step

    def hold(self, action: Action, error: CoppiceError) -> None:
        """Say what would be done, and why it is not."""
        self.held.append(Held(list_identifier=action.key.list_identifier, action=action, error=error))

    def registering(self, image: DesiredImage, unfinished: RegisteredImage | None) -> Action:
        """Return the action that registers ``image``, anew where a registration did not end."""
        return Action(
            kind=ActionKind.REGISTER,
            key=image.key,
            version=image.listed.version,
            digest=image.listed.checksum,
            reason="its registration did not end" if unfinished is not None else "it is listed and not registered",
            desired=image,
            registered=unfinished,
            state=ImageState.AVAILABLE,
        )

    def change(
        self,
        image: RegisteredImage,
        state: ImageState,
        reason: str,
        phase: Phase,
        *,
        desired: DesiredImage | None = None,
        after: Step | None = None,
    ) -> Step:
        """Bring ``image`` to ``state``."""
        action = action_on(ActionKind.CHANGE_STATE, image, reason, state=state, desired=desired)
        if state is not ImageState.AVAILABLE:
            self.leaving.add(image.cloud_identifier)
        return self.add(phase, action, after)

    def expire(self, image: RegisteredImage, reason: str) -> None:
        """Expire ``image`` if something can still be started from it."""
        if image.marker.state in STARTABLE:
            self.change(image, ImageState.EXPIRED, reason, Phase.RETIRE)

    def expire_by_own_date(self, image: RegisteredImage) -> bool:
        """Expire ``image`` if the date on its own marker has passed; tell whether it has."""
        expires = image.marker.expires
        if expires is None or expires > self.now:
            return False
        if image.cloud_identifier not in self.touched:
            self.expire(image, "its endorsement ended on the date that it bears")
        return True

    def withdrawals(self, group: list[RegisteredImage]) -> list[RegisteredImage]:
        """Return what of ``group`` a withdrawal would change."""
        return [each for each in group if each.marker.state in STARTABLE and each.cloud_identifier not in self.touched]

    def withdraw(self, group: list[RegisteredImage], reason: str) -> None:
        """Withdraw what of ``group`` can still be started; what is past its own date expires instead."""
        for image in group:
            if not self.expire_by_own_date(image) and image.marker.state in STARTABLE:
                self.change(image, ImageState.WITHDRAWN, reason, Phase.RETIRE)

    def remove_old(self, group: list[RegisteredImage], *, listed: bool, never: RegisteredImage | None = None) -> None:
        """Remove what is past its grace period and is not the last good of what is still listed."""
        good = [
            Version(each.marker.version)
            for each in group
            if each.ready and each.marker.state is ImageState.AVAILABLE and each.cloud_identifier not in self.leaving
        ]
        newest = max(good, default=None)
        for image in group:
            state = image.marker.state
            if state is ImageState.AVAILABLE or image is never or image.cloud_identifier in self.touched:
                continue
            if self.now - image.marker.state_since < self.policy.grace:
                continue
            if state is ImageState.SUPERSEDED:
                removable = newest is not None and newest >= Version(image.marker.version)
            else:
                removable = not listed or newest is not None
            if removable:
                reason = f"{state} for longer than the grace period"
                self.add(Phase.REMOVE, action_on(ActionKind.REMOVE, image, reason))

    def finish(self, cloud: str, registered: Sequence[RegisteredImage]) -> Plan:
        """Return the plan, its steps in the order of their phases."""
        ordered = sorted(self.steps, key=lambda step: step.phase)
        position = {id(step): number for number, step in enumerate(ordered)}
        actions = tuple(
            replace(step.action, after=(position[id(step.after)],)) if step.after is not None else step.action
            for step in ordered
        )
        return Plan(
            cloud=cloud,
            made_at=self.now,
            actions=actions,
            held=tuple(self.held),
            unchanged=sum(1 for image in registered if image.cloud_identifier not in self.touched),
            fingerprint=fingerprint(registered),
        )
