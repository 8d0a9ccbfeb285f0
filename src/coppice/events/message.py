# SPDX-License-Identifier: Apache-2.0
"""An event as JSON: the same object for every hook, and for ``coppice event show``."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339

if TYPE_CHECKING:
    from coppice.events.model import Delivery, Event

FORMAT = "coppice-event-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """One attempt to tell a hook of an event.

    Attributes:
        event: What happened.
        hook: Who is told.
        delivery_id: UUID of this delivery: the same in all its attempts, another one when it is replayed.
        attempt: Counts from 1.
    """

    event: Event
    hook: str
    delivery_id: str
    attempt: int

    @classmethod
    def of(cls, event: Event, delivery: Delivery, hook_identifier: str) -> Telling:
        """Return the telling of ``event`` that ``delivery`` counts.

        Args:
            event: What happened.
            delivery: As it began.
            hook_identifier: The hook's UUID; identifiers of its deliveries are made from it.
        """
        name = f"{event.number}:{delivery.replays}"
        return cls(
            event=event,
            hook=delivery.hook,
            delivery_id=str(uuid.uuid5(uuid.UUID(hook_identifier), name)),
            attempt=delivery.attempts,
        )

    def line(self) -> bytes:
        """Return the event, with its delivery, as one line of JSON in ASCII.

        Whatever could end a line somewhere (U+2028, a carriage return) is written as an escape.
        """
        delivery = {"id": self.delivery_id, "hook": self.hook, "attempt": self.attempt}
        said = event_document(self.event) | {"delivery": delivery}
        return json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def event_document(event: Event) -> dict[str, object]:
    """Return the members of an event's JSON object."""
    return {
        "format": FORMAT,
        "number": event.number,
        "kind": str(event.kind),
        "at": to_rfc3339(event.at),
        "subject": event.subject,
        "subscription": event.subscription,
        "list": event.list_identifier,
        "image": event.image_identifier,
        "cloud": event.cloud,
        "facts": dict(event.facts),
    }
