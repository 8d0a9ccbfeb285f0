# SPDX-License-Identifier: Apache-2.0
"""From a build to a published list: build → descriptor → catalogue, and catalogue → image list → publisher.

A list's version is written down before the list goes out: a run that is killed in between skips a version, and never
gives one version two contents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.images import keep_image
from coppice.catalogue.selections import Selections
from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits
from coppice.descriptor.model import Action
from coppice.descriptor.read import read_descriptor
from coppice.descriptor.write import describe, write_descriptor
from coppice.errors import BootTestError, InputError, SettingsError, UnreadableFileError
from coppice.factory.model import Outcome
from coppice.imagelist.compose import compose, next_version
from coppice.imagelist.keys import load_identity
from coppice.imagelist.publishers import load_publisher
from coppice.imagelist.sign import sign_list

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion, Selection
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.descriptor.model import Descriptor, Disk
    from coppice.factory.model import BuildResult
    from coppice.imagelist.model import Publication, Publisher, SignedImageList
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """What publishing a list did.

    Attributes:
        selection: The list at the publisher.
        signed: What went out.
        publication: Where, and how much was written.
    """

    selection: Selection
    signed: SignedImageList
    publication: Publication


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
        version: Its version; proposed by the catalogue when None.
        expires: When the version's endorsement ends.
        untested: Take a build of which not every boot test passed.

    Raises:
        BootTestError: A boot test is missing or failed, and ``untested`` is not set.
        VersionExistsError: The version is there with other content.
    """
    if not untested:
        _require_passed(result)
    catalogue = Catalogue(database)
    appliance = name or result.definition.name
    chosen = version or catalogue.propose_version(appliance, result.images[0].image, clock.now())
    descriptor = describe(result, version=chosen, identifier=appliance)
    write_descriptor(descriptor, result.directory / f"{appliance}-{chosen}.json")
    kept = _keep(descriptor, result.directory, settings)
    return catalogue.add(appliance, kept, directory=settings.state_directory, expires=expires)


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
    kept = _keep(descriptor, path.parent, settings)
    return Catalogue(database).add(
        name or descriptor.identifier, kept, directory=settings.state_directory, expires=expires
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
    limits = ConversionLimits(maximum_virtual_size_bytes=settings.conversion.maximum_virtual_size_bytes)
    found = inspect(source, limits)
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


def publish(list_name: str, *, settings: Settings, database: Database, clock: Clock, monitor: Monitor) -> PublishReport:
    """Compose, sign and publish the list ``list_name``: images first, the list last.

    Raises:
        NotFoundError: There is no such list.
        SettingsError: Its publisher is not in the settings.
        UnreadableFileError: The endorser's certificate or key cannot be used.
        StorageError: The publisher's place cannot be written.
    """
    selections = Selections(database)
    selection = selections.get(list_name)
    publisher = open_publisher(settings, selection.publisher)
    identity = load_identity(Endorsers(database).get(selection.endorser))
    files = {file_name(version): version.path for version in selection.versions}
    content = compose(
        selection,
        version=next_version(selection.last_version),
        now=clock.now(),
        endorser=identity.endorser,
        image_uris={version.appliance.name: publisher.image_uri(file_name(version)) for version in selection.versions},
        list_uri=publisher.list_uri(list_name),
    )
    signed = sign_list(content, identity, clock.now())
    facts: dict[str, object] = {
        "list": content.identifier,
        "images": [f"{version.appliance.name} {version.version}" for version in selection.versions],
        "payload": str(signed.payload_checksum),
    }
    selections.remember_published(list_name, content.version, facts=facts, at=clock.now())
    publication = publisher.publish(list_name, signed, files, monitor)
    return PublishReport(selection=selections.get(list_name), signed=signed, publication=publication)


def open_publisher(settings: Settings, name: str) -> Publisher:
    """Return the publisher ``name`` of the settings.

    Raises:
        SettingsError: The settings do not name it, or its own settings are wrong.
    """
    found = settings.publishers.get(name)
    if found is None:
        raise SettingsError(
            f"the settings name no publisher {name!r}",
            details=f"there are: {', '.join(settings.publishers) or 'none'}",
            resolution=f"Add a section [publishers.{name}] with driver, path and url to the settings.",
        )
    return load_publisher(found)


def file_name(version: ApplianceVersion) -> str:
    """Return the name under which an appliance version's image is published."""
    return f"{version.appliance.identifier}-{version.image.checksum.hexdigest[:16]}.{version.image.format}"


def _require_passed(result: BuildResult) -> None:
    passed = {verdict.gate for verdict in result.verdicts if verdict.outcome is Outcome.PASSED}
    missing = [f"boot-{firmware}" for firmware in result.definition.firmware if f"boot-{firmware}" not in passed]
    if missing:
        raise BootTestError(
            f"the build of {result.definition.name} has not passed: {', '.join(missing)}",
            resolution="Run `coppice build` with its boot tests, or take the risk with --untested.",
        )
