# SPDX-License-Identifier: Apache-2.0
"""Delete appliances and versions from the catalogue, and with them the image files that nothing needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.catalogue.appliances import Appliances
from coppice.schedule.lock import run_lock
from coppice.workflows.add import FILES_LOCK, FILES_WAIT_SECONDS
from coppice.workflows.evidence import forget_evidence

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What was deleted.

    Attributes:
        name: The appliance.
        version: The version; None: the whole appliance.
        files: Image files of the catalogue that went with it.
    """

    name: str
    version: str | None
    files: tuple[Path, ...]


def delete_appliance(
    name: str,
    *,
    version: str | None = None,
    settings: Settings,
    database: Database,
    clock: Clock,
    dry_run: bool = False,
) -> Deleted:
    """Delete an appliance, or one version of it; files outside of the catalogue's own directory stay.

    The rows go first: a run that is killed leaves a file too many, never a version without its file.

    Raises:
        NotFoundError: There is no such appliance or version.
        StateError: A list or a set carries it, or a published list names it.
        StorageError: A file cannot be removed.
    """
    own = settings.state_directory / "catalogue"
    with run_lock(settings.state_directory / FILES_LOCK, FILES_WAIT_SECONDS):
        appliances = Appliances(database, clock)
        if version is None:
            unneeded = appliances.delete(name, dry_run=dry_run)
        else:
            unneeded = appliances.delete_version(name, version, dry_run=dry_run)
        files = tuple(path for path in unneeded if path.is_relative_to(own))
        for path in () if dry_run else files:
            with storage_errors("removing", path):
                path.unlink(missing_ok=True)
            forget_evidence(settings, path)
    return Deleted(name=name, version=version, files=files)
