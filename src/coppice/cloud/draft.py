# SPDX-License-Identifier: Apache-2.0
"""A plan in the making: steps with their phase and what they depend on, brought into one order at the end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.steps import Action, ActionKind, Held, Plan
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coppice.cloud.model import DesiredImage, Policy, RegisteredImage
    from coppice.cloud.revocation import Revoked
    from coppice.errors import CoppiceError

STARTABLE = frozenset({ImageState.AVAILABLE, ImageState.STAGED, ImageState.SUPERSEDED})
"""States from which a machine can be started, by those who name the image at least."""


def fingerprint(registered: Iterable[RegisteredImage]) -> str:
    """Return the sha256 of all that is registered and that plans are made from, in hexadecimal; in whatever order."""
    return hashlib.sha256("\n".join(sorted(map(_row, registered))).encode("utf-8", "surrogatepass")).hexdigest()


def _row(image: RegisteredImage) -> str:
    marker = image.marker
    # Instants to the second, as clouds keep them.
    parts = (
        image.cloud_identifier,
        image.name,
        image.ready,
        image.drift,
        marker.site,
        marker.key.list_identifier,
        marker.key.image_identifier,
        marker.version,
        marker.list_version,
        str(marker.digest),
        str(marker.state),
        int(marker.state_since.timestamp()),
        None if marker.expires is None else int(marker.expires.timestamp()),
        marker.metadata_digest,
        marker.pin,
        marker.vo,
        marker.set_identifier,
        marker.set_version,
        marker.reason,
        marker.adopted_from,
        marker.built_on,
    )
    return repr(parts)


def action_on(
    kind: ActionKind,
    image: RegisteredImage,
    reason: str,
    *,
    state: ImageState | None = None,
    desired: DesiredImage | None = None,
    together: str | None = None,
    pin: str | None = None,
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
        together=together,
        pin=pin,
    )


class Phase(IntEnum):
    """The order in which a plan is applied."""

    REVOKE = 0
    REGISTER = 1
    REACTIVATE = 2
    DESCRIBE = 3
    DEPENDENT = 4
    RETIRE = 5
    REMOVE = 6


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
    revoked: Revoked
    steps: list[Step] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    refused: list[CoppiceError] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    _versions: dict[str, Version] = field(default_factory=dict)

    def version(self, text: str) -> Version:
        """Return the place of ``text`` in the order of versions; each text is read once a plan.

        Raises:
            ValueError: It has none.
        """
        known = self._versions.get(text)
        if known is None:
            known = self._versions[text] = Version(text)
        return known

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

    def change(
        self,
        image: RegisteredImage,
        state: ImageState,
        reason: str,
        phase: Phase,
        *,
        desired: DesiredImage | None = None,
        after: Step | None = None,
        together: str | None = None,
    ) -> Step:
        """Bring ``image`` to ``state``."""
        action = action_on(ActionKind.CHANGE_STATE, image, reason, state=state, desired=desired, together=together)
        if state is not ImageState.AVAILABLE:
            self.leaving.add(image.cloud_identifier)
        return self.add(phase, action, after)

    def revoke(self, group: Iterable[RegisteredImage]) -> None:
        """Revoke at once what of ``group`` is revoked and can still be started."""
        for image in group if self.revoked.is_any else ():
            if image.marker.state in STARTABLE:
                reason = self.revoked.why_registered(image)
                if reason is not None:
                    self.change(image, ImageState.REVOKED, reason, Phase.REVOKE)

    def expire(self, image: RegisteredImage, reason: str) -> None:
        """Expire ``image`` if something can still be started from it."""
        if image.marker.state in STARTABLE and image.cloud_identifier not in self.touched:
            self.change(image, ImageState.EXPIRED, reason, Phase.RETIRE)

    def expire_by_own_date(self, image: RegisteredImage) -> bool:
        """Expire ``image`` if the date on its own marker has passed; tell whether it has."""
        expires = image.marker.expires
        if expires is None or expires > self.now:
            return False
        self.expire(image, "its endorsement ended on the date that it bears")
        return True

    def withdrawals(self, group: Iterable[RegisteredImage]) -> list[RegisteredImage]:
        """Return what of ``group`` a withdrawal would change."""
        return [each for each in group if each.marker.state in STARTABLE and each.cloud_identifier not in self.touched]

    def withdraw(self, group: Iterable[RegisteredImage], reason: str) -> None:
        """Withdraw what of ``group`` can still be started; what is past its own date expires instead."""
        for image in group:
            if not self.expire_by_own_date(image):
                for each in self.withdrawals((image,)):
                    self.change(each, ImageState.WITHDRAWN, reason, Phase.RETIRE)

    def mend(self, group: Iterable[RegisteredImage]) -> None:
        """Bring back to its own state what somebody's hand changed.

        Of several that are available, the newest alone is what users are to find: where a cloud can show one only, to
        mend the others would hide it.
        """
        drifted = [each for each in group if each.drift is not None and each.ready]
        if not drifted:
            return
        shown = max(
            (each for each in group if each.ready and each.marker.state is ImageState.AVAILABLE),
            key=lambda each: (each.marker.pin is not None, self.version(each.marker.version), each.cloud_identifier),
            default=None,
        )
        for image in drifted:
            state = image.marker.state
            if image.cloud_identifier in self.touched or (state is ImageState.AVAILABLE and image is not shown):
                continue
            phase = Phase.REACTIVATE if state is ImageState.AVAILABLE else Phase.RETIRE
            self.add(phase, action_on(ActionKind.CHANGE_STATE, image, drift_reason(image), state=state))

    def remove_old(self, group: list[RegisteredImage], *, listed: bool, never: RegisteredImage | None = None) -> None:
        """Remove what is past its grace period and is not the last good of what is still listed; mend what stays."""
        if len(group) > 1 or (group and group[0].marker.state is not ImageState.AVAILABLE):
            self._remove_old(group, listed=listed, never=never)
        elif not group or group[0].drift is None:
            return
        self.mend(group)

    def _remove_old(self, group: list[RegisteredImage], *, listed: bool, never: RegisteredImage | None) -> None:
        newest = max(
            (
                self.version(each.marker.version)
                for each in group
                if each.ready
                and each.drift is None
                and each.marker.state is ImageState.AVAILABLE
                and each.cloud_identifier not in self.leaving
            ),
            default=None,
        )
        kept = self._kept_versions(group)
        for image in group:
            marker = image.marker
            state = marker.state
            if state in {ImageState.AVAILABLE, ImageState.STAGED} or image is never:
                # What is staged waits for the others of its set, however long they take.
                continue
            if image.cloud_identifier in self.touched or image.cloud_identifier in kept:
                continue
            if self.now - marker.state_since < self.policy.retention_of(marker).grace:
                continue
            if state is ImageState.SUPERSEDED:
                removable = newest is not None and newest >= self.version(marker.version)
            else:
                removable = not listed or newest is not None
            if removable:
                reason = f"{state} for longer than the grace period"
                self.add(Phase.REMOVE, action_on(ActionKind.REMOVE, image, reason))

    def _kept_versions(self, group: list[RegisteredImage]) -> set[str]:
        """Return which superseded images are kept for they are among the last good ones; what is broken is not."""
        good = [
            each
            for each in group
            if each.ready and each.marker.state is ImageState.SUPERSEDED and each.cloud_identifier not in self.touched
        ]
        good.sort(key=lambda each: (self.version(each.marker.version), each.cloud_identifier), reverse=True)
        return {
            each.cloud_identifier
            for place, each in enumerate(good)
            if place < self.policy.retention_of(each.marker).keep_versions
        }

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
            refused=tuple(self.refused),
        )


def drift_reason(image: RegisteredImage) -> str:
    """Return why what is in its state is brought to it once more."""
    return f"somebody changed it in the cloud: {image.drift}"
