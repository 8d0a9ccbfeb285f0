# SPDX-License-Identifier: Apache-2.0
"""Selections: what goes into which list; and the endorsers who can sign here."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.catalogue.catalogue import versions_of
from coppice.catalogue.model import EndorserIdentity, Selection
from coppice.catalogue.tables import EndorserRow, SelectedApplianceRow, SelectionRow
from coppice.errors import ExistsError, InputError, NotFoundError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.identifiers import ListIdentifier, is_name
from coppice.model.version import Version

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database


class Selections:
    """The image lists of one publisher and their endorsers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        title: str,
        description: str,
        source: str,
        endorser: str,
        publisher: str,
        vo: str | None = None,
        lifetime_days: int = 28,
    ) -> Selection:
        """Make a list that carries nothing yet; its identifier is minted here, once.

        Raises:
            InputError: The name cannot be one, or the lifetime is not 1 to 3650 days.
            ExistsError: There is a list of that name.
            NotFoundError: There is no such endorser.
        """
        _check_name(name, "an image list")
        if not 1 <= lifetime_days <= _LONGEST_LIFETIME_DAYS:
            raise InputError(f"a list cannot live for {lifetime_days} days", resolution="Use 1 to 3650 days.")
        with self._database.session() as session:
            if session.get(SelectionRow, name) is not None:
                raise ExistsError(f"there is an image list {name!r} already", resolution="Choose another name.")
            _endorser(session, endorser)
            row = SelectionRow(
                name=name,
                identifier=str(uuid.uuid4()),
                title=title,
                description=description,
                source=source,
                vo=vo,
                endorser=endorser,
                publisher=publisher,
                lifetime_days=lifetime_days,
                last_version=None,
            )
            session.add(row)
            session.flush()
            return _selection(session, row)

    def get(self, name: str) -> Selection:
        """Return the list ``name`` with the newest version of each of its appliances.

        Raises:
            NotFoundError: There is no such list.
        """
        with self._database.session() as session:
            return _selection(session, _row(session, name))

    def all(self) -> tuple[Selection, ...]:
        """Return every list, by name."""
        with self._database.session() as session:
            rows = session.scalars(select(SelectionRow).order_by(SelectionRow.name)).all()
            return tuple(_selection(session, row) for row in rows)

    def select(self, name: str, appliance: str) -> Selection:
        """Have the list ``name`` carry ``appliance``.

        Raises:
            NotFoundError: There is no such list or appliance.
        """
        with self._database.session() as session:
            row = _row(session, name)
            versions_of(session, appliance)
            if session.get(SelectedApplianceRow, (name, appliance)) is None:
                session.add(SelectedApplianceRow(selection=name, appliance=appliance))
                session.flush()
            return _selection(session, row)

    def deselect(self, name: str, appliance: str) -> Selection:
        """Have the list ``name`` carry ``appliance`` no more: subscribers will withdraw it.

        Raises:
            NotFoundError: There is no such list, or it does not carry the appliance.
        """
        with self._database.session() as session:
            row = _row(session, name)
            selected = session.get(SelectedApplianceRow, (name, appliance))
            if selected is None:
                raise NotFoundError(f"the image list {name!r} does not carry {appliance!r}")
            session.delete(selected)
            session.flush()
            return _selection(session, row)

    def remember_published(self, name: str, version: str, *, facts: dict[str, object], at: datetime) -> None:
        """Note that ``version`` of the list was signed for publication; a version is never given out twice."""
        with self._database.session() as session:
            row = _row(session, name)
            if row.last_version is None or Version(version) > Version(row.last_version):
                row.last_version = version
            write_event(session, EventKind.LIST_PUBLISHED, subject=name, facts={**facts, "version": version}, at=at)

    def add_endorser(self, identity: EndorserIdentity) -> None:
        """Remember an endorser who can sign here; the same name again replaces where certificate and key lie.

        Raises:
            InputError: The name cannot be one.
        """
        _check_name(identity.name, "an endorser")
        with self._database.session() as session:
            session.merge(
                EndorserRow(
                    name=identity.name,
                    certificate=str(identity.certificate),
                    key=str(identity.key),
                    passphrase_file=str(identity.passphrase_file) if identity.passphrase_file else None,
                    creator=identity.creator,
                    email=identity.email,
                )
            )

    def endorser(self, name: str) -> EndorserIdentity:
        """Return the endorser ``name``.

        Raises:
            NotFoundError: There is no such endorser.
        """
        with self._database.session() as session:
            return _identity(_endorser(session, name))

    def endorsers(self) -> tuple[EndorserIdentity, ...]:
        """Return every endorser, by name."""
        with self._database.session() as session:
            return tuple(_identity(row) for row in session.scalars(select(EndorserRow).order_by(EndorserRow.name)))

    def remove_endorser(self, name: str) -> None:
        """Forget an endorser; certificate and key stay where they are.

        Raises:
            NotFoundError: There is no such endorser.
            ExistsError: An image list still names it.
        """
        with self._database.session() as session:
            _endorser(session, name)
            lists = session.scalars(select(SelectionRow.name).where(SelectionRow.endorser == name)).all()
            if lists:
                raise ExistsError(f"the endorser {name!r} still vouches for: {', '.join(lists)}")
            session.execute(delete(EndorserRow).where(EndorserRow.name == name))


_LONGEST_LIFETIME_DAYS = 3650


def _check_name(name: str, what: str) -> None:
    if not is_name(name):
        raise InputError(
            f"{name[:80]!r} cannot name {what}",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )


def _row(session: Session, name: str) -> SelectionRow:
    row = session.get(SelectionRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(SelectionRow.name).order_by(SelectionRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no image list {name!r}",
            details=f"there are: {known}",
            resolution="`coppice imagelist create` makes one.",
        )
    return row


def _endorser(session: Session, name: str) -> EndorserRow:
    row = session.get(EndorserRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(EndorserRow.name).order_by(EndorserRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no endorser {name!r}",
            details=f"there are: {known}",
            resolution="`coppice endorser add` makes one known, with its certificate and key.",
        )
    return row


def _identity(row: EndorserRow) -> EndorserIdentity:
    return EndorserIdentity(
        name=row.name,
        certificate=Path(row.certificate),
        key=Path(row.key),
        passphrase_file=Path(row.passphrase_file) if row.passphrase_file else None,
        creator=row.creator,
        email=row.email,
    )


def _selection(session: Session, row: SelectionRow) -> Selection:
    names = session.scalars(
        select(SelectedApplianceRow.appliance)
        .where(SelectedApplianceRow.selection == row.name)
        .order_by(SelectedApplianceRow.appliance)
    ).all()
    return Selection(
        name=row.name,
        identifier=ListIdentifier(row.identifier),
        title=row.title,
        description=row.description,
        source=row.source,
        vo=row.vo,
        endorser=row.endorser,
        publisher=row.publisher,
        lifetime_days=row.lifetime_days,
        last_version=row.last_version,
        versions=tuple(versions_of(session, name)[-1] for name in names),
    )
