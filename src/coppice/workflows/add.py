# SPDX-License-Identifier: Apache-2.0
"""From a build, or from what a descriptor describes, to a version in the catalogue, which holds the bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.images import keep_image
from coppice.conversion.inspect import inspect
from coppice.definition.needles import fill_needles
from coppice.descriptor.model import Action
from coppice.descriptor.read import read_descriptor
from coppice.descriptor.write import describe, write_descriptor
from coppice.errors import BootTestError, InputError, UnreadableFileError
from coppice.factory.model import Outcome
from coppice.formats.appliance_descriptor import write_appliance_descriptor
from coppice.schedule.lock import run_lock
from coppice.workflows.evidence import describe_evidence, keep_evidence, with_kept_evidence
from coppice.workflows.image_limits import limits_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.descriptor.model import Descriptor, Disk
    from coppice.factory.model import BuildResult
    from coppice.settings.model import Settings

FILES_LOCK = "locks/catalogue.lock"
"""Held, below the state directory, while files of the catalogue come or go."""
FILES_WAIT_SECONDS = 600.0
OLD_FORM_SUFFIX = ".cloud-appliance.json"
"""Ends the name of a descriptor in the form that COMFY wrote and NIFTY reads."""


def add_build(
    result: BuildResult,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    name: str | None = None,
    version: str | None = None,
    expires: datetime | None = None,
    untested: bool = False,
) -> ApplianceVersion:
    """Describe a build and bring it into the catalogue.

    Args:
        result: The build.
        settings: Where the catalogue's images lie.
        database: Where the catalogue is.
        clock: Gives the proposed version its date.
        name: The appliance; the definition's name when None.
        version: Its version; as its definition says, or proposed by the catalogue, when None.
        expires: When the version's endorsement ends; as its definition says when None.
        untested: Take a build of which not every boot test passed.

    Raises:
        BootTestError: A boot test is missing or failed, and ``untested`` is not set.
        VersionExistsError: The version is there with other content.
    """
    if not untested:
        _require_passed(result)
    catalogue = Catalogue(database, clock)
    appliance = name or result.definition.name
    chosen = version or _propose(catalogue, appliance, result, clock.now())
    descriptor = describe(result, version=chosen, identifier=appliance, evidence=describe_evidence(result.directory))
    write_descriptor(descriptor, result.directory / f"{appliance}-{chosen}.json")
    with run_lock(settings.state_directory / FILES_LOCK, FILES_WAIT_SECONDS):
        evidence = keep_evidence(descriptor, result.directory, settings)
        kept = with_kept_evidence(_keep(descriptor, result.directory, settings), evidence)
        _write_old_form(kept, result, appliance)
        return catalogue.add(
            appliance,
            kept,
            directory=settings.state_directory,
            expires=expires or _end_of_validity(result, clock.now()),
            evidence=evidence,
        )


def _propose(catalogue: Catalogue, appliance: str, result: BuildResult, now: datetime) -> str:
    definition = result.definition
    wanted = fill_needles(definition.version_template, definition, result.provenance.started_at)
    return catalogue.propose_version(appliance, result.images[0].image, now, wanted=wanted)


def _write_old_form(kept: Descriptor, result: BuildResult, appliance: str) -> None:
    definition = result.definition
    identifier = fill_needles(definition.identifier_template, definition, result.provenance.started_at) or appliance
    content = write_appliance_descriptor(kept, identifier=identifier, directory=result.directory)
    atomic.write_bytes(result.directory / f"{appliance}-{kept.version}{OLD_FORM_SUFFIX}", content)


def _end_of_validity(result: BuildResult, now: datetime) -> datetime | None:
    days = result.definition.validity_days
    return None if days is None else now + timedelta(days=days)


def add_descriptor(
    path: Path,
    *,
    settings: Settings,
    database: Database,
    name: str | None = None,
    expires: datetime | None = None,
) -> ApplianceVersion:
    """Bring the appliance version that a descriptor file describes into the catalogue.

    Raises:
        DocumentError: The file is no descriptor.
        InputError: It names no image.
        UnreadableFileError: Its image is not there, or cannot be read.
        ChecksumMismatchError: Its image is not the one that it describes.
    """
    descriptor = read_descriptor(path)
    if descriptor.action is not Action.REGISTRATION or not descriptor.disks:
        raise InputError(
            f"the descriptor {path} asks for no registration of an image",
            resolution='A descriptor to add has the action "registration" and names an image.',
        )
    _check_facts(descriptor.disks[0], path.parent, settings)
    with run_lock(settings.state_directory / FILES_LOCK, FILES_WAIT_SECONDS):
        kept = _keep(descriptor, path.parent, settings)
        return Catalogue(database).add(
            name or descriptor.identifier,
            kept,
            directory=settings.state_directory,
            expires=expires,
            evidence=keep_evidence(descriptor, path.parent, settings),
        )


def _check_facts(disk: Disk, directory: Path, settings: Settings) -> None:
    # A foreign image is believed in nothing: what it is, its content decides.
    source = directory / disk.path
    if not source.exists():
        raise UnreadableFileError(
            f"there is no image {source}",
            resolution="Put the image where its descriptor says, relative to the descriptor.",
            context={"path": str(source)},
        )
    spool = settings.state_directory / "conversion" / "spool"
    found = inspect(source, limits_of(settings.conversion), spool=spool)
    said = (disk.image.format, disk.image.virtual_size_bytes)
    if (found.format, found.virtual_size_bytes) != said:
        raise InputError(
            f"{source} is a {found.format} disk of {found.virtual_size_bytes} bytes, and is described as {said[0]} of "
            f"{said[1]}",
            resolution="Correct the descriptor.",
            context={"path": str(source)},
        )


def _keep(descriptor: Descriptor, directory: Path, settings: Settings) -> Descriptor:
    # The catalogue holds the bytes of what it lists: a later build, or a tidy hand, must not take them away.
    disk = descriptor.disks[0]
    path = keep_image(settings.state_directory / "catalogue", directory / disk.path, disk.image)
    return replace(descriptor, disks=(replace(disk, path=str(path)), *descriptor.disks[1:]))


def _require_passed(result: BuildResult) -> None:
    passed = {verdict.gate for verdict in result.verdicts if verdict.outcome is Outcome.PASSED}
    missing = [f"boot-{firmware}" for firmware in result.definition.firmware if f"boot-{firmware}" not in passed]
    if missing:
        raise BootTestError(
            f"the build of {result.definition.name} has not passed: {', '.join(missing)}",
            resolution="Run `coppice build` with its boot tests, or take the risk with --untested.",
        )
