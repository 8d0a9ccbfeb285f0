# SPDX-License-Identifier: Apache-2.0
"""Outlook: how each appliance stands in each cloud, and what happens to it next. Pure.

What happens next is asked of the plan itself: of today's, and where that leaves an appliance alone, of the plan of each
day on which something ends.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.cloud.draft import STARTABLE
from coppice.cloud.model import ImageState
from coppice.cloud.plan import plan
from coppice.cloud.revocation import Revoked
from coppice.cloud.steps import ActionKind
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coppice.cloud.model import Desired, DesiredImage, DesiredList, Policy, RegisteredImage
    from coppice.cloud.steps import Action, Plan
    from coppice.model.identifiers import ImageKey


class Standing(StrEnum):
    """How an appliance stands in a cloud."""

    CURRENT = "current"
    """The newest version that its list names can be started."""
    PINNED = "pinned"
    """An administrator went back to an earlier version."""
    BEHIND = "behind"
    """An older version can be started, and the newest cannot yet."""
    REVOKED = "revoked"
    """What its list names is revoked: nothing of it is registered; an earlier version may be there still."""
    MISSING = "missing"
    """Its list names it, and nothing of it can be started."""
    LEAVING = "leaving"
    """No list names it any more, or its time is over: what is there goes."""
    UNKNOWN = "unknown"
    """Nothing is known of its list today; what is registered stays until its own dates."""
    UNSEEN = "unseen"
    """The cloud was never asked what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """The next thing to happen to an appliance.

    Attributes:
        what: ``register``, ``update-metadata``, ``remove``, or the state that something goes to.
        version: Of which version.
        reason: Why.
        at: When, at the earliest; None: with the next run.
        held: True when it waits for an administrator.
    """

    what: str
    version: str
    reason: str
    at: datetime | None = None
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplianceOutlook:
    """How an appliance stands in a cloud.

    Attributes:
        cloud: Name of the target.
        key: Which image of which list.
        title: What people call it.
        vo: Virtual organisation of its list.
        standing: In one word.
        listed: The newest version that its list names; None: it does not, or is not known.
        registered: The version that users get, or the newest that is there; None: none is.
        state: Of that version.
        since: Since when it is in that state.
        expires: When that version's endorsement ends.
        next_step: What happens next; None: nothing that is known of.
        versions: Everything that is registered of it, the newest version first.
    """

    cloud: str
    key: ImageKey
    title: str
    vo: str | None
    standing: Standing
    listed: str | None
    registered: str | None
    state: ImageState | None
    since: datetime | None
    expires: datetime | None
    next_step: NextStep | None
    versions: tuple[RegisteredImage, ...]


