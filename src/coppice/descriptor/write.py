# SPDX-License-Identifier: Apache-2.0
"""Describe a build, and write a descriptor file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.descriptor.model import Action, Descriptor, Disk, Gate
from coppice.formats import descriptor as form
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.descriptor.model import EvidenceFile
    from coppice.factory.model import BuildResult

PROVENANCE_FILE = "build.json"


def describe(
    result: BuildResult, *, version: str, identifier: str, evidence: tuple[EvidenceFile, ...] = ()
) -> Descriptor:
    """Return the descriptor of a build; paths in it are relative to the build's directory.

    Args:
        result: The build.
        version: The appliance version that it becomes.
        identifier: Of the appliance.
        evidence: Files that tell of the build.
    """
    definition = result.definition
    return Descriptor(
        action=Action.REGISTRATION,
        identifier=identifier,
        version=version,
        title=definition.title,
        description=definition.description,
        groups=definition.groups,
        operating_system=definition.operating_system,
        requirements=definition.requirements,
        disks=tuple(
            Disk(path=os.path.relpath(built.path, result.directory), image=built.image) for built in result.images
        ),
        created=result.provenance.started_at,
        provenance=str(result.directory / PROVENANCE_FILE),
        built_on=tuple(Checksum.parse(each.image_digest) for each in result.provenance.lineage),
        gates=tuple(
            Gate(name=verdict.gate, outcome=str(verdict.outcome), decided_at=verdict.decided_at)
            for verdict in result.verdicts
        ),
        evidence=evidence,
        extra=_extra(result),
    )


def _extra(result: BuildResult) -> dict[str, object]:
    definition = result.definition
    said: dict[str, object] = {
        "build": {"key": result.key, "definition_digest": result.provenance.definition_digest},
        "vo": definition.vo,
        "metadata": dict(definition.metadata),
    }
    return {key: value for key, value in said.items() if value}


def write_descriptor(descriptor: Descriptor, path: Path) -> None:
    """Write ``descriptor`` to the file ``path`` in one step.

    Raises:
        StorageError: The file cannot be written.
    """
    atomic.write_bytes(path, form.write_descriptor(descriptor))
