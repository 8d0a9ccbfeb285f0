# SPDX-License-Identifier: Apache-2.0
"""What to do to a cloud: a pure function of what is desired, what is registered, the policy and the time.

The rules, in the order in which they are asked:

* What an administrator revoked, or what is built on it, is revoked at once, whatever is known of its list.
* A list that is not known (not fetched, refused, or older than what is registered): its images stay as they are, save
  that their own dates are obeyed.
* A list that is distrusted, or not followed any more: its images are withdrawn.
* A list that is known: what it names is registered, described anew or made available again, a set as a whole; an older
  version is superseded once the newer one is there; what it does not name any more is withdrawn, unless that is too
  much at once (`coppice.cloud.plan_image` has what is asked of one image, `coppice.cloud.plan_set` of a set).
* What somebody's hand changed in the cloud is brought back to what its state asks for.
* Whatever is not available for longer than the grace period is removed, unless it is the last good version of something
  that is still listed, or one of the last good ones that are to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE, Draft, action_on
from coppice.cloud.model import ImageState
from coppice.cloud.plan_image import keep, plan_image
from coppice.cloud.plan_set import plan_set
from coppice.cloud.revocation import Revoked
from coppice.cloud.steps import ActionKind, Held
from coppice.errors import DeletionCapError, OlderListError
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from coppice.cloud.model import Desired, DesiredList, Policy, RegisteredImage
    from coppice.cloud.plan_image import Group
    from coppice.cloud.plan_set import Part
    from coppice.cloud.steps import Plan
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier


def plan(
    desired: Desired,
    registered: Sequence[RegisteredImage],
    policy: Policy,
    now: datetime,
    cloud: str,
    *,
    listed: Desired | None = None,
) -> Plan:
    """Return what brings a cloud from ``registered`` to ``desired``.

    The order of ``registered`` does not matter. Time and memory are linear in both (sorting aside).

    Args:
        desired: What the site wants; a list at most once.
        registered: All that the cloud has of this site, complete.
        policy: How to treat what is registered.
        now: This instant.
        cloud: Name of the target.
        listed: What lists name that are not to be followed now: it tells what is built on what is revoked. None: what
            is ``desired`` does.

    Raises:
        ValueError: A version in ``desired`` has no place in the order of versions.
    """
    draft = Draft(policy=policy, now=now, revoked=Revoked(desired.revocations, listed or desired, registered))
    ordered = sorted(registered, key=_order)
    draft.revoke(ordered)
    wanted_lists = {wanted.identifier: wanted for wanted in desired.lists}
    by_list = _grouped(ordered)
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
    for image in registered:
        key = image.marker.key
        by_list.setdefault(key.list_identifier, {}).setdefault(key.image_identifier, []).append(image)
    return by_list


def _order(image: RegisteredImage) -> tuple[str, str, str]:
    key = image.marker.key
    return (key.list_identifier, key.image_identifier, image.cloud_identifier)


def _keep_unknown(draft: Draft, groups: Iterable[Group], *, listed: bool) -> None:
    for group in groups:
        keep(draft, group, listed=listed)


def _plan_list(draft: Draft, wanted: DesiredList, groups: Mapping[ImageIdentifier, Group]) -> None:
    floor = max(
        (draft.version(image.marker.list_version) for group in groups.values() for image in group), default=None
    )
    if floor is not None and draft.version(wanted.version) < floor and not _is_taken_back(wanted, floor):
        draft.held.append(Held(list_identifier=wanted.identifier, action=None, error=_rollback(wanted, floor)))
        # What its newest version names is not known: whatever may still be listed keeps its last good version.
        _keep_unknown(draft, groups.values(), listed=True)
        return
    listed = {image.key.image_identifier: image for image in wanted.images}
    missing: dict[ImageIdentifier, Group] = {}
    sets: dict[str, list[Part]] = {}
    for identifier in sorted({*listed, *groups}):
        group = groups.get(identifier, [])
        image = listed.get(identifier)
        if identifier in wanted.unknown:
            keep(draft, group, listed=True)
        elif wanted.expires <= draft.now or (image is not None and image.expires <= draft.now):
            for each in group:
                draft.expire(each, "its endorsement has ended")
            draft.remove_old(group, listed=False)
        elif image is None:
            missing[identifier] = group
        elif image.set_identifier is not None:
            sets.setdefault(image.set_identifier, []).append((image, group))
        else:
            plan_image(draft, image, group)
    for _, parts in sorted(sets.items()):
        plan_set(draft, parts)
    _plan_missing(draft, wanted, missing, groups)


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
