# SPDX-License-Identifier: Apache-2.0
"""Image lists that had their life elsewhere: they enter the catalogue whole or not at all, with their identifiers.

Their images stay where they are. What comes in is believed by whoever hands it in: a list of somebody else is verified
before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from coppice.catalogue.catalogue import find_version, refuse_newcomer
from coppice.catalogue.consistency import check_contents, check_list
from coppice.catalogue.drafts import SelectionDraft
from coppice.catalogue.endorsers import endorser_row, require_name
from coppice.catalogue.history import last_version_of, record_imported
from coppice.catalogue.lists import selection_of
from coppice.catalogue.model import PublicationState
from coppice.catalogue.rows import describe, tell
from coppice.catalogue.tables import (
    ApplianceRow,
    ApplianceVersionRow,
    EndorserRow,
    PublicationRow,
    SelectedApplianceRow,
    SelectionRow,
)
from coppice.clock import SystemClock, to_rfc3339
from coppice.errors import ExistsError, InconsistentListError, StateError
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from coppice.catalogue.model import ReferencedImage, Selection
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageIdentifier, ListIdentifier
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements

_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]+")
_LONGEST_STEM = 50
_APPLIANCES = select(ApplianceRow).options(selectinload(ApplianceRow.versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignVersion:
    """An image of a list that had its life elsewhere.

    Attributes:
        identifier: Kept.
        version: Kept.
        title: For people, one line.
        description: For people, a paragraph.
        groups: Categories.
        operating_system: What runs in it.
        requirements: What it needs.
        hypervisor: ``hv:hypervisor``.
        comments: ``sl:comments``.
        image: Where it is, and its facts.
        created: When the list was made.
        expires: The end of its endorsement; None: with its list.
        mpuri: ``ad:mpuri``, or None.
        keys: What else the list says of it, by the format's keys.
        name: What it should be called here; None: made of the title.
        built_on: Digests of the published files that it is built on, the nearest first, as the list says.
    """

    identifier: ImageIdentifier
    version: str
    title: str
    description: str
    groups: tuple[str, ...]
    operating_system: OperatingSystem
    requirements: Requirements
    hypervisor: str
    comments: str
    image: ReferencedImage
    created: datetime
    expires: datetime | None
    mpuri: str | None
    keys: Mapping[str, object]
    name: str | None = None
    built_on: tuple[Checksum, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignList:
    """An image list that had its life elsewhere.

    Attributes:
        name: What it is called here.
        identifier: Kept.
        version: What subscribers have of it; None: nothing was published.
        title: For people, one line.
        description: For people, a paragraph.
        source: Where it comes from.
        vo: Virtual organisation, or None.
        endorser: Name of the endorser who signs it from now on.
        publisher: Name of the publisher that it goes to from now on.
        lifetime_days: From signing to expiry.
        keys: What else it says of itself, by the format's keys.
        versions: Its images.
        signed: The bytes that were verified; None where there were none.
    """

    name: str
    identifier: ListIdentifier
    version: str | None
    title: str
    description: str
    source: str
    vo: str | None
    endorser: str
    publisher: str
    lifetime_days: int
    keys: Mapping[str, object]
    versions: tuple[ForeignVersion, ...]
    signed: SignedBytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBytes:
    """The verified list that an intake comes from; it becomes the first entry of the publication history.

    Attributes:
        message: The signed bytes.
        payload: SHA-512 of the signed JSON.
        signer: Subject of the certificate that signed.
        uri: Where it says that it lives.
        expires: When it expires.
    """

    message: bytes
    payload: Checksum
    signer: str
    uri: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeReport:
    """What came in.

    Attributes:
        selection: The list, as it is here now.
        created: Whether the list is new here.
        added: ``appliance version`` of each version that is new here.
        absent: Appliances that the list carries here and the one that came in does not name.
    """

    selection: Selection
    created: bool
    added: tuple[str, ...]
    absent: tuple[str, ...]


class Intake:
    """Takes image lists into the catalogue.

    Args:
        database: Where it is kept.
        clock: Tells when; the machine's when None.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def take(self, foreign: ForeignList, *, publishers: set[str] | None = None, dry_run: bool = False) -> IntakeReport:
        """Take a list in, in one transaction. Once more with the same, or a later version, is fine.

        Args:
            foreign: The list; it was verified.
            publishers: Names of the publishers of the settings; None: not asked for.
            dry_run: Change nothing; only say what would be.

        Raises:
            InputError: The name cannot be one.
            InconsistentListError: Something does not hold of the list.
            ExistsError: The name belongs to another list here, or the identifier to a list of another name.
            NotFoundError: The endorser cannot sign here.
            StateError: The list here is newer.
            VersionExistsError: A version is here with other bytes, or a newer one is.
        """
        require_name(foreign.name, "an image list")
        now = self._clock.now()
        with self._database.session() as session:
            row, created = self._list(session, foreign, publishers)
            added: list[str] = []
            names: dict[str, str] = {}
            # All at once: a list may have thousands of images.
            known = {each.identifier: each for each in session.scalars(_APPLIANCES)}
            taken = {each.name for each in known.values()}
            selected = set(session.scalars(_selected_by(row.name)))
            for version in foreign.versions:
                appliance = known.get(version.identifier) or _newcomer(version, taken)
                if _bring_in(appliance, version):
                    added.append(f"{appliance.name} {version.version}")
                session.add(appliance)
                names[version.identifier] = appliance.name
                taken.add(appliance.name)
            session.flush()
            session.add_all(
                SelectedApplianceRow(selection=row.name, appliance=name)
                for name in names.values()
                if name not in selected
            )
            if foreign.signed is not None and foreign.version is not None:
                self._remember(session, row, foreign, foreign.signed, names)
            facts = {"list": row.identifier, "version": foreign.version, "added": added}
            tell(session, "image list", row.name, "imported", now, facts)
            session.flush()
            found = selection_of(session, row)
            check_contents(found, unreleased=True)
            carried = set(names.values())
            absent = tuple(each.appliance.name for each in found.versions if each.appliance.name not in carried)
            if dry_run:
                session.rollback()
            return IntakeReport(selection=found, created=created, added=tuple(added), absent=absent)

    def _list(self, session: Session, foreign: ForeignList, publishers: set[str] | None) -> tuple[SelectionRow, bool]:
        endorser_row(session, foreign.endorser)
        row = session.scalar(select(SelectionRow).where(SelectionRow.identifier == foreign.identifier))
        same_name = session.get(SelectionRow, foreign.name)
        if row is not None and row.name != foreign.name:
            raise ExistsError(
                f"the list {foreign.identifier} is here as {row.name!r}", resolution=f"Import it as {row.name}."
            )
        if row is None and same_name is not None:
            raise ExistsError(
                f"there is an image list {foreign.name!r} already, with the identifier {same_name.identifier}",
                resolution="Choose another name.",
            )
        last = row.last_version if row is not None else last_version_of(session, foreign.identifier)
        if last is not None and (foreign.version is None or Version(foreign.version) < Version(last)):
            raise StateError(
                f"the image list {foreign.name} has version {last} here, and {foreign.version} is to come in",
                resolution="Import the newest version of the list.",
            )
        draft = SelectionDraft(
            name=foreign.name,
            title=foreign.title,
            description=foreign.description,
            source=foreign.source or foreign.title,
            vo=foreign.vo,
            endorser=foreign.endorser,
            publisher=foreign.publisher,
            lifetime_days=foreign.lifetime_days,
            last_version=foreign.version,
            keys=dict(foreign.keys),
        )
        check_list(draft, endorsers=set(session.scalars(select(EndorserRow.name))), publishers=publishers)
        created = row is None
        row = row or SelectionRow(name=foreign.name, identifier=foreign.identifier)
        row.title, row.description, row.source, row.vo = draft.title, draft.description, draft.source, draft.vo
        row.endorser, row.publisher, row.lifetime_days = draft.endorser, draft.publisher, draft.lifetime_days
        row.last_version, row.keys = draft.last_version, draft.keys
        session.add(row)
        session.flush()
        return row, created

    def _remember(
        self, session: Session, row: SelectionRow, foreign: ForeignList, signed: SignedBytes, names: Mapping[str, str]
    ) -> None:
        now = self._clock.now()
        images = [
            {
                "identifier": each.identifier,
                "appliance": names[each.identifier],
                "version": each.version,
                "sha512": each.image.checksum.hexdigest,
                "expires": None if each.expires is None else to_rfc3339(each.expires),
            }
            for each in foreign.versions
        ]
        entry = PublicationRow(
            selection=row.name,
            list_identifier=row.identifier,
            version=str(foreign.version),
            state=str(PublicationState.IMPORTED),
            payload_sha512=signed.payload.hexdigest,
            signer=signed.signer,
            endorser=None,
            uri=signed.uri,
            images=images,
            message=signed.message,
            signed_at=now,
            expires=signed.expires,
            published_at=None,
        )
        record_imported(session, entry)


