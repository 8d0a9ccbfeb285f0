# SPDX-License-Identifier: Apache-2.0
"""The cloud-appliance-descriptor as its makers write it: JSON bytes → `EventDescriptor`.

COMFY describes an image that it built, ITCHY an event of vmcatcher. Of the fields of the format (``action``, ``title``,
``description``, ``identifier``, ``version``, ``groups``, ``os``, ``disks``, ``cpu``, ``memory``, ``attributes``) each
writes a part only; Coppice's own (`coppice.formats.descriptor`) has all of them, and checksums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.descriptor.model import Action
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

WHAT = "descriptor"
MAX_DESCRIPTOR_BYTES = 1024 * 1024
_MAX_TITLE_BYTES = 4096
_ATTRIBUTE = "vmcatcher_event_"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedFile:
    """The disk of a described appliance.

    Attributes:
        path: Where the file lies: absolute, or relative to the descriptor.
        format: As it was written; never trusted.
        checksum: Of the file; None: the descriptor has none.
    """

    path: str
    format: str | None
    checksum: Checksum | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDescriptor:
    """What a descriptor tells: that an appliance is to be registered, or that it has ended.

    Attributes:
        action: Which.
        identifier: Of the appliance; not always a UUID.
        version: Of the appliance; empty where an expiration has none.
        title: For people, one line.
        description: For people.
        groups: Categories.
        operating_system: What runs in it, as far as it is told.
        requirements: What it needs.
        disk: Its file; None for an expiration.
        mpuri: Of the list that it came from, where ITCHY kept it.
        attributes: What else it tells, as it was written.
    """

    action: Action
    identifier: str
    version: str
    title: str = ""
    description: str = ""
    groups: tuple[str, ...] = ()
    operating_system: OperatingSystem = field(
        default_factory=lambda: OperatingSystem(
            kind="Linux", distribution=_UNKNOWN, version=_UNKNOWN, architecture="x86_64"
        )
    )
    requirements: Requirements = field(default_factory=Requirements)
    disk: DescribedFile | None = None
    mpuri: str | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)


def read_event_descriptor(payload: bytes) -> EventDescriptor:
    """Return what ``payload`` tells.

    Raises:
        DocumentError: It is no descriptor; the message names the place.
    """
    fields = Fields(read_json(payload, what=WHAT, max_bytes=MAX_DESCRIPTOR_BYTES), "$", WHAT)
    action = _action(fields)
    identifier = fields.word("identifier")
    if action is Action.EXPIRATION:
        return EventDescriptor(
            action=action, identifier=identifier, version=_version(fields) if not fields.lacks("version") else ""
        )
    attributes = {} if fields.lacks("attributes") else fields.group("attributes").rest()
    return EventDescriptor(
        action=action,
        identifier=identifier,
        version=_version(fields),
        title=fields.text("title", limit_bytes=_MAX_TITLE_BYTES),
        description=fields.optional_text("description") or "",
        groups=_groups(fields),
        operating_system=_operating_system(fields, attributes),
        requirements=Requirements(
            minimum_cores=fields.optional_integer("cpu"), minimum_ram_mib=fields.optional_integer("memory")
        ),
        disk=_disk(fields),
        mpuri=_attribute(attributes, "ad_mpuri"),
        attributes=attributes,
    )


def _action(fields: Fields) -> Action:
    text = fields.word("action")
    try:
        return Action(text.lower())
    except ValueError:
        fields.refuse("action", f"{text[:40]!r} is none of: {', '.join(Action)}")


def _version(fields: Fields) -> str:
    text = fields.word("version", limit_bytes=256)
    try:
        Version(text)
    except ValueError as problem:
        fields.refuse("version", str(problem))
    return text


def _groups(fields: Fields) -> tuple[str, ...]:
    if fields.lacks("groups"):
        return ()
    groups = fields.array("groups")
    if not all(isinstance(group, str) for group in groups):
        fields.refuse("groups", "an array of texts is needed")
    return tuple(str(group) for group in groups)


def _operating_system(fields: Fields, attributes: Mapping[str, object]) -> OperatingSystem:
    found = Fields({}, "$.os", WHAT) if fields.lacks("os") else fields.group("os")
    # ITCHY writes the version of the system where its name belongs; what it was told is in the attributes.
    architecture = found.optional_text("arch") or _attribute(attributes, "sl_arch") or "x86_64"
    distribution = found.optional_text("distribution")
    version = _attribute(attributes, "sl_osversion") or found.optional_text("version")
    return OperatingSystem(
        kind=found.optional_text("type") or "Linux",
        distribution=_attribute(attributes, "sl_osname") or _attribute(attributes, "sl_os") or distribution or _UNKNOWN,
        version=version or _UNKNOWN,
        architecture=_ARCHITECTURES.get(architecture.lower(), architecture),
    )


def _disk(parent: Fields) -> DescribedFile:
    disks = [parent.element("disks", index, entry) for index, entry in enumerate(parent.array("disks"))]
    if not disks:
        parent.refuse("disks", "there is none")
    # The system's disk comes first in every descriptor that tells no types.
    kinds = [each.optional_text("type") for each in disks]
    fields = disks[kinds.index("os")] if "os" in kinds else disks[0]
    text = fields.optional_text("sha512")
    try:
        checksum = None if text is None else Checksum("sha512", text.lower())
    except ValueError as problem:
        fields.refuse("sha512", str(problem))
    path = fields.text("path")
    if "\0" in path:
        fields.refuse("path", "it holds a zero byte")
    return DescribedFile(path=path, format=fields.optional_text("format"), checksum=checksum)


def _attribute(attributes: Mapping[str, object], name: str) -> str | None:
    value = attributes.get(_ATTRIBUTE + name)
    return value if isinstance(value, str) and value.strip() else None
