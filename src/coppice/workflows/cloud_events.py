# SPDX-License-Identifier: Apache-2.0
"""Events of what is done to a cloud. The cloud is the truth: after a run that was killed, it says what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.model import ImageState
from coppice.cloud.steps import ActionKind
from coppice.events.intended import IntendedEvent, IntendedEvents
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.clock import Clock
    from coppice.cloud.model import RegisteredImage
    from coppice.cloud.steps import Action, ActionResult, Plan
    from coppice.database import Database

_KINDS = {
    ActionKind.REGISTER: EventKind.IMAGE_REGISTERED,
    ActionKind.UPDATE_METADATA: EventKind.IMAGE_UPDATED,
    ActionKind.REMOVE: EventKind.IMAGE_REMOVED,
}
_STATES = {
    ImageState.AVAILABLE: EventKind.IMAGE_AVAILABLE,
    ImageState.SUPERSEDED: EventKind.IMAGE_SUPERSEDED,
    ImageState.EXPIRED: EventKind.IMAGE_EXPIRED,
    ImageState.WITHDRAWN: EventKind.IMAGE_WITHDRAWN,
    ImageState.STAGED: EventKind.IMAGE_STAGED,
    ImageState.REVOKED: EventKind.IMAGE_REVOKED,
}


class CloudEvents:
    """Tells of what is done to one cloud."""

    def __init__(self, database: Database, cloud: str, clock: Clock) -> None:
        self._intended = IntendedEvents(database, cloud)
        self._cloud = cloud
        self._clock = clock
        self._positions: dict[int, int] = {}

    def catch_up(self, registered: Sequence[RegisteredImage]) -> None:
        """Tell what a run did that was killed before it could tell; ``registered`` is what the cloud has now."""
        for each in self._intended.all():
            kind = each.kind if _was_done(each, registered) else None
            facts = {**each.facts, "learned": "from the cloud, by a later run"}
            self._intended.settle(each.position, kind, subject=each.subject, facts=facts, at=self._clock.now())

    def begin(self, plan: Plan) -> None:
        """Note what is about to be done."""
        self._positions = {id(action): position for position, action in enumerate(plan.actions)}
        self._intended.note(
            [
                IntendedEvent(
                    position=position,
                    kind=_kind(action),
                    subject=self._subject(action),
                    facts=self._facts(action, action.registered),
                    expected=_expected(action),
                )
                for position, action in enumerate(plan.actions)
            ]
        )

    def record(self, result: ActionResult) -> None:
        """Tell what became of an action; what was not tried, or was taken back with its set, is no event."""
        action = result.action
        kind: EventKind | None = _kind(action)
        facts = self._facts(action, result.registered or action.registered)
        facts["seconds"] = round(result.seconds, 3)
        if action.kind is ActionKind.REGISTER and action.desired is not None:
            facts["size_bytes"] = action.desired.listed.size_bytes
        if result.error is not None:
            kind = EventKind.IMAGE_FAILED
            facts |= {"action": str(action.kind), "error": result.error.as_dict()}
        self._intended.settle(
            self._positions[id(action)],
            None if result.skipped or result.taken_back else kind,
            subject=self._subject(action),
            facts=facts,
            at=self._clock.now(),
        )

    def _subject(self, action: Action) -> str:
        return f"{self._cloud}:{action.key}"

    def _facts(self, action: Action, image: RegisteredImage | None) -> dict[str, object]:
        facts: dict[str, object] = {
            "cloud": self._cloud,
            "list": action.key.list_identifier,
            "image": action.key.image_identifier,
            "version": action.version,
            "digest": str(action.digest),
            "reason": action.reason,
        }
        if image is not None:
            facts["cloud_identifier"] = image.cloud_identifier
        return facts


def _kind(action: Action) -> EventKind:
    if action.kind is ActionKind.CHANGE_STATE and action.state is not None:
        return _STATES[action.state]
    return _KINDS[action.kind]


def _expected(action: Action) -> dict[str, object]:
    image = action.registered
    return {
        "action": str(action.kind),
        "key": str(action.key),
        "version": action.version,
        "digest": str(action.digest),
        "state": None if action.state is None else str(action.state),
        "cloud_identifier": None if image is None else image.cloud_identifier,
        "described_before": None if image is None else _described(image),
    }


def _described(image: RegisteredImage) -> list[str | None]:
    """Return what of a marker a new description changes: the digest, or only what a newer list confirms."""
    marker = image.marker
    return [
        marker.metadata_digest,
        marker.list_version,
        None if marker.expires is None else to_rfc3339(marker.expires),
        marker.vo,
        marker.set_version,
    ]


def _was_done(intended: IntendedEvent, registered: Sequence[RegisteredImage]) -> bool:
    """Tell by what the cloud has whether an action was carried out; a plan holds none that was already."""
    expected = intended.expected
    if expected["action"] == ActionKind.REGISTER:
        wanted = (expected["key"], expected["version"], expected["digest"])
        found = [
            (str(each.marker.key), each.marker.version, str(each.marker.digest)) for each in registered if each.ready
        ]
        return wanted in found
    there = [each for each in registered if _is_meant(expected, each)]
    if expected["action"] == ActionKind.REMOVE or not there:
        return expected["action"] == ActionKind.REMOVE and not there
    if expected["action"] == ActionKind.CHANGE_STATE:
        # What was only brought back to its state bore that before as well.
        return str(there[0].marker.state) == expected["state"] and there[0].drift is None
    return _described(there[0]) != expected.get("described_before")


def _is_meant(expected: Mapping[str, object], image: RegisteredImage) -> bool:
    if expected["cloud_identifier"] is not None:
        return image.cloud_identifier == expected["cloud_identifier"]
    # The plan itself registered it: when it was noted, nobody knew how the cloud would call it.
    marker = image.marker
    found = (str(marker.key), marker.version, str(marker.digest))
    return image.ready and found == (expected["key"], expected["version"], expected["digest"])
