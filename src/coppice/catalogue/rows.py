# SPDX-License-Identifier: Apache-2.0
"""From the rows of appliances and their versions to what the rest of the product sees."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.catalogue.model import ApplianceVersion, ReferencedImage
from coppice.catalogue.tables import ApplianceRow
from coppice.errors import DatabaseError, NotFoundError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.appliance import Appliance
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.catalogue.tables import ApplianceVersionRow


def appliance_row(session: Session, name: str) -> ApplianceRow:
    """Return the row of the appliance ``name``.

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
    return row


def version_rows(row: ApplianceRow) -> list[ApplianceVersionRow]:
    """Return the rows of an appliance's versions that are not deleted, oldest first."""
    there = [version for version in row.versions if version.deleted_at is None]
    return sorted(there, key=lambda version: Version(version.version))


def version_row(session: Session, name: str, version: str) -> ApplianceVersionRow:
    """Return the row of a version.

    Raises:
        NotFoundError: There is no such appliance, or no such version.
    """
    rows = version_rows(appliance_row(session, name))
    found = next((row for row in rows if row.version == version), None)
    if found is None:
        raise NotFoundError(
            f"there is no version {version} of {name}", details=f"there are: {', '.join(row.version for row in rows)}"
        )
    return found


def versions_of(session: Session, name: str) -> tuple[ApplianceVersion, ...]:
    """Return all versions of an appliance, oldest first.

    Raises:
        NotFoundError: There is no such appliance.
    """
    return tuple(version_of(row) for row in version_rows(appliance_row(session, name)))


def requirements_of(requirements: Requirements) -> dict[str, int | str]:
    """Return requirements as a row keeps them."""
    return {key: value for key, value in asdict(requirements).items() if value is not None}


def describe(row: ApplianceRow, said: Mapping[str, object], requirements: Requirements) -> None:
    """Write into a row what a build, a descriptor or a list says of an appliance.

    What a person set by hand stays as it is until that is taken back.
    """
    edited = set(row.edited or ())
    for attribute in said.keys() - edited:
        setattr(row, attribute, said[attribute])
    kept = {key: value for key, value in (row.requirements or {}).items() if key in edited}
    row.requirements = {
        **{key: value for key, value in requirements_of(requirements).items() if key not in edited},
        **kept,
    }


def appliance_of(row: ApplianceRow) -> Appliance:
    """Return the appliance of a row."""
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
        requirements=Requirements.from_values(row.requirements),
        hypervisor=row.hypervisor,
        comments=row.comments,
        keys=dict(row.keys),
        discontinued_on=row.discontinued_on,
        successor=ImageIdentifier(row.successor) if row.successor is not None else None,
    )


def version_of(row: ApplianceVersionRow) -> ApplianceVersion:
    """Return the version of a row.

    Raises:
        DatabaseError: The row is neither of a file nor of a reference.
    """
    checksum = Checksum("sha512", row.sha512)
    image: Image | ReferencedImage
    if row.path is not None and row.disk_format is not None and row.virtual_size_bytes is not None:
        image = Image(
            format=DiskFormat(row.disk_format),
            size_bytes=row.size_bytes,
            virtual_size_bytes=row.virtual_size_bytes,
            checksum=checksum,
        )
    elif row.uri is not None:
        image = ReferencedImage(uri=row.uri, format=row.disk_format, size_bytes=row.size_bytes, checksum=checksum)
    else:
        raise DatabaseError(
            f"the database holds something that cannot be about version {row.version} of {row.appliance_name}",
            resolution="Restore the database from a backup.",
        )
    return ApplianceVersion(
        appliance=appliance_of(row.appliance),
        version=row.version,
        path=Path(row.path) if row.path is not None else None,
        image=image,
        created=row.created,
        expires=row.expires,
        provenance=row.provenance,
        mpuri=row.mpuri,
        built_on=tuple(Checksum.parse(each) for each in row.built_on or ()),
        evidence=Path(row.evidence) if row.evidence is not None else None,
    )


def tell(  # noqa: PLR0917 - what was done to what, in the order of a sentence
    session: Session,
    noun: str,
    name: str,
    change: str,
    at: datetime,
    facts: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Write down, in the transaction of ``session``, that something of the catalogue changed.

    Args:
        session: Of the change.
        noun: ``appliance``, ``image list`` or ``set``.
        name: Which.
        change: What was done, in a word or two (``edited``).
        at: When.
        facts: What else is known.
    """
    write_event(
        session, EventKind.CATALOGUE_CHANGED, subject=name, facts={"noun": noun, "change": change, **facts}, at=at
    )