def outlook(
    cloud: str, desired: Desired, registered: Sequence[RegisteredImage] | None, policy: Policy, now: datetime
) -> tuple[ApplianceOutlook, ...]:
    """Return how every appliance stands that is wanted in a cloud, or is there; by title.

    Args:
        cloud: Name of the target.
        desired: What is wanted in it, as `coppice.workflows.mapping.desired_for` gives it.
        registered: What it was seen to have; None: it was never asked.
        policy: How what is registered is treated.
        now: This instant.
    """
    groups: defaultdict[ImageKey, list[RegisteredImage]] = defaultdict(list)
    for image in registered or ():
        groups[image.marker.key].append(image)
    wanted = {image.key: image for each in desired.lists for image in each.images}
    steps = {} if registered is None else _steps(plan(desired, registered, policy, now, cloud))
    lists = {each.identifier: each for each in desired.lists}
    revoked = Revoked(desired.revocations, desired, registered or ())
    found = []
    for key in sorted({*groups, *wanted}):
        versions = tuple(sorted(groups[key], key=_newest_first, reverse=True))
        one = _One(key=key, image=wanted.get(key), versions=versions, of_list=lists.get(key.list_identifier))
        step = steps.get(key)
        if step is None and registered is not None:
            why = None if one.image is None else revoked.why_listed(one.image, versions)
            step = _later(_alone(one, desired, why), versions, policy, now, cloud)
        standing = Standing.UNSEEN if registered is None else _standing(one, desired, revoked, now)
        found.append(_outlook(cloud, one, standing, step))
    return tuple(sorted(found, key=lambda each: (each.title.casefold(), each.key)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    """What is known of one appliance in a cloud.

    Attributes:
        key: Which.
        image: What is wanted of it.
        versions: What is there of it, the newest version first.
        of_list: Its list.
    """

    key: ImageKey
    image: DesiredImage | None
    versions: tuple[RegisteredImage, ...]
    of_list: DesiredList | None

    @property
    def shown(self) -> RegisteredImage | None:
        """The version that users get, or else the newest one that is there."""
        ordered = sorted(
            self.versions, key=lambda each: (not each.ready, each.marker.state is not ImageState.AVAILABLE)
        )
        return ordered[0] if ordered else None


def _outlook(cloud: str, one: _One, standing: Standing, step: NextStep | None) -> ApplianceOutlook:
    image, shown = one.image, one.shown
    title = image.listed.title if image is not None else shown.name if shown is not None else str(one.key)
    return ApplianceOutlook(
        cloud=cloud,
        key=one.key,
        title=title,
        vo=image.vo if image is not None else shown.marker.vo if shown is not None else None,
        standing=standing,
        listed=None if image is None else image.listed.version,
        registered=None if shown is None else shown.marker.version,
        state=None if shown is None else shown.marker.state,
        since=None if shown is None else shown.marker.state_since,
        expires=None if shown is None else shown.marker.expires,
        next_step=step,
        versions=one.versions,
    )


def _newest_first(image: RegisteredImage) -> tuple[Version, str]:
    return Version(image.marker.version), image.cloud_identifier


def _standing(one: _One, desired: Desired, revoked: Revoked, now: datetime) -> Standing:
    image, shown = one.image, one.shown
    if image is None:
        return Standing.UNKNOWN if _is_unknown(one, desired) else Standing.LEAVING
    if image.expires <= now:
        return Standing.LEAVING
    if revoked.why_listed(image, one.versions) is not None:
        return Standing.REVOKED
    if shown is None or not shown.ready or shown.marker.state not in STARTABLE:
        return Standing.MISSING
    if any(each.marker.pin is not None and each.marker.pin == shown.marker.version for each in one.versions):
        return Standing.PINNED
    same = Version(shown.marker.version) == Version(image.listed.version)
    return Standing.CURRENT if same and shown.marker.state is ImageState.AVAILABLE else Standing.BEHIND


def _is_unknown(one: _One, desired: Desired) -> bool:
    if one.of_list is not None:
        return one.key.image_identifier in one.of_list.unknown
    return one.key.list_identifier not in desired.unsubscribed | desired.distrusted


def _steps(made: Plan) -> dict[ImageKey, NextStep]:
    """Return the first step that a plan has for each appliance."""
    steps: dict[ImageKey, NextStep] = {}
    for action in made.actions:
        steps.setdefault(action.key, _step(action))
    for held in made.held:
        if held.action is not None:
            waits = replace(_step(held.action), reason=held.error.message, held=True)
            steps.setdefault(held.action.key, waits)
    return steps


def _step(action: Action) -> NextStep:
    changes = action.kind is ActionKind.CHANGE_STATE and action.state is not None
    return NextStep(what=str(action.state if changes else action.kind), version=action.version, reason=action.reason)


def _alone(one: _One, desired: Desired, revoked: str | None) -> Desired:
    """Return what is desired of one appliance alone; why it is revoked is not asked again: others have a part in it."""
    desired = replace(desired, revocations=())
    if one.of_list is None:
        return replace(desired, lists=())
    images = () if one.image is None else (replace(one.image, revoked=revoked),)
    unknown = one.of_list.unknown & {one.key.image_identifier}
    return replace(desired, lists=(replace(one.of_list, images=images, unknown=unknown),))


def _later(
    desired: Desired, versions: Sequence[RegisteredImage], policy: Policy, now: datetime, cloud: str
) -> NextStep | None:
    """Return what happens on the first day on which anything does."""
    for at in sorted(_ends(desired, versions, policy, now)):
        step = next(iter(_steps(plan(desired, versions, policy, at, cloud)).values()), None)
        if step is not None:
            return replace(step, at=at)
    return None


def _ends(desired: Desired, versions: Iterable[RegisteredImage], policy: Policy, now: datetime) -> set[datetime]:
    ends = {image.expires for each in desired.lists for image in each.images}
    for version in versions:
        marker = version.marker
        if marker.expires is not None:
            ends.add(marker.expires)
        ends.add(marker.state_since + policy.retention_of(marker).grace)
    return {each for each in ends if each > now}
