# SPDX-License-Identifier: Apache-2.0
"""`ProvisionHook`: provisioning as a hook of the bootstrapper, which alone can work in the tree while it is made.

The hook's process takes its plan from a folder, and leaves word there of what went wrong.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import (
    BuildError,
    InputError,
    MachineError,
    NoSpaceError,
    ProvisionError,
    all_error_types,
)
from coppice.factory.provision.plan import make_plan
from coppice.factory.provision.run import lay_materials
from coppice.formats.definition import definition_document
from coppice.process import find_tool

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.errors import CoppiceError

MODULE = "coppice.factory.provision"
PLAN = "plan.json"
MATERIALS = "materials"
REPORT = "report"
ERROR = "error.json"
_FULL = "No space left on device"
_MAX_ERROR_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionHook:
    """A hook that provisions a tree.

    Attributes:
        directory: Its own; it must be there until the tree is made.
    """

    directory: Path

    @property
    def words(self) -> tuple[str, ...]:
        """What is run; the tree follows as the last argument."""
        return (sys.executable, "-I", "-m", MODULE, str(self.directory))

    @property
    def command(self) -> str:
        """What a shell is given to run; ``$1`` is the tree."""
        return f'{shlex.join(self.words)} "$1"'

    def raise_failure(self) -> None:
        """Raise the error that the hook's process ended with; nothing happens where it did not.

        Raises:
            ProvisionError: A provisioner failed.
            DefinitionError: The definition names what is not in the tree.
            NoSpaceError: The disk is full.
            BuildError: Something else could not be done.
        """
        place = self.directory / REPORT / ERROR
        try:
            with place.open("rb") as stream:
                said = json.loads(stream.read(_MAX_ERROR_BYTES))
            kinds = {
                kind.code: kind
                for kind in all_error_types()
                if issubclass(kind, BuildError | InputError | MachineError)
            }
            kind: type[CoppiceError] = kinds.get(said["code"], ProvisionError)
            message, details, advice = str(said["message"]), said["details"], said["resolution"]
            if _FULL in (details or ""):
                kind, advice = NoSpaceError, "Free about 3 GiB there, or set another work directory, then run again."
            error = kind(message, details=details, resolution=advice)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as problem:
            raise ProvisionError(f"provisioning failed, and its word on it cannot be read: {problem}") from problem
        raise error


def prepare_provision(
    definition: Definition, *, parent: Definition | None, directory: Path, epoch: int
) -> ProvisionHook | None:
    """Write into the new ``directory`` what provisioning for ``definition`` needs; None: there is nothing to do.

    Args:
        definition: What is built.
        parent: What the tree was built for before; None: it has packages alone.
        directory: Of the hook, which runs as this user: as root, or as what is root in its namespace.
        epoch: What is made in the tree says that it is from then.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: It asks for what cannot be done, or takes away what its parent's tree has.
        ToolMissingError: ``bwrap`` is not installed.
        NoSpaceError: The disk is full.
    """
    if make_plan(definition, parent).is_empty:
        return None
    find_tool("bwrap")
    said = {
        "definition": definition_document(definition),
        "parent": None if parent is None else definition_document(parent),
        "epoch": epoch,
    }
    with storage_errors("writing", directory):
        directory.mkdir(mode=0o700)
        (directory / PLAN).write_text(json.dumps(said), encoding="utf-8")
        lay_materials(definition, directory / MATERIALS)
        (directory / REPORT).mkdir(mode=0o700)
    return ProvisionHook(directory=directory)
