# SPDX-License-Identifier: Apache-2.0
"""What to do with one listed image, and with the images of a set.

The images of a set are of no use without each other. New versions are registered staged, and listed when all of them
are whole; what they take the place of is hidden after that. A set that is not whole stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE, Phase, action_on, drift_reason
from coppice.cloud.model import ImageState
from coppice.cloud.properties import lineage_of, presentation_digest, presentation_of
from coppice.cloud.steps import Action, ActionKind
from coppice.errors import ChangedListError, IncompleteSetError, RevokedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.cloud.draft import Draft, Step
    from coppice.cloud.model import DesiredImage, RegisteredImage

    Group = list[RegisteredImage]
    """Everything that is registered of one image of one list."""
    Part = tuple[DesiredImage, Group]
    """An image of a set, and what is registered of it."""


def keep(draft: Draft, group: Group, *, listed: bool) -> None:
    """Leave a group as it is, but for what its own dates say."""
    for image in group:
        draft.expire_by_own_date(image)
    draft.remove_old(group, listed=listed)


def plan_image(draft: Draft, image: DesiredImage, group: Group) -> None:
    """Make ``image`` available and hide what it takes the place of."""
    why = draft.revoked.why_listed(image, group)
    if why is not None:
        draft.refused.append(_revoked(image, why))
        keep(draft, group, listed=True)
        return
    keeper, changed = _of_version(draft, image, group)
    if changed is not None:
        draft.hold(_registering(image, None), _changed(image, changed))
        keep(draft, group, listed=True)
        return
    pinned = pinned_of(draft, group)
    if pinned is not None:
        _plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)
    else:
        _replace(draft, image, group, keeper)


def plan_set(draft: Draft, parts: Sequence[Part]) -> None:
    """Make the images of one set available together, or none of them."""
    keepers = [_of_version(draft, image, group)[0] for image, group in parts]
    awaited = [
        keeper is None or not keeper.ready or keeper.marker.state is not ImageState.AVAILABLE for keeper in keepers
    ]
    pins = [pinned_of(draft, group) for _, group in parts]
    if any(pins):
        for (image, group), pinned, keeper in zip(parts, pins, keepers, strict=True):
            if pinned is None and _is_without_any(draft, image, group, keeper):
                # Its pinned version is gone: the newer one is better than none.
                _replace(draft, image, group, keeper)
            elif pinned is None:
                # The whole set was taken back: the other parts wait as well.
                keep(draft, group, listed=True)
            else:
                _plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)
        return
    error = _set_problem(draft, parts)
    if error is not None and any(awaited):
        for (image, group), is_awaited in zip(parts, awaited, strict=True):
            if is_awaited:
                draft.hold(_registering(image, None, ImageState.STAGED), error)
            keep(draft, group, listed=True)
        return
    # One image alone is listed in one step.
    together = f"{parts[0][0].key.list_identifier}/{parts[0][0].set_identifier}" if sum(awaited) > 1 else None
    for (image, group), keeper in zip(parts, keepers, strict=True):
        if error is not None and draft.revoked.why_listed(image, group) is not None:
            keep(draft, group, listed=True)
        else:
            _replace(draft, image, group, keeper, together=together)


def pinned_of(draft: Draft, group: Group) -> RegisteredImage | None:
    """Return the version that an administrator went back to, if it can still be used; None: there is none."""
    pins = [each.marker for each in group if each.marker.pin is not None]
    if not pins:
        return None
    newest = max(pins, key=lambda marker: (marker.state_since, str(marker.pin)))
    pin = draft.version(str(newest.pin))
    matching = [
        each
        for each in group
        if each.ready
        and draft.version(each.marker.version) == pin
        and each.marker.state in STARTABLE
        and each.cloud_identifier not in draft.touched
        and (each.marker.expires is None or each.marker.expires > draft.now)
    ]
    return min(matching, key=_preference, default=None)


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
    is_changed = keeper is None and _of_version(draft, image, group)[1] is not None
    return had and not found and not is_changed and draft.revoked.why_listed(image, group) is None


def _of_version(
    draft: Draft, image: DesiredImage, group: Group
) -> tuple[RegisteredImage | None, RegisteredImage | None]:
    """Return what is registered of the listed version, the best of it; and what has other content, if all of it has."""
    if not group:
        return None, None
    order, checksum = draft.version(image.listed.version), image.listed.checksum
    same = [each for each in group if draft.version(each.marker.version) == order]
    exact = [each for each in same if each.marker.digest.matches(checksum)]
    if len(exact) > 1:
        return min(exact, key=_preference), None
    if exact:
        return exact[0], None
    return None, same[0] if same else None


def _preference(image: RegisteredImage) -> tuple[bool, bool, str]:
    return (not image.ready, image.marker.state is not ImageState.AVAILABLE, image.cloud_identifier)


def _replace(
    draft: Draft, image: DesiredImage, group: Group, keeper: RegisteredImage | None, *, together: str | None = None
) -> None:
    step = _make_available(draft, image, keeper, together=together)
    order = draft.version(image.listed.version)
    for other in group:
        state = other.marker.state
        if other is keeper or other.cloud_identifier in draft.touched or draft.expire_by_own_date(other):
            continue
        if state is ImageState.STAGED:
            draft.change(other, ImageState.WITHDRAWN, "its set was never listed", Phase.DEPENDENT, after=step)
        elif state is not ImageState.AVAILABLE:
            continue
        elif draft.version(other.marker.version) > order:
            reason = f"the list went back to version {order}"
            draft.change(other, ImageState.WITHDRAWN, reason, Phase.DEPENDENT, after=step)
        else:
            draft.change(other, ImageState.SUPERSEDED, f"version {order} takes its place", Phase.DEPENDENT, after=step)
    draft.remove_old(group, listed=True)


def _make_available(
    draft: Draft, image: DesiredImage, keeper: RegisteredImage | None, *, together: str | None = None
) -> Step | None:
    if keeper is None or not keeper.ready:
        if together is None:
            return draft.add(Phase.REGISTER, _registering(image, keeper))
        registered = draft.add(Phase.REGISTER, _registering(image, keeper, ImageState.STAGED))
        return draft.add(Phase.REACTIVATE, _flip(image, together), after=registered)
    step = None
    if keeper.marker.state is not ImageState.AVAILABLE:
        staged = keeper.marker.state is ImageState.STAGED
        reason = "all of its set are registered" if staged else f"it was {keeper.marker.state} and is listed"
        step = draft.change(keeper, ImageState.AVAILABLE, reason, Phase.REACTIVATE, desired=image, together=together)
    elif keeper.drift is not None:
        reason = drift_reason(keeper)
        step = draft.change(keeper, ImageState.AVAILABLE, reason, Phase.REACTIVATE, desired=image)
    _describe_anew(draft, image, keeper, after=step)
    return step


def _registering(
    image: DesiredImage, unfinished: RegisteredImage | None, state: ImageState = ImageState.AVAILABLE
) -> Action:
    """Return the action that registers ``image``, anew where a registration did not end."""
    if unfinished is None:
        reason = "it is listed and not registered"
    else:
        reason = f"its registration did not end{f': {unfinished.problem}' if unfinished.problem else ''}"
    return Action(
        kind=ActionKind.REGISTER,
        key=image.key,
        version=image.listed.version,
        digest=image.listed.checksum,
        reason=reason,
        desired=image,
        registered=unfinished,
        state=state,
    )


def _flip(image: DesiredImage, together: str) -> Action:
    return Action(
        kind=ActionKind.CHANGE_STATE,
        key=image.key,
        version=image.listed.version,
        digest=image.listed.checksum,
        reason="all of its set are registered",
        desired=image,
        state=ImageState.AVAILABLE,
        together=together,
    )


def _describe_anew(draft: Draft, image: DesiredImage, keeper: RegisteredImage, after: Step | None) -> None:
    marker = keeper.marker
    if marker.metadata_digest != presentation_digest(presentation_of(image)):
        reason = "its description changed"
    elif after is None and (
        _seconds(marker.expires) != _seconds(image.expires)
        or marker.list_version != image.list_version
        or (marker.vo, marker.set_identifier, marker.set_version) != (image.vo, image.set_identifier, image.set_version)
        or marker.built_on != lineage_of(image.built_on)
    ):
        # The dates and the floor against rollback must hold even after the database is lost.
        reason = f"list version {image.list_version} confirms it anew"
    else:
        return
    action = action_on(ActionKind.UPDATE_METADATA, keeper, reason, desired=image)
    draft.add(Phase.DESCRIBE, action, after=after)


def _seconds(instant: datetime | None) -> datetime | None:
    # A cloud keeps instants to the second.
    return None if instant is None or instant.microsecond == 0 else instant.replace(microsecond=0)


def _plan_pinned(draft: Draft, image: DesiredImage, group: Group, pinned: RegisteredImage, *, is_listed: bool) -> None:
    # An administrator went back to this version: it stays the available one, and newer ones wait.
    step = None
    if is_listed:
        step = _make_available(draft, image, pinned)
    elif pinned.marker.state is not ImageState.AVAILABLE or pinned.drift is not None:
        reason = "it is pinned" if pinned.drift is None else drift_reason(pinned)
        step = draft.change(pinned, ImageState.AVAILABLE, reason, Phase.REACTIVATE)
    for other in group:
        is_left = other is pinned or other.cloud_identifier in draft.touched or draft.expire_by_own_date(other)
        if not is_left and other.marker.state is ImageState.AVAILABLE:
            # Going back did not come to its end.
            reason = f"version {pinned.marker.version} is pinned"
            draft.change(other, ImageState.SUPERSEDED, reason, Phase.DEPENDENT, after=step)
    draft.remove_old(group, listed=True, never=pinned)


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
        elif _of_version(draft, image, group)[1] is not None:
            why = f"image {image.key.image_identifier} version {image.listed.version} is registered with other content"
    if why is None:
        return None
    return IncompleteSetError(
        f"set {first.set_identifier} release {versions[-1]} of list {first.key.list_identifier} is not whole: {why}",
        resolution="What is registered of the set stays as it is. Ask the list's endorser to publish the whole set; it "
        "is registered then.",
        context={"list": first.key.list_identifier, "set": first.set_identifier, "set_version": versions[-1]},
    )


def _revoked(image: DesiredImage, why: str) -> RevokedImageError:
    return RevokedImageError(
        f"image {image.key} version {image.listed.version} is listed and revoked: {why}",
        details=f"digest {image.listed.checksum}",
        resolution="It is not registered. If that is not meant, take it back: coppice image unrevoke.",
        context={"image": str(image.key), "version": image.listed.version, "digest": str(image.listed.checksum)},
    )


def _changed(image: DesiredImage, registered: RegisteredImage) -> ChangedListError:
    return ChangedListError(
        f"image {image.key} version {image.listed.version} is listed with other content than is registered",
        details=f"listed {image.listed.checksum}, registered {registered.marker.digest}",
        resolution="A version never changes: ask the list's endorser to publish the new content as a new version.",
        context={"image": str(image.key), "version": image.listed.version},
    )
