# SPDX-License-Identifier: Apache-2.0
"""A `Descriptor` in the old form of the cloud-appliance-descriptor, for tools that know no other field (NIFTY).

It has one disk, by its absolute path: such tools take a second one of the same identifier for a change of the first.
`coppice.formats.event_descriptor` reads this form.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.descriptor.model import Descriptor


def write_appliance_descriptor(descriptor: Descriptor, *, identifier: str, directory: Path) -> bytes:
    """Return ``descriptor`` as JSON of the old form.

    Args:
        descriptor: Of a build; its first disk counts.
        identifier: Of the appliance, as the old tools shall know it.
        directory: What a relative path of the disk is relative to.
    """
    system, needs, disk = descriptor.operating_system, descriptor.requirements, descriptor.disks[0]
    metadata = descriptor.extra.get("metadata")
    attributes = (metadata if isinstance(metadata, dict) else {}) | _of_the_build(descriptor, directory)
    document: dict[str, object] = {
        "action": str(descriptor.action),
        "title": descriptor.title,
        "description": descriptor.description,
        "identifier": identifier,
        "version": descriptor.version,
        "cpu": needs.minimum_cores,
        "memory": needs.minimum_ram_mib,
        "groups": list(descriptor.groups),
        "attributes": {key: value for key, value in attributes.items() if isinstance(value, str | int | float | bool)},
        "os": {
            "type": system.kind,
            "arch": system.architecture,
            "distribution": system.distribution,
            "version": system.version,
        },
        "disks": [{"type": "os", "format": str(disk.image.format), "path": str(directory / disk.path)}],
    }
    said = {key: value for key, value in document.items() if value is not None}
    return (json.dumps(said, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _of_the_build(descriptor: Descriptor, directory: Path) -> dict[str, str]:
    """Return what the form has no fields for: the files that tell of the build, and what it was built on."""
    said = {f"coppice_{each.kind.replace('-', '_')}": str(directory / each.path) for each in descriptor.evidence}
    if descriptor.built_on:
        said["coppice_built_on"] = " ".join(str(each) for each in descriptor.built_on)
    return said
