# SPDX-License-Identifier: Apache-2.0
"""What to do to a cloud: a pure function of what is desired, what is registered, the policy and the time.

The rules, in the order in which they are asked of each list:

* It is not known (not fetched, refused, or older than what is registered): its images stay as they are, save that
  their own dates are obeyed.
* It is distrusted, or not followed any more: its images are withdrawn.
* It is known: what it names is registered, described anew or made available again; an older version is superseded
  once the newer one is there; what it does not name any more is withdrawn, unless that is too much at once.
* Whatever is superseded, expired or withdrawn for longer than the grace period is removed, unless it is the last good
  version of something that is still listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE, Draft, Phase, action_on
from coppice.cloud.model import ImageState
from coppice.cloud.properties import presentation_digest, presentation_of
from coppice.cloud.steps import ActionKind, Held
from coppice.errors import ChangedListError, DeletionCapError, OlderListError
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from coppice.cloud.draft import Step
    from coppice.cloud.model import Desired, DesiredImage, DesiredList, Policy, RegisteredImage
    from coppice.cloud.steps import Plan
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier

    Group = list[RegisteredImage]
    """Everything that is registered of one image of one list."""


def plan(desired: Desired, registered: Sequence[RegisteredImage], policy: Policy, now: datetime, cloud: str) -> Plan:
    """Return what brings a cloud from ``registered`` to ``desired``.

    The order of ``registered`` does not matter. Time and memory are linear in both (sorting aside).

    Args:
        desired: What the site wants; a list at most once.
        registered: All that the cloud has of this site, complete.
        policy: How to treat what is registered.
        now: This instant.
        cloud: Name of the target.

    Raises:
        ValueError: A version in ``desired`` has no place in the order of versions.
    """
    draft = Draft(policy=policy, now=now)
    wanted_lists = {wanted.identifier: wanted for wanted in desired.lists}
    by_list = _grouped(registered)
    for identifier in sorted({*wanted_lists, *by_list}):
        groups = by_list.get(identifier, {})
        wanted = wanted_lists.get(identifier)
        if wanted is not None:
            _plan_list(draft, wanted, groups)
        elif identifier in desired.unsubscribed or identifier in desired.distrusted:
            gone = identifier in desired.unsubscribed
            reason = "its list is not subscribed to any more" if gone else "a certificate behind its list is revoked"
            for group in groups.values():
                draft.withdraw(group, reason)
                draft.remove_old(group, listed=False)
        else:
            _keep_unknown(draft, groups.values(), listed=False)
    return draft.finish(cloud, registered)


def _grouped(registered: Sequence[RegisteredImage]) -> dict[ListIdentifier, dict[ImageIdentifier, Group]]:
    by_list: dict[ListIdentifier, dict[ImageIdentifier, Group]] = {}
    for image in sorted(registered, key=lambda each: (each.marker.key, each.cloud_identifier)):
        key = image.marker.key
        by_list.setdefault(key.list_identifier, {}).setdefault(key.image_identifier, []).append(image)
    return by_list


def _keep_unknown(draft: Draft, groups: Iterable[Group], *, listed: bool) -> None:
    for group in groups:
        for image in group:
            draft.expire_by_own_date(image)
        draft.remove_old(group, listed=listed)


def _plan_list(draft: Draft, wanted: DesiredList, groups: Mapping[ImageIdentifier, Group]) -> None:
    floor = max((Version(image.marker.list_version) for group in groups.values() for image in group), default=None)
    if floor is not None and Version(wanted.version) < floor and not _is_taken_back(wanted, floor):
        draft.held.append(Held(list_identifier=wanted.identifier, action=None, error=_rollback(wanted, floor)))
        # What its newest version names is not known: whatever may still be listed keeps its last good version.
        _keep_unknown(draft, groups.values(), listed=True)
        return
    listed = {image.key.image_identifier: image for image in wanted.images}
    missing: dict[ImageIdentifier, Group] = {}
    for identifier in sorted({*listed, *groups}):
        group = groups.get(identifier, [])
        image = listed.get(identifier)
        if identifier in wanted.unknown:
            _keep_unknown(draft, [group], listed=True)
        elif wanted.expires <= draft.now or (image is not None and image.expires <= draft.now):
            for each in group:
                draft.expire(each, "its endorsement has ended")
            draft.remove_old(group, listed=False)
        elif image is None:
            missing[identifier] = group
        else:
            _plan_image(draft, image, group)
    _plan_missing(draft, wanted, missing, groups)


def _plan_image(draft: Draft, image: DesiredImage, group: Group) -> None:
    order = Version(image.listed.version)
    same = [each for each in group if Version(each.marker.version) == order]
    exact = [each for each in same if each.marker.digest.matches(image.listed.checksum)]
    if same and not exact:
        draft.hold(draft.registering(image, None), _changed(image, same[0]))
        _keep_unknown(draft, [group], listed=True)
        return
    keeper = min(exact, key=_preference, default=None)
    pinned = _pinned(group)
    if pinned is not None:
        _plan_pinned(draft, image, group, pinned, is_listed=pinned is keeper)
        return
    step = _make_available(draft, image, keeper)
    for other in group:
        if other is keeper or draft.expire_by_own_date(other) or other.marker.state is not ImageState.AVAILABLE:
            continue
        if Version(other.marker.version) > order:
            draft.change(
                other, ImageState.WITHDRAWN, f"the list went back to version {order}", Phase.DEPENDENT, after=step
            )
        else:
            draft.change(other, ImageState.SUPERSEDED, f"version {order} takes its place", Phase.DEPENDENT, after=step)
    draft.remove_old(group, listed=True)


def _make_available(draft: Draft, image: DesiredImage, keeper: RegisteredImage | None) -> Step | None:
    if keeper is None or not keeper.ready:
        return draft.add(Phase.REGISTER, draft.registering(image, keeper))
    step = None
    if keeper.marker.state is not ImageState.AVAILABLE:
        reason = f"it was {keeper.marker.state} and is listed"
        step = draft.change(keeper, ImageState.AVAILABLE, reason, Phase.REACTIVATE, desired=image)
    _describe_anew(draft, image, keeper, after=step)
    return step


def _describe_anew(draft: Draft, image: DesiredImage, keeper: RegisteredImage, after: Step | None) -> None:
    marker = keeper.marker
    if marker.metadata_digest != presentation_digest(presentation_of(image)):
        reason = "its description changed"
    elif after is None and (
        _seconds(marker.expires) != _seconds(image.expires) or marker.list_version != image.list_version
    ):
        # The dates and the floor against rollback must hold even after the database is lost.
        reason = f"list version {image.list_version} confirms it anew"
    else:
        return
    action = action_on(ActionKind.UPDATE_METADATA, keeper, reason, desired=image)
    draft.add(Phase.DESCRIBE, action, after=after)


def _plan_pinned(draft: Draft, image: DesiredImage, group: Group, pinned: RegisteredImage, *, is_listed: bool) -> None:
    # An administrator went back to this version: it stays the available one, and newer ones wait.
    if is_listed:
        _make_available(draft, image, pinned)
    elif not draft.expire_by_own_date(pinned) and pinned.marker.state is ImageState.SUPERSEDED:
        draft.change(pinned, ImageState.AVAILABLE, "it is pinned", Phase.REACTIVATE)
    others = [each for each in group if each is not pinned]
    for other in others:
        draft.expire_by_own_date(other)
    draft.remove_old(group, listed=True, never=pinned)


def _plan_missing(
    draft: Draft,
    wanted: DesiredList,
    missing: Mapping[ImageIdentifier, Group],
    groups: Mapping[ImageIdentifier, Group],
) -> None:
    for group in missing.values():
        for image in group:
            draft.expire_by_own_date(image)
    withdrawn = [group for group in missing.values() if draft.withdrawals(group)]
    startable = sum(1 for group in groups.values() if any(each.marker.state in STARTABLE for each in group))
    error = _cap(wanted, len(withdrawn), startable, draft.policy)
    reason = f"list version {wanted.version} does not name it, or it is not selected any more"
    for group in missing.values():
        if error is None:
            draft.withdraw(group, reason)
        else:
            for image in draft.withdrawals(group):
                action = action_on(ActionKind.CHANGE_STATE, image, reason, state=ImageState.WITHDRAWN)
                draft.hold(action, error)
        draft.remove_old(group, listed=error is not None)


def _cap(wanted: DesiredList, withdrawn: int, startable: int, policy: Policy) -> DeletionCapError | None:
    if policy.allow_withdrawals or withdrawn == 0:
        return None
    too_many = startable >= policy.cap_from_images and withdrawn > policy.maximum_withdrawn_share * startable
    if wanted.images and not too_many:
        return None
    return DeletionCapError(
        f"list {wanted.identifier} version {wanted.version} would withdraw {withdrawn} of "
        f"{startable} registered images",
        details=f"the most that is withdrawn unasked is {policy.maximum_withdrawn_share:.0%}, from "
        f"{policy.cap_from_images} images on; a list that names no image is always held",
        resolution="Ask the list's endorser whether this is meant; if so, run again with --allow-withdrawals.",
        context={"list": wanted.identifier, "withdrawn": withdrawn, "registered": startable},
    )


def _is_taken_back(wanted: DesiredList, floor: Version) -> bool:
    return wanted.taken_back is not None and floor <= Version(wanted.taken_back)


def _rollback(wanted: DesiredList, floor: Version) -> OlderListError:
    return OlderListError(
        f"list {wanted.identifier} version {wanted.version} is older than version {floor}, of which images are "
        "registered",
        resolution="Nothing of this list was changed. Fetch it again; if its server keeps giving the old version, "
        "tell its publisher.",
        context={"list": wanted.identifier, "version": wanted.version, "registered_version": str(floor)},
    )


def _changed(image: DesiredImage, registered: RegisteredImage) -> ChangedListError:
    return ChangedListError(
        f"image {image.key} version {image.listed.version} is listed with other content than is registered",
        details=f"listed {image.listed.checksum}, registered {registered.marker.digest}",
        resolution="A version never changes: ask the list's endorser to publish the new content as a new version.",
        context={"image": str(image.key), "version": image.listed.version},
    )


def _seconds(instant: datetime | None) -> datetime | None:
    # A cloud keeps instants to the second.
    return None if instant is None else instant.replace(microsecond=0)


def _preference(image: RegisteredImage) -> tuple[bool, bool, str]:
    return (not image.ready, image.marker.state is not ImageState.AVAILABLE, image.cloud_identifier)


def _pinned(group: Group) -> RegisteredImage | None:
    pins = [each.marker for each in group if each.marker.pin is not None]
    if not pins:
        return None
    newest = max(pins, key=lambda marker: (marker.state_since, str(marker.pin)))
    pin = Version(str(newest.pin))
    matching = [each for each in group if each.ready and Version(each.marker.version) == pin]
    return min(matching, key=_preference, default=None)
