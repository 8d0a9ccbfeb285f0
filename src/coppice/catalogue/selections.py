# SPDX-License-Identifier: Apache-2.0
"""Selections: what goes into which list."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.catalogue.endorsers import endorser_row, require_name
from coppice.catalogue.model import Selection
from coppice.catalogue.rows import versions_of
from coppice.catalogue.tables import SelectedApplianceRow, SelectionRow
from coppice.errors import ExistsError, InputError, NotFoundError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.identifiers import ListIdentifier
from coppice.model.version import Version

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database


class Selections:
    """The image lists of one publisher."""

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
        require_name(name, "an image list")
        if not 1 <= lifetime_days <= _LONGEST_LIFETIME_DAYS:
            raise InputError(f"a list cannot live for {lifetime_days} days", resolution="Use 1 to 3650 days.")
        with self._database.session() as session:
            if session.get(SelectionRow, name) is not None:
                raise ExistsError(f"there is an image list {name!r} already", resolution="Choose another name.")
            endorser_row(session, endorser)
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


_LONGEST_LIFETIME_DAYS = 3650


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
