# SPDX-License-Identifier: Apache-2.0
"""Going back to an earlier version, and forward again: plans of their own. Pure.

A version that an administrator went back to bears a pin: it stays the available one, whatever its list says, until the
pin is taken away, its date passes, or it is revoked. The parts of a set go back together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.cloud.draft import Draft, Phase, action_on
from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.revocation import Revoked
from coppice.cloud.steps import ActionKind
from coppice.errors import NotFoundError, PlanError
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coppice.cloud.draft import Step
    from coppice.cloud.model import RegisteredImage, Revocation
    from coppice.cloud.steps import Plan
    from coppice.model.identifiers import ImageKey


def plan_rollback(
    registered: Sequence[RegisteredImage],
    key: ImageKey,
    version: str,
    now: datetime,
    cloud: str,
    *,
    alone: bool = False,
    revocations: Sequence[Revocation] = (),
) -> Plan:
    """Return what makes an earlier version of an image, and of all of its set, the one to use, and fixes it.

    Args:
        registered: All that the cloud has of this site.
        key: Which image.
        version: The version to go back to.
        now: This instant.
        cloud: Name of the target.
        alone: Leave the other parts of its set as they are.
        revocations: What an administrator revoked: the cloud may not have learned of it yet.

    Raises:
        NotFoundError: No such version is registered in this cloud.
        PlanError: Nothing may be started from it, or a part of its set is not there in the release that it is of.
        ValueError: ``version`` has no place in the order of versions.
    """
    draft = _draft(now, Revoked(revocations, Desired(lists=()), registered))
    target = _target(draft, registered, key, version, cloud)
    parts = [target] if alone else [target, *_others_of_its_set(draft, registered, target, cloud)]
    marker = target.marker
    together = f"{key.list_identifier}/{marker.set_identifier}" if len(parts) > 1 else None
    for part in parts:
        _go_back(draft, [each for each in registered if each.marker.key == part.marker.key], part, together)
    return draft.finish(cloud, registered)


def plan_release(registered: Sequence[RegisteredImage], key: ImageKey, now: datetime, cloud: str) -> Plan:
    """Return what takes the pins from an image and from all of its set; the next sync makes the newest available."""
    draft = _draft(now, Revoked((), Desired(lists=()), ()))
    sets = {each.marker.set_identifier for each in registered if each.marker.key == key} - {None}
    for each in sorted(registered, key=lambda image: image.cloud_identifier):
        marker = each.marker
        of_set = marker.key.list_identifier == key.list_identifier and marker.set_identifier in sets
        if marker.pin is not None and (marker.key == key or of_set):
            _unpin(draft, each)
    return draft.finish(cloud, registered)


def _draft(now: datetime, revoked: Revoked) -> Draft:
    return Draft(policy=Policy(grace=timedelta(0)), now=now, revoked=revoked)


def _target(
    draft: Draft, registered: Iterable[RegisteredImage], key: ImageKey, version: str, cloud: str
) -> RegisteredImage:
    group = [each for each in registered if each.marker.key == key]
    order = Version(version)
    found = [each for each in group if Version(each.marker.version) == order]
    if not found:
        there = ", ".join(sorted({each.marker.version for each in group})) or "none"
        raise NotFoundError(
            f"version {version} of image {key} is not registered in cloud {cloud}",
            details=f"versions that are: {there}",
            resolution="Only what a cloud still has can be gone back to: [plan] keep_versions says how many stay.",
            context={"image": str(key), "version": version, "cloud": cloud},
        )
    best = min(found, key=lambda each: (_obstacle(draft, each) is not None, each.cloud_identifier))
    why = _obstacle(draft, best)
    if why is not None:
        raise PlanError(
            f"version {version} of image {key} in cloud {cloud} cannot be gone back to: {why}",
            resolution="Choose another version: coppice cloud images shows what is registered.",
            context={"image": str(key), "version": version, "cloud": cloud},
        )
    return best


def _obstacle(draft: Draft, image: RegisteredImage) -> str | None:
    marker = image.marker
    if not image.ready:
        return f"it is not whole: {image.problem or 'its registration did not end'}"
    if marker.state in {ImageState.REVOKED, ImageState.EXPIRED}:
        return f"it is {marker.state}{f': {marker.reason}' if marker.reason else ''}"
    if marker.expires is not None and marker.expires <= draft.now:
        return "its endorsement has ended"
    why = draft.revoked.why_registered(image)
    return None if why is None else f"it is revoked: {why}"


def _others_of_its_set(
    draft: Draft, registered: Iterable[RegisteredImage], target: RegisteredImage, cloud: str
) -> list[RegisteredImage]:
    """Return, of each other part of the set, what is of the same release, or its one version."""
    marker = target.marker
    if marker.set_identifier is None:
        return []
    groups: dict[ImageKey, list[RegisteredImage]] = {}
    for each in registered:
        if each.marker.key.list_identifier == marker.key.list_identifier and each.marker.key != marker.key:
            groups.setdefault(each.marker.key, []).append(each)
    parts = []
    for key, group in sorted(groups.items()):
        of_set = [each for each in group if each.marker.set_identifier == marker.set_identifier]
        if not of_set:
            continue
        usable = [each for each in of_set if _obstacle(draft, each) is None]
        of_release = [each for each in usable if each.marker.set_version == marker.set_version]
        # An image that is the same in both releases bears the version of the newer one.
        chosen = of_release or (usable if len({each.marker.version for each in of_set}) == 1 else [])
        if not chosen:
            raise PlanError(
                f"image {key}, a part of set {marker.set_identifier}, is not there in release {marker.set_version} "
                f"in cloud {cloud}",
                details=f"versions that are: {', '.join(sorted({each.marker.version for each in of_set}))}",
                resolution="Go back with each of its images by itself: --alone.",
                context={"set": marker.set_identifier, "image": str(key), "cloud": cloud},
            )
        parts.append(min(chosen, key=lambda each: each.cloud_identifier))
    return parts


def _go_back(draft: Draft, group: Sequence[RegisteredImage], target: RegisteredImage, together: str | None) -> None:
    marker, step = target.marker, None
    if marker.state is not ImageState.AVAILABLE or marker.pin != marker.version or target.drift is not None:
        action = action_on(
            ActionKind.CHANGE_STATE,
            target,
            f"an administrator went back to version {marker.version}",
            state=ImageState.AVAILABLE,
            together=together,
            pin=marker.version,
        )
        step = draft.add(Phase.REACTIVATE, action)
    for other in sorted(group, key=lambda each: each.cloud_identifier):
        if other is target:
            continue
        pin = "" if other.marker.pin is not None else None
        if other.marker.state is ImageState.AVAILABLE:
            reason = f"an administrator went back to version {marker.version}"
            action = action_on(ActionKind.CHANGE_STATE, other, reason, state=ImageState.SUPERSEDED, pin=pin)
            draft.add(Phase.DEPENDENT, action, after=step)
        elif pin is not None:
            _unpin(draft, other, after=step)


def _unpin(draft: Draft, image: RegisteredImage, after: Step | None = None) -> None:
    reason = image.marker.reason or f"it is not held at version {image.marker.pin} any more"
    action = action_on(ActionKind.CHANGE_STATE, image, reason, state=image.marker.state, pin="")
    draft.add(Phase.DEPENDENT, action, after=after)
