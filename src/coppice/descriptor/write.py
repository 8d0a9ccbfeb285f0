# SPDX-License-Identifier: Apache-2.0
"""Describe a build, and write a descriptor file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.descriptor.model import Action, Descriptor, Disk
from coppice.formats import descriptor as form

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.model import BuildResult

PROVENANCE_FILE = "build.json"


def describe(result: BuildResult, *, version: str, identifier: str) -> Descriptor:
    """Return the descriptor of a build; paths in it are relative to the build's directory.

    Args:
        result: The build.
        version: The appliance version that it becomes.
        identifier: Of the appliance.
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
        extra={"build": {"key": result.key, "definition_digest": result.provenance.definition_digest}},
    )


def write_descriptor(descriptor: Descriptor, path: Path) -> None:
    """Write ``descriptor`` to the file ``path`` in one step.

    Raises:
        StorageError: The file cannot be written.
    """
    atomic.write_bytes(path, form.write_descriptor(descriptor))
