# SPDX-License-Identifier: Apache-2.0
"""What a folder of descriptors says, as events in their order: the last word on each appliance counts. Pure.

ITCHY names a file ``<seconds>_<type>_<identifier>.json``, COMFY ``<identifier>.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.descriptor.model import Action
from coppice.errors import DocumentError
from coppice.formats.event_descriptor import read_event_descriptor
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.formats.event_descriptor import EventDescriptor

_ARCHIVED = re.compile(r"(?P<seconds>[0-9]{1,12})_(?:[A-Za-z]{1,40}_)?(?P<identifier>.+)")
_FORMATS = ("qcow2", "raw")
"""The first of these is taken of one version that is there in several formats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorFile:
    """A file of the folder.

    Attributes:
        name: Relative to the folder, with slashes.
        data: Its bytes; empty where there is a problem.
        problem: Why it could not be read; None: it could.
    """

    name: str
    data: bytes
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A file as an event.

    Attributes:
        file: Which.
        told: What it tells; None: it cannot be read.
        problem: Why not.
    """

    file: DescriptorFile
    told: EventDescriptor | None
    problem: str = ""

    @property
    def identifier(self) -> str:
        """Of the appliance that it is about; where it cannot be read, as its name says."""
        if self.told is not None:
            return self.told.identifier
        stem = self.file.name.rsplit("/", 1)[-1].removesuffix(".json")
        archived = _ARCHIVED.fullmatch(stem)
        return stem if archived is None else archived["identifier"]


@dataclass(slots=True, kw_only=True)
class Told:
    """The last word on each appliance.

    Attributes:
        registered: By identifier, the event that registered it.
        in_doubt: By identifier, the event that cannot be read and came after all that can.
        unreadable: Every event that cannot be read.
    """

    registered: dict[str, Event] = field(default_factory=dict)
    in_doubt: dict[str, Event] = field(default_factory=dict)
    unreadable: list[Event] = field(default_factory=list)


def read_event(file: DescriptorFile) -> Event:
    """Return a file as an event."""
    if file.problem is not None:
        return Event(file=file, told=None, problem=file.problem)
    try:
        return Event(file=file, told=read_event_descriptor(file.data))
    except DocumentError as problem:
        return Event(file=file, told=None, problem=problem.message)


def order_of(event: Event, written_at: float) -> tuple[int, bool, str]:
    """Return by what events are sorted.

    The archive's names count seconds, and sorted as texts a registration would come before the expiration that made
    room for it.

    Args:
        event: Which.
        written_at: When its file was written, in seconds; for names that tell no time.
    """
    archived = _ARCHIVED.fullmatch(event.file.name.rsplit("/", 1)[-1].removesuffix(".json"))
    seconds = int(written_at) if archived is None else int(archived["seconds"])
    is_expiration = event.told is not None and event.told.action is Action.EXPIRATION
    return seconds, not is_expiration, event.file.name


def last_words(events: Iterable[Event]) -> Told:
    """Return the last word on each appliance, of events in their order."""
    told = Told()
    for event in events:
        identifier, now = event.identifier, event.told
        if now is None:
            told.unreadable.append(event)
            told.registered.pop(identifier, None)
            told.in_doubt[identifier] = event
            continue
        before = told.registered.get(identifier)
        if before is not None and before.told is not None and _leaves(before.told, now):
            continue
        told.in_doubt.pop(identifier, None)
        if now.action is Action.EXPIRATION:
            told.registered.pop(identifier, None)
        else:
            told.registered[identifier] = event
    return told


def _leaves(before: EventDescriptor, now: EventDescriptor) -> bool:
    """Tell whether ``now`` leaves in place what was registered before."""
    if now.action is Action.EXPIRATION:
        return now.version != "" and Version(now.version) < Version(before.version)
    return now.version == before.version and _rank(before) < _rank(now)


def _rank(descriptor: EventDescriptor) -> int:
    declared = (descriptor.disk.format or "") if descriptor.disk is not None else ""
    return _FORMATS.index(declared.lower()) if declared.lower() in _FORMATS else len(_FORMATS)
