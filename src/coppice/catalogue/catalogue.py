# SPDX-License-Identifier: Apache-2.0
"""The catalogue: appliances and their immutable versions."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.catalogue.model import ApplianceVersion
from coppice.catalogue.tables import ApplianceRow, ApplianceVersionRow
from coppice.errors import InputError, NotFoundError, VersionExistsError
from coppice.model.appliance import Appliance
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, is_name
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import Version

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.descriptor.model import Descriptor


class Catalogue:
    """The appliances of one publisher."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, name: str, descriptor: Descriptor, *, directory: Path, expires: datetime | None = None
    ) -> ApplianceVersion:
        """Add the version that ``descriptor`` describes to the appliance ``name``; make the appliance when it is new.

        Adding a version again with the same bytes changes nothing.

        Args:
            name: The appliance.
            descriptor: Its first disk is the one that is published.
            directory: What the paths in the descriptor are relative to.
            expires: When the version's endorsement ends; None: with its list.

        Raises:
            InputError: The name or the version cannot be one, or the descriptor has no disk.
            VersionExistsError: The version is there with other bytes, or a newer version is there.
        """
        _check(name, descriptor)
        disk = descriptor.disks[0]
        with self._database.session() as session:
            row = session.get(ApplianceRow, name) or ApplianceRow(name=name, identifier=str(uuid.uuid4()), versions=[])
            _describe(row, descriptor)
            session.add(row)
            known = next((version for version in row.versions if version.version == descriptor.version), None)
            if known is None:
                _refuse_older(row, descriptor.version)
                known = ApplianceVersionRow(
                    appliance=row,
                    version=descriptor.version,
                    path=str((directory / disk.path).resolve()),
                    disk_format=str(disk.image.format),
                    size_bytes=disk.image.size_bytes,
                    virtual_size_bytes=disk.image.virtual_size_bytes,
                    sha512=disk.image.checksum.hexdigest,
                    created=descriptor.created,
                    expires=expires,
                    provenance=descriptor.provenance,
                )
                session.add(known)
                session.flush()
            elif known.sha512 != disk.image.checksum.hexdigest:
                raise VersionExistsError(
                    f"version {descriptor.version} of {name} exists with other content",
                    details=f"there: sha512 {known.sha512}\nnew:   sha512 {disk.image.checksum.hexdigest}",
                    resolution="A version never changes: give the new image a new version.",
                )
            return _version(known)

    def appliances(self) -> tuple[Appliance, ...]:
        """Return all appliances, by name."""
        with self._database.session() as session:
            return tuple(_appliance(row) for row in session.scalars(select(ApplianceRow).order_by(ApplianceRow.name)))

    def versions(self, name: str) -> tuple[ApplianceVersion, ...]:
        """Return all versions of the appliance ``name``, oldest first.

        Raises:
            NotFoundError: There is no such appliance.
        """
        with self._database.session() as session:
            return versions_of(session, name)

    def propose_version(self, name: str, image: Image, now: datetime) -> str:
        """Return the version that an image should get.

        It is the newest version's when that has the same bytes; the date otherwise, with a counter where the date
        is taken.
        """
        with self._database.session() as session:
            row = session.get(ApplianceRow, name)
            versions = versions_of(session, name) if row is not None and row.versions else ()
        if versions and versions[-1].image.checksum.matches(image.checksum):
            return versions[-1].version
        taken = {Version(version.version) for version in versions}
        proposal, counter = now.strftime("%Y.%m.%d"), 0
        while Version(proposal) in taken:
            counter += 1
            proposal = f"{now:%Y.%m.%d}.{counter}"
        return proposal


def versions_of(session: Session, name: str) -> tuple[ApplianceVersion, ...]:
    """Return all versions of an appliance, oldest first.

    Raises:
        NotFoundError: There is no such appliance.
    """
    row = session.get(ApplianceRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(ApplianceRow.name).order_by(ApplianceRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no appliance {name!r} in the catalogue",
            details=f"there are: {known}",
            resolution="`coppice appliance add` brings a build or a descriptor into the catalogue.",
        )
    return tuple(sorted((_version(version) for version in row.versions), key=lambda known: Version(known.version)))


def _check(name: str, descriptor: Descriptor) -> None:
    if not is_name(name):
        raise InputError(
            f"{name[:80]!r} cannot name an appliance",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )
    if not descriptor.disks:
        raise InputError(f"the descriptor of {name} names no disk", resolution="A descriptor to add needs one disk.")
    try:
        Version(descriptor.version)
    except ValueError as problem:
        raise InputError(f"version of {name}: {problem}", resolution="Use a version such as 1.2 or 2026.11.") from None


def _refuse_older(row: ApplianceRow, version: str) -> None:
    newest = max((Version(known.version) for known in row.versions), default=None)
    if newest is not None and not Version(version) > newest:
        raise VersionExistsError(
            f"version {version} of {row.name} does not come after {newest}, which is in the catalogue",
            resolution=f"Subscribers take newer versions only: choose a version that sorts after {newest}.",
        )


def _describe(row: ApplianceRow, descriptor: Descriptor) -> None:
    system = descriptor.operating_system
    row.title = descriptor.title
    row.description = descriptor.description
    row.groups = list(descriptor.groups)
    row.os_kind = system.kind
    row.os_distribution = system.distribution
    row.os_version = system.version
    row.architecture = system.architecture
    row.requirements = {key: value for key, value in asdict(descriptor.requirements).items() if value is not None}


def _appliance(row: ApplianceRow) -> Appliance:
    return Appliance(
        name=row.name,
        identifier=ImageIdentifier(row.identifier),
        title=row.title,
        description=row.description,
        groups=tuple(row.groups),
        operating_system=OperatingSystem(
            kind=row.os_kind,
            distribution=row.os_distribution,
            version=row.os_version,
            architecture=row.architecture,
        ),
        requirements=Requirements(**row.requirements),
    )


def _version(row: ApplianceVersionRow) -> ApplianceVersion:
    return ApplianceVersion(
        appliance=_appliance(row.appliance),
        version=row.version,
        path=Path(row.path),
        image=Image(
            format=DiskFormat(row.disk_format),
            size_bytes=row.size_bytes,
            virtual_size_bytes=row.virtual_size_bytes,
            checksum=Checksum("sha512", row.sha512),
        ),
        created=row.created,
        expires=row.expires,
        provenance=row.provenance,
    )
