# SPDX-License-Identifier: Apache-2.0
"""What to do with one listed image; `coppice.cloud.plan_set` has what is asked of a set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE, Phase, action_on, drift_reason
from coppice.cloud.model import ImageState
from coppice.cloud.properties import lineage_of, presentation_digest, presentation_of
from coppice.cloud.steps import Action, ActionKind
from coppice.errors import ChangedListError, RevokedImageError

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.cloud.draft import Draft, Step
    from coppice.cloud.model import DesiredImage, RegisteredImage
    from coppice.model.version import Version

    Group = list[RegisteredImage]
    """Everything that is registered of one image of one list."""


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
    keeper, changed = of_version(draft, image, group)
    if changed is not None:
        draft.hold(registering(image, None), _changed(image, changed))
        keep(draft, group, listed=True)
        return
    pinned = pinned_of(draft, group)
    if pinned is not None:
        plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)
    else:
        take_place(draft, image, group, keeper)


def pinned_of(draft: Draft, group: Group) -> RegisteredImage | None:
    """Return the version that an administrator went back to, if it can still be used; None: there is none."""
    pin = pin_of(draft, group)
    if pin is None:
        return None
    matching = [
        each
        for each in group
        if each.ready
        and draft.version(each.marker.version) == pin
        and each.marker.state in STARTABLE
        and each.cloud_identifier not in draft.touched
        and (each.marker.expires is None or each.marker.expires > draft.now)
    ]
    return min(matching, key=preference, default=None)


def pin_of(draft: Draft, group: Group) -> Version | None:
    """Return the version that an administrator went back to last; None: to none."""
    pins = [each.marker for each in group if each.marker.pin is not None]
    if not pins:
        return None
    return draft.version(str(max(pins, key=lambda marker: (marker.state_since, str(marker.pin))).pin))


def of_version(
    draft: Draft, image: DesiredImage, group: Group
) -> tuple[RegisteredImage | None, RegisteredImage | None]:
    """Return what is registered of the listed version, the best of it; and what has other content, if all of it has."""
    if not group:
        return None, None
    order, checksum = draft.version(image.listed.version), image.listed.checksum
    same = [each for each in group if draft.version(each.marker.version) == order]
    exact = [each for each in same if each.marker.digest.matches(checksum)]
    if len(exact) > 1:
        return min(exact, key=preference), None
    if exact:
        return exact[0], None
    return None, same[0] if same else None


def preference(image: RegisteredImage) -> tuple[bool, bool, str]:
    """Return what the best of several that are the same has the least of."""
    return (not image.ready, image.marker.state is not ImageState.AVAILABLE, image.cloud_identifier)


def take_place(
    draft: Draft, image: DesiredImage, group: Group, keeper: RegisteredImage | None, *, together: str | None = None
) -> None:
    """Make what is listed available, then hide what it takes the place of."""
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
            return draft.add(Phase.REGISTER, registering(image, keeper))
        registered = draft.add(Phase.REGISTER, registering(image, keeper, ImageState.STAGED))
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


def registering(
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


def plan_pinned(draft: Draft, image: DesiredImage, group: Group, pinned: RegisteredImage, *, is_listed: bool) -> None:
    """Keep the version available that an administrator went back to; newer ones wait."""
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
