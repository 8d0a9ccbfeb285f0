# SPDX-License-Identifier: Apache-2.0
"""The catalogue: appliances and their immutable versions."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.catalogue.rows import appliance_of, describe, tell, version_of, version_rows, versions_of
from coppice.catalogue.tables import ApplianceRow, ApplianceVersionRow
from coppice.clock import SystemClock, to_rfc3339
from coppice.errors import InputError, StateError, VersionExistsError
from coppice.model.identifiers import is_name
from coppice.model.version import Version

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.descriptor.model import Descriptor
    from coppice.model.appliance import Appliance
    from coppice.model.image import Image


class Catalogue:
    """The appliances of one publisher."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def add(
        self,
        name: str,
        descriptor: Descriptor,
        *,
        directory: Path,
        expires: datetime | None = None,
        evidence: Path | None = None,
    ) -> ApplianceVersion:
        """Add the version that ``descriptor`` describes to the appliance ``name``; make the appliance when it is new.

        Adding a version again with the same bytes changes nothing.

        Args:
            name: The appliance.
            descriptor: Its first disk is the one that is published.
            directory: What the paths in the descriptor are relative to.
            expires: When the version's endorsement ends; None: with its list.
            evidence: Where the files that tell of its build are kept; None: nowhere.

        Raises:
            InputError: The name or the version cannot be one, or the descriptor has no disk.
            VersionExistsError: The version is there with other bytes, or a newer version is there.
            StateError: The appliance is discontinued.
        """
        _check(name, descriptor)
        disk = descriptor.disks[0]
        with self._database.session() as session:
            row = session.get(ApplianceRow, name) or ApplianceRow(name=name, identifier=str(uuid.uuid4()), versions=[])
            known = find_version(row, descriptor.version, disk.image.checksum.hexdigest)
            if known is None:
                refuse_newcomer(row, descriptor.version)
                known = ApplianceVersionRow(version=descriptor.version, size_bytes=disk.image.size_bytes)
                known.sha512, known.created, known.expires = disk.image.checksum.hexdigest, descriptor.created, expires
                known.appliance = row
            elif known.deleted_at is None and known.path is not None:
                _describe(row, descriptor)
                if known.evidence is None:
                    # It came in before evidence was kept, or by a descriptor that named none.
                    _note_build(known, descriptor, evidence)
                return version_of(known)
            _describe(row, descriptor)
            # A version that was deleted, or listed by reference, may come back with the same bytes.
            known.path, known.uri, known.deleted_at = str((directory / disk.path).resolve()), None, None
            known.disk_format, known.virtual_size_bytes = str(disk.image.format), disk.image.virtual_size_bytes
            known.provenance = descriptor.provenance
            _note_build(known, descriptor, evidence)
            session.add(row)
            tell(session, "appliance", name, "version added", self._clock.now(), {"version": known.version})
            session.flush()
            return version_of(known)

    def appliances(self) -> tuple[Appliance, ...]:
        """Return all appliances, by name."""
        with self._database.session() as session:
            return tuple(appliance_of(row) for row in session.scalars(select(ApplianceRow).order_by(ApplianceRow.name)))

    def versions(self, name: str) -> tuple[ApplianceVersion, ...]:
        """Return all versions of the appliance ``name``, oldest first.

        Raises:
            NotFoundError: There is no such appliance.
        """
        with self._database.session() as session:
            return versions_of(session, name)

    def propose_version(self, name: str, image: Image, now: datetime, *, wanted: str = "") -> str:
        """Return the version that an image should get.

        It is the newest version's when that has the same bytes; ``wanted`` or the date otherwise, with a counter where
        that is taken.

        Raises:
            InputError: ``wanted`` is no version.
        """
        with self._database.session() as session:
            row = session.get(ApplianceRow, name)
            versions = [version_of(each) for each in version_rows(row)] if row is not None else []
            taken = {Version(each.version) for each in row.versions} if row is not None else set()
        if versions and versions[-1].image.checksum.matches(image.checksum):
            return versions[-1].version
        first = wanted or now.strftime("%Y.%m.%d")
        _check_version(name, first)
        proposal, counter = first, 0
        while Version(proposal) in taken:
            counter += 1
            proposal = f"{first}.{counter}"
        return proposal


def _check(name: str, descriptor: Descriptor) -> None:
    if not is_name(name):
        raise InputError(
            f"{name[:80]!r} cannot name an appliance",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )
    if not descriptor.disks:
        raise InputError(f"the descriptor of {name} names no disk", resolution="A descriptor to add needs one disk.")
    _check_version(name, descriptor.version)


def _check_version(name: str, version: str) -> None:
    try:
        Version(version)
    except ValueError as problem:
        raise InputError(f"version of {name}: {problem}", resolution="Use a version such as 1.2 or 2026.11.") from None


def find_version(row: ApplianceRow, version: str, sha512: str) -> ApplianceVersionRow | None:
    """Return the row of a version, deleted or not; None when there is none.

    Raises:
        VersionExistsError: It is, or was, there with other bytes.
    """
    known = next((each for each in row.versions if Version(each.version) == Version(version)), None)
    if known is None:
        return None
    if known.sha512 != sha512 or known.version != version:
        there = "existed" if known.deleted_at is not None else "exists"
        raise VersionExistsError(
            f"version {version} of {row.name} {there} with other content"
            if known.version == version
            else f"version {version} of {row.name} is the same as {known.version}, which {there}",
            details=f"there: sha512 {known.sha512}\nnew:   sha512 {sha512}",
            resolution="A version never changes: give the new image a new version.",
        )
    return known


def refuse_newcomer(row: ApplianceRow, version: str) -> None:
    """Refuse a new version that an appliance cannot take.

    Raises:
        StateError: The appliance is discontinued.
        VersionExistsError: A newer version is there.
    """
    if row.discontinued_on is not None:
        raise StateError(
            f"{row.name} is discontinued on {to_rfc3339(row.discontinued_on)} and takes no new versions",
            resolution=f"`coppice appliance continue {row.name}` takes that back.",
        )
    newest = max((Version(known.version) for known in version_rows(row)), default=None)
    if newest is not None and not Version(version) > newest:
        raise VersionExistsError(
            f"version {version} of {row.name} does not come after {newest}, which is in the catalogue",
            resolution=f"Subscribers take newer versions only: choose a version that sorts after {newest}.",
        )


def _note_build(known: ApplianceVersionRow, descriptor: Descriptor, evidence: Path | None) -> None:
    known.built_on = [str(each) for each in descriptor.built_on]
    known.evidence = None if evidence is None else str(evidence)


def _describe(row: ApplianceRow, descriptor: Descriptor) -> None:
    system = descriptor.operating_system
    said: dict[str, object] = {
        "title": descriptor.title,
        "description": descriptor.description,
        "groups": list(descriptor.groups),
        "os_kind": system.kind,
        "os_distribution": system.distribution,
        "os_version": system.version,
        "architecture": system.architecture,
    }
    describe(row, said, descriptor.requirements)