def _selected_by(name: str) -> Select[Any]:
    return select(SelectedApplianceRow.appliance).where(SelectedApplianceRow.selection == name)


def _newcomer(foreign: ForeignVersion, taken: set[str]) -> ApplianceRow:
    return ApplianceRow(name=_free_name(foreign, taken), identifier=foreign.identifier, versions=[])


def _free_name(foreign: ForeignVersion, taken: set[str]) -> str:
    if foreign.name is not None:
        require_name(foreign.name, "an appliance")
        if foreign.name in taken:
            raise ExistsError(f"there is an appliance {foreign.name!r} already, with another identifier")
        return foreign.name
    stem = _NOT_OF_A_NAME.sub("-", foreign.title.lower()).strip("-")[:_LONGEST_STEM].strip("-") or "image"
    for name in (stem, f"{stem}-{foreign.identifier[:8]}", foreign.identifier):
        if name not in taken:
            return name
    raise InconsistentListError(f"no name is free for the image {foreign.identifier}")


def _bring_in(row: ApplianceRow, foreign: ForeignVersion) -> bool:
    """Have an appliance have a foreign version; tell whether it is new."""
    known = find_version(row, foreign.version, foreign.image.checksum.hexdigest)
    is_new = known is None or known.deleted_at is not None
    if known is not None and known.deleted_at is None and known.path is not None:
        # The bytes are held here: they were made, or described, by this publisher, who knows better.
        return False
    if known is None:
        refuse_newcomer(row, foreign.version)
        known = ApplianceVersionRow(version=foreign.version, sha512=foreign.image.checksum.hexdigest)
        known.size_bytes, known.created = foreign.image.size_bytes, foreign.created
        known.appliance = row
    _describe(row, foreign)
    known.uri, known.disk_format, known.mpuri = foreign.image.uri, foreign.image.format, foreign.mpuri
    known.path, known.virtual_size_bytes, known.deleted_at = None, None, None
    known.expires, known.provenance = foreign.expires, None
    known.built_on, known.evidence = [str(each) for each in foreign.built_on], None
    return is_new


def _describe(row: ApplianceRow, foreign: ForeignVersion) -> None:
    system = foreign.operating_system
    said: dict[str, object] = {
        "title": foreign.title,
        "description": foreign.description,
        "groups": list(foreign.groups),
        "os_kind": system.kind,
        "os_distribution": system.distribution,
        "os_version": system.version,
        "architecture": system.architecture,
        "hypervisor": foreign.hypervisor,
        "comments": foreign.comments,
    }
    describe(row, said, foreign.requirements)
    row.keys = {**(row.keys or {}), **foreign.keys}
