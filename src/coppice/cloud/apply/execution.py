# SPDX-License-Identifier: Apache-2.0
"""What each action of a plan does to a cloud. Nothing else in Coppice changes what is registered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.draft import STARTABLE
from coppice.cloud.model import ImageState, OwnershipMarker
from coppice.cloud.properties import lineage_of, presentation_digest, presentation_of
from coppice.cloud.steps import ActionKind, ActionResult
from coppice.errors import ChecksumMismatchError, CloudError, CoppiceError, PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coppice.clock import Clock
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import DesiredImage, Policy, RegisteredImage
    from coppice.cloud.steps import Action
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor

    Obtain = Callable[[DesiredImage, Formats, Monitor], ConvertedImage]
    """Gives an image in one of the formats that a cloud takes."""

MAXIMUM_CLOCK_JUMP = timedelta(days=1)


class _NotTried(Exception):  # noqa: N818 - it never leaves this module: nothing failed, so it is no error
    """An action was not tried; nothing failed by it."""

    def __init__(self, why: PlanError) -> None:
        super().__init__(why.message)
        self.why = why


class Execution:
    """Carries out actions, from several threads at once; never two on the same image.

    It knows what has become of each image so far, and whether the clock can be believed.

    Args:
        cloud: Where.
        obtain: Gives what is to be registered.
        clock: Tells the time.
        policy: The one that the plan was made with.
        monitor: Where progress is told.
        predecessors: What users have now of images that other versions are to take the place of.
    """

    def __init__(
        self,
        cloud: Cloud,
        *,
        obtain: Obtain,
        clock: Clock,
        policy: Policy,
        monitor: Monitor,
        predecessors: Mapping[ImageKey, RegisteredImage] | None = None,
    ) -> None:
        self._cloud = cloud
        self._predecessors = predecessors or {}
        self._obtain = obtain
        self._clock = clock
        self._policy = policy
        self._monitor = monitor
        self._started = (clock.now(), clock.monotonic())
        # A step may follow another on the same image: it goes on from what that one left.
        self._current: dict[str, RegisteredImage] = {}
        # What this very plan registered, as it was then: a later step may be about it.
        self._made: dict[tuple[ImageKey, str], RegisteredImage] = {}

    def carry_out(self, action: Action) -> ActionResult:
        """Do one action; whatever Coppice knows to fail becomes part of the result."""
        begun = self._clock.monotonic()
        try:
            registered = self._do(action)
        except _NotTried as skip:
            return ActionResult(action=action, error=skip.why, skipped=True)
        except CoppiceError as problem:
            return ActionResult(action=action, error=problem, seconds=self._clock.monotonic() - begun)
        if registered is not None:
            self._note(registered)
        return ActionResult(action=action, registered=registered, seconds=self._clock.monotonic() - begun)

    def carry_out_together(self, actions: Sequence[Action]) -> tuple[ActionResult, ...]:
        """Do the flips of a set; when one fails, those that were done are taken back and the others not tried."""
        results: list[ActionResult] = []
        for action in actions:
            results.append(self.carry_out(action))
            if results[-1].error is not None:
                break
        failed = results[-1]
        if failed.error is None:
            return tuple(results)
        # The one that failed may have been listed all the same: an answer was lost.
        failed = self._take_back_in_doubt(failed)
        undone = [self._take_back(result) for result in reversed(results[:-1])]
        untried = [not_tried(action, "another image of its set failed") for action in actions[len(results) :]]
        return (*reversed(undone), failed, *untried)

    def look(self) -> dict[str, RegisteredImage]:
        """Return what the cloud shows now, by cloud identifier.

        Raises:
            CloudError: It could not be asked.
        """
        return {image.cloud_identifier: image for image in self._cloud.describe()}

    def _take_back(self, result: ActionResult) -> ActionResult:
        """Bring an image that was flipped back to what it was; the marker says all of that."""
        action, registered = result.action, result.registered
        before = action.registered or self._made.get((action.key, action.version))
        if before is None or registered is None:
            return result
        try:
            back = self._undo(action, registered, before)
        except CoppiceError as problem:
            return replace(
                result,
                registered=None,
                error=CloudError(
                    f"image {action.key} version {action.version} stays available in cloud {self._cloud.name}, and "
                    "others of its set are not",
                    details=f"[{problem.code}] {problem.message}",
                    resolution="Run again: the set is made available, or taken back, as a whole.",
                    context={"image": str(action.key), "cause": problem.as_dict()},
                ),
            )
        self._note(back)
        return replace(result, registered=back, taken_back=True)

    def _take_back_in_doubt(self, failed: ActionResult) -> ActionResult:
        action = failed.action
        before = action.registered or self._made.get((action.key, action.version))
        if before is None:
            return failed
        try:
            self._undo(action, self._current.get(before.cloud_identifier, before), before)
        except CoppiceError as problem:
            cause = failed.error or problem
            return replace(
                failed,
                error=CloudError(
                    f"image {action.key} version {action.version} may be available in cloud {self._cloud.name}, and "
                    "others of its set are not",
                    details=f"[{cause.code}] {cause.message}\n[{problem.code}] {problem.message}",
                    resolution="Run again: the set is made available, or taken back, as a whole.",
                    context={"image": str(action.key), "cause": cause.as_dict()},
                ),
            )
        return failed

    def _undo(self, action: Action, registered: RegisteredImage, before: RegisteredImage) -> RegisteredImage:
        predecessor = self._predecessors.get(action.key)
        if predecessor is not None and predecessor.cloud_identifier != registered.cloud_identifier:
            # Where one version alone can be shown, the older must be shown again before the newer is not.
            self._cloud.change_state(predecessor, predecessor.marker)
        # Time has not begun anew: as far as anybody is concerned, the image never left its state. What its list said of
        # it meanwhile stays: the floor against older lists never sinks.
        marker = before.marker if action.desired is None else _confirmed(before.marker, action.desired)
        return self._cloud.change_state(registered, marker)

    def _note(self, registered: RegisteredImage) -> None:
        # Each image is worked on by one thread at a time, so that no two write the same entry.
        self._current[registered.cloud_identifier] = registered

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
            built_on=lineage_of(desired.built_on),
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
        self._made[action.key, action.version] = registered
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
        reason: str | None = marker.reason or action.reason
        if action.state is not marker.state:
            # One that is only brought back to what it should be stays as old as it is, and is so for the same reason.
            marker, reason = replace(marker, state=action.state, state_since=self._clock.now()), action.reason
        marker = replace(marker, reason=None if action.state in STARTABLE else reason)
        if action.pin is not None:
            marker = replace(marker, pin=action.pin or None)
        return self._cloud.change_state(registered, marker)

    def _remove(self, registered: RegisteredImage) -> None:
        self._refuse_after_jump()
        marker = registered.marker
        if marker.state is ImageState.AVAILABLE or self._is_within_grace(marker):
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

    def _is_within_grace(self, marker: OwnershipMarker) -> bool:
        return self._clock.now() - marker.state_since < self._policy.retention_of(marker).grace

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
        registered = action.registered or self._made.get((action.key, action.version))
        if registered is None:
            message = f"an action on what is registered must name it: {action}"
            raise ValueError(message)
        return self._current.get(registered.cloud_identifier, registered)


def not_tried(action: Action, why: str) -> ActionResult:
    """Return the result of an action that was not tried; nothing failed by it."""
    error = PlanError(
        f"{action.kind} of image {action.key} version {action.version} was not tried: {why}",
        context={"image": str(action.key), "after": list(action.after)},
    )
    return ActionResult(action=action, error=error, skipped=True)


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
        built_on=lineage_of(desired.built_on),
    )


def _refuse_other_bytes(desired: DesiredImage, converted: ConvertedImage) -> None:
    if converted.key == desired.key and converted.source_checksum.matches(desired.listed.checksum):
        return
    raise ChecksumMismatchError(
        f"what was obtained for image {desired.key} is not what its list names",
        details=f"listed {desired.listed.checksum}, obtained {converted.source_checksum} of image {converted.key}",
        resolution="Nothing was registered.",
    )
