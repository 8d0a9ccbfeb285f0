# SPDX-License-Identifier: Apache-2.0
"""What to do with the images of a set.

They are of no use without each other. New versions are registered staged, and listed when all of them are whole; what
they take the place of is hidden after that. A set that is not whole stays as it is. One that was gone back to, and of
which a part is revoked there, leaves that release as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE, Phase, action_on
from coppice.cloud.model import ImageState
from coppice.cloud.plan_image import (
    keep,
    of_version,
    pin_of,
    pinned_of,
    plan_pinned,
    preference,
    registering,
    take_place,
)
from coppice.cloud.steps import ActionKind
from coppice.errors import IncompleteSetError
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.cloud.draft import Draft
    from coppice.cloud.model import DesiredImage, RegisteredImage
    from coppice.cloud.plan_image import Group

    Part = tuple[DesiredImage, Group]
    """An image of a set, and what is registered of it."""


def plan_set(draft: Draft, parts: Sequence[Part]) -> None:
    """Make the images of one set available together, or none of them."""
    keepers = [of_version(draft, image, group)[0] for image, group in parts]
    awaited = [
        keeper is None or not keeper.ready or keeper.marker.state is not ImageState.AVAILABLE for keeper in keepers
    ]
    pins = [pinned_of(draft, group) for _, group in parts]
    error = _set_problem(draft, parts)
    is_left = any(_is_pin_revoked(draft, group) for _, group in parts)
    if is_left and error is not None and any(awaited):
        if not _leave_for_registered(draft, parts, error):
            _stay(draft, parts, pins, keepers)
        return
    if any(pins) and not is_left:
        _plan_pinned_set(draft, parts, pins, keepers)
        return
    if error is not None and any(awaited):
        for (image, group), is_awaited in zip(parts, awaited, strict=True):
            if is_awaited:
                draft.hold(registering(image, None, ImageState.STAGED), error)
            keep(draft, group, listed=True)
        return
    # One image alone is listed in one step.
    together = f"{parts[0][0].key.list_identifier}/{parts[0][0].set_identifier}" if sum(awaited) > 1 else None
    for (image, group), keeper in zip(parts, keepers, strict=True):
        if error is not None and draft.revoked.why_listed(image, group) is not None:
            keep(draft, group, listed=True)
        else:
            take_place(draft, image, group, keeper, together=together)
    if is_left:
        _drop_pins(draft, parts)


def _plan_pinned_set(
    draft: Draft,
    parts: Sequence[Part],
    pins: Sequence[RegisteredImage | None],
    keepers: Sequence[RegisteredImage | None],
) -> None:
    for (image, group), pinned, keeper in zip(parts, pins, keepers, strict=True):
        if pinned is None and _is_without_any(draft, image, group, keeper):
            # Its pinned version is gone: the newer one is better than none.
            take_place(draft, image, group, keeper)
        elif pinned is None:
            # The whole set was taken back: the other parts wait as well.
            keep(draft, group, listed=True)
        else:
            plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)


def _is_without_any(draft: Draft, image: DesiredImage, group: Group, keeper: RegisteredImage | None) -> bool:
    """Tell whether users find no version of an image, be it that all were deleted, while the listed one may be used."""
    found = [
        each
        for each in group
        if each.ready
        and each.marker.state is ImageState.AVAILABLE
        and each.cloud_identifier not in draft.touched
        and (each.marker.expires is None or each.marker.expires > draft.now)
    ]
    had = not group or any(each.marker.state is ImageState.SUPERSEDED for each in group)
    is_changed = keeper is None and of_version(draft, image, group)[1] is not None
    return had and not found and not is_changed and draft.revoked.why_listed(image, group) is None


def _is_pin_revoked(draft: Draft, group: Group) -> bool:
    """Tell whether the version that an administrator went back to is revoked, and nothing else is left of it."""
    pin = pin_of(draft, group)
    if pin is None or pinned_of(draft, group) is not None:
        return False
    return any(
        draft.version(each.marker.version) == pin
        and (each.marker.state is ImageState.REVOKED or draft.revoked.why_registered(each) is not None)
        for each in group
    )


def _stay(
    draft: Draft,
    parts: Sequence[Part],
    pins: Sequence[RegisteredImage | None],
    keepers: Sequence[RegisteredImage | None],
) -> None:
    """Leave as it is what is not revoked of a set that there is no other release of."""
    error = _nowhere(parts)
    for (image, group), pinned, keeper in zip(parts, pins, keepers, strict=True):
        if pinned is None:
            draft.hold(registering(image, None, ImageState.STAGED), error)
            keep(draft, group, listed=True)
        else:
            plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)


def _leave_for_registered(draft: Draft, parts: Sequence[Part], error: IncompleteSetError) -> bool:
    """Leave a release of which a part is revoked for the newest that is registered whole; tell whether there is one."""
    chosen = _newest_whole(draft, parts)
    if not chosen:
        return False
    hidden = sum(each.marker.state is not ImageState.AVAILABLE for each in chosen)
    together = f"{parts[0][0].key.list_identifier}/{parts[0][0].set_identifier}" if hidden > 1 else None
    reason = "a part of the release that was gone back to is revoked"
    for (image, group), best in zip(parts, chosen, strict=True):
        step = None
        if best.marker.state is not ImageState.AVAILABLE:
            step = draft.change(best, ImageState.AVAILABLE, reason, Phase.REACTIVATE, together=together)
        for other in group:
            is_done = other is best or other.cloud_identifier in draft.touched or draft.expire_by_own_date(other)
            if not is_done and other.marker.state is ImageState.AVAILABLE:
                draft.change(other, ImageState.SUPERSEDED, reason, Phase.DEPENDENT, after=step)
        draft.remove_old(group, listed=True, never=best)
        draft.hold(registering(image, None, ImageState.STAGED), error)
    _drop_pins(draft, parts)
    return True


def _newest_whole(draft: Draft, parts: Sequence[Part]) -> list[RegisteredImage]:
    """Return what is registered of the newest release of which all parts can be used; empty: there is none."""
    usable = [
        [
            each
            for each in group
            if each.ready
            and each.marker.set_identifier == image.set_identifier
            and each.marker.state in {ImageState.AVAILABLE, ImageState.SUPERSEDED}
            and each.cloud_identifier not in draft.touched
            and (each.marker.expires is None or each.marker.expires > draft.now)
        ]
        for image, group in parts
    ]
    found = {str(each.marker.set_version) for group in usable for each in group}
    for release in sorted(filter(Version.is_version, found), key=draft.version, reverse=True):
        chosen = []
        for (_, group), good in zip(parts, usable, strict=True):
            of_release = [each for each in good if each.marker.set_version == release]
            # An image that is the same in several releases bears the version of the newest.
            is_one = len({each.marker.version for each in group}) == 1
            chosen.append(min(of_release or (good if is_one else []), key=preference, default=None))
        whole = [each for each in chosen if each is not None]
        if len(whole) == len(parts):
            return whole
    return []


def _drop_pins(draft: Draft, parts: Sequence[Part]) -> None:
    """Take the pins from a set that left a release; what is revoked keeps its own: by it an interrupted run goes on."""
    pinned = {
        each.cloud_identifier: each
        for _, group in parts
        for each in group
        if each.marker.pin is not None and each.marker.state in STARTABLE
    }
    keys, last = {image.key for image, _ in parts}, None
    for step in draft.steps:
        on = step.action.registered
        if step.phase is Phase.REACTIVATE and step.action.key in keys:
            last = step
        if on is not None and on.cloud_identifier in pinned and step.action.kind is ActionKind.CHANGE_STATE:
            if step.action.state is not ImageState.REVOKED:
                step.action = replace(step.action, pin="")
            del pinned[on.cloud_identifier]
    for each in pinned.values():
        if each.cloud_identifier not in draft.touched:
            reason = "a part of the release that was gone back to is revoked"
            action = action_on(ActionKind.CHANGE_STATE, each, reason, state=each.marker.state, pin="")
            draft.add(Phase.DEPENDENT, action, after=last)


def _set_problem(draft: Draft, parts: Sequence[Part]) -> IncompleteSetError | None:
    """Return why the images of a set cannot be made available together; None: they can."""
    first = parts[0][0]
    versions = sorted({str(image.set_version) for image, _ in parts})
    why = next((image.set_problem for image, _ in parts if image.set_problem is not None), None)
    if why is None and len(versions) > 1:
        why = f"its images are of several releases: {', '.join(versions)}"
    for image, group in parts:
        if why is not None:
            break
        revoked = draft.revoked.why_listed(image, group)
        if revoked is not None:
            why = f"image {image.key.image_identifier} version {image.listed.version} is revoked: {revoked}"
        elif of_version(draft, image, group)[1] is not None:
            why = f"image {image.key.image_identifier} version {image.listed.version} is registered with other content"
    if why is None:
        return None
    return IncompleteSetError(
        f"set {first.set_identifier} release {versions[-1]} of list {first.key.list_identifier} is not whole: {why}",
        resolution="What is registered of the set stays as it is. Ask the list's endorser to publish the whole set; it "
        "is registered then.",
        context={"list": first.key.list_identifier, "set": first.set_identifier, "set_version": versions[-1]},
    )


def _nowhere(parts: Sequence[Part]) -> IncompleteSetError:
    first = parts[0][0]
    return IncompleteSetError(
        f"set {first.set_identifier} of list {first.key.list_identifier} was gone back to a release of which a part is "
        "revoked, and there is no release of which none is",
        resolution="What is not revoked stays as it is. Ask the list's endorser to publish a newer release of the set; "
        "it is registered then.",
        context={"list": first.key.list_identifier, "set": first.set_identifier},
    )
