# SPDX-License-Identifier: Apache-2.0
"""The appliance descriptor: JSON bytes ⇄ `Descriptor`.

The fields are those of the cloud-appliance-descriptor (``action``, ``title``, ``description``, ``identifier``,
``version``, ``groups``, ``os``, ``disks``, ``cpu``, ``memory``) and Coppice's own (``requirements``, ``created``,
``provenance``, ``built_on``, ``gates``, ``evidence``; ``size_bytes``, ``virtual_size_bytes`` and ``sha512`` of a disk).
Fields that this version does not know are kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TypeVar

from coppice.clock import to_rfc3339
from coppice.descriptor.model import Action, Descriptor, Disk, EvidenceFile, Gate
from coppice.formats.fields import Fields
from coppice.formats.strict_json import read_json
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements

Kind = TypeVar("Kind", bound=StrEnum)
_WHAT = "descriptor"
_MAX_ENTRIES = 64


def read_descriptor(payload: bytes) -> Descriptor:
    """Return the descriptor that ``payload`` says.

    Raises:
        DocumentError: It is no descriptor; the message names the place.
    """
    fields = Fields(read_json(payload, what=_WHAT), "$", _WHAT)
    disks = tuple(_disk(fields, index, entry) for index, entry in enumerate(fields.array("disks")))
    return Descriptor(
        action=_member(fields, "action", Action),
        identifier=fields.word("identifier"),
        version=fields.word("version"),
        title=fields.text("title", limit_bytes=4096),
        description=fields.optional_text("description") or "",
        groups=_groups(fields),
        operating_system=_operating_system(fields.group("os")),
        requirements=_requirements(fields),
        disks=disks,
        created=fields.instant("created"),
        provenance=fields.optional_text("provenance"),
        built_on=tuple(_checksum(fields, "built_on", each) for each in _array(fields, "built_on")),
        gates=tuple(_gate(fields.element("gates", *each)) for each in enumerate(_array(fields, "gates"))),
        evidence=tuple(_evidence(fields.element("evidence", *each)) for each in enumerate(_array(fields, "evidence"))),
        extra=fields.rest(),
    )


def write_descriptor(descriptor: Descriptor) -> bytes:
    """Return ``descriptor`` as JSON."""
    needs = {key: value for key, value in asdict(descriptor.requirements).items() if value is not None}
    system = descriptor.operating_system
    document: dict[str, object] = {
        "action": str(descriptor.action),
        "title": descriptor.title,
        "description": descriptor.description,
        "identifier": descriptor.identifier,
        "version": descriptor.version,
        "groups": list(descriptor.groups),
        "os": {
            "type": system.kind,
            "arch": system.architecture,
            "distribution": system.distribution,
            "version": system.version,
        },
        "cpu": descriptor.requirements.minimum_cores,
        "memory": descriptor.requirements.minimum_ram_mib,
        "requirements": needs,
        "disks": [
            {
                "type": "os",
                "format": str(disk.image.format),
                "path": disk.path,
                "size_bytes": disk.image.size_bytes,
                "virtual_size_bytes": disk.image.virtual_size_bytes,
                "sha512": disk.image.checksum.hexdigest,
            }
            for disk in descriptor.disks
        ],
        "created": to_rfc3339(descriptor.created),
        "provenance": descriptor.provenance,
        "built_on": [str(each) for each in descriptor.built_on] or None,
        "gates": [
            {"name": gate.name, "outcome": gate.outcome, "decided_at": to_rfc3339(gate.decided_at)}
            for gate in descriptor.gates
        ]
        or None,
        "evidence": [
            {"kind": each.kind, "path": each.path, "checksum": str(each.checksum)} for each in descriptor.evidence
        ]
        or None,
        **descriptor.extra,
    }
    said = {key: value for key, value in document.items() if value is not None}
    return (json.dumps(said, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _member(fields: Fields, key: str, kind: type[Kind]) -> Kind:
    text = fields.word(key)
    try:
        return kind(text.lower())
    except ValueError:
        fields.refuse(key, f"{text[:40]!r} is none of: {', '.join(kind)}")


def _groups(fields: Fields) -> tuple[str, ...]:
    if fields.lacks("groups"):
        return ()
    groups = fields.array("groups")
    if not all(isinstance(group, str) for group in groups):
        fields.refuse("groups", "an array of texts is needed")
    return tuple(str(group) for group in groups)


def _array(fields: Fields, key: str) -> list[object]:
    entries = [] if fields.lacks(key) else fields.array(key)
    if len(entries) > _MAX_ENTRIES:
        fields.refuse(key, f"it has more than {_MAX_ENTRIES} entries")
    return entries


def _checksum(fields: Fields, key: str, value: object) -> Checksum:
    try:
        return Checksum.parse(value if isinstance(value, str) else "")
    except ValueError as problem:
        fields.refuse(key, str(problem))


def _gate(fields: Fields) -> Gate:
    return Gate(name=fields.word("name"), outcome=fields.word("outcome"), decided_at=fields.instant("decided_at"))


def _evidence(fields: Fields) -> EvidenceFile:
    return EvidenceFile(
        kind=fields.word("kind"),
        path=fields.word("path"),
        checksum=_checksum(fields, "checksum", fields.take("checksum")),
    )


def _operating_system(fields: Fields) -> OperatingSystem:
    return OperatingSystem(
        kind=fields.optional_text("type") or "Linux",
        distribution=fields.text("distribution"),
        version=fields.word("version"),
        architecture=fields.optional_text("arch") or "x86_64",
    )


def _requirements(fields: Fields) -> Requirements:
    cores = fields.optional_integer("cpu")
    ram_mib = fields.optional_integer("memory")
    if fields.lacks("requirements"):
        return Requirements(minimum_cores=cores, minimum_ram_mib=ram_mib)
    own = fields.group("requirements")
    minimum_cores = own.optional_integer("minimum_cores")
    minimum_ram_mib = own.optional_integer("minimum_ram_mib")
    return Requirements(
        minimum_cores=cores if minimum_cores is None else minimum_cores,
        minimum_ram_mib=ram_mib if minimum_ram_mib is None else minimum_ram_mib,
        minimum_disk_bytes=own.optional_integer("minimum_disk_bytes"),
        recommended_cores=own.optional_integer("recommended_cores"),
        recommended_ram_mib=own.optional_integer("recommended_ram_mib"),
    )


def _disk(parent: Fields, index: int, entry: object) -> Disk:
    if not isinstance(entry, dict):
        parent.refuse(f"disks[{index}]", "an object is needed")
    fields = Fields(entry, f"$.disks[{index}]", _WHAT)
    try:
        checksum = Checksum("sha512", fields.word("sha512").lower())
    except ValueError as problem:
        fields.refuse("sha512", str(problem))
    return Disk(
        path=fields.word("path"),
        image=Image(
            format=_member(fields, "format", DiskFormat),
            size_bytes=fields.integer("size_bytes", least=1),
            virtual_size_bytes=fields.integer("virtual_size_bytes", least=1),
            checksum=checksum,
        ),
    )
