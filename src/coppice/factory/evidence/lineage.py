# SPDX-License-Identifier: Apache-2.0
"""Why a file is in an image: which package, definition or script of which ancestor put it there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.factory.evidence.inventory import Inventory, InventoryFile
    from coppice.factory.model import BuildResult, Package


class Cause(StrEnum):
    """What can put a file into an image."""

    PACKAGE = "package"
    DEFINITION = "definition"
    """A file of the definition itself."""
    SCRIPT = "script"
    """A package's script, the builder or a provisioner: nothing says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One build of a lineage.

    Attributes:
        result: Its record.
        inventory: Its files.
    """

    result: BuildResult
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a file got the content that it has, or had.

    Attributes:
        definition: Name of the ancestor, or of the appliance itself.
        key: Of its build.
        file: As that build has it.
        cause: What put it there.
        package: That brought it; None where none did.
        provisioners: Of the definition: each of them may have written it; only where the cause is a script.
    """

    definition: str
    key: str
    file: InventoryFile
    cause: Cause
    package: Package | None = None
    provisioners: tuple[str, ...] = ()


def origins_of(path: str, layers: Sequence[Layer]) -> tuple[Origin, ...]:
    """Return where the file at ``path`` got its content, and where what it replaced came from: the newest first.

    Args:
        path: In the guest.
        layers: The build, its parent, the parent's parent, down to the base.

    Returns:
        Empty where the build has no such file.
    """
    found: list[Origin] = []
    for number, layer in enumerate(layers):
        file = layer.inventory.find(path)
        if file is None:
            # What an ancestor had before is another file of that name.
            break
        below = layers[number + 1].inventory.find(path) if number + 1 < len(layers) else None
        if below is None or not file.is_same_as(below):
            found.append(_origin(file, layer))
    return tuple(found)


def _origin(file: InventoryFile, layer: Layer) -> Origin:
    definition = layer.result.definition
    laid_in = any(layer.inventory.find(each.path) == file for each in definition.files)
    package = next((each for each in layer.result.packages if file.package and each.name == file.package), None)
    if laid_in:
        cause = Cause.DEFINITION
    elif package is not None:
        cause = Cause.PACKAGE
    else:
        cause = Cause.SCRIPT
    return Origin(
        definition=definition.name,
        key=layer.result.key,
        file=file,
        cause=cause,
        package=package if cause is Cause.PACKAGE else None,
        provisioners=tuple(each.name for each in definition.provisioners) if cause is Cause.SCRIPT else (),
    )
