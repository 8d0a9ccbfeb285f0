# SPDX-License-Identifier: Apache-2.0
"""From the rows of image lists to `Selection`: what each carries now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from coppice.catalogue.model import SelectedSet, Selection
from coppice.catalogue.releases import newest_release, set_row
from coppice.catalogue.rows import version_of, version_rows
from coppice.catalogue.tables import ApplianceRow, BoundEndorserRow, SelectedApplianceRow, SelectedSetRow, SelectionRow
from coppice.errors import NotFoundError
from coppice.model.identifiers import ListIdentifier

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def selection_row(session: Session, name: str) -> SelectionRow:
    """Return the row of the list ``name``.

    Raises:
        NotFoundError: There is no such list.
    """
    row = session.get(SelectionRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(SelectionRow.name).order_by(SelectionRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no image list {name!r}",
            details=f"there are: {known}",
            resolution="`coppice imagelist create` makes one.",
        )
    return row


def selection_of(session: Session, row: SelectionRow) -> Selection:
    """Return what a list is and carries."""
    appliances = session.scalars(
        select(ApplianceRow)
        .join(SelectedApplianceRow, SelectedApplianceRow.appliance == ApplianceRow.name)
        .where(SelectedApplianceRow.selection == row.name)
        .order_by(ApplianceRow.name)
        .options(selectinload(ApplianceRow.versions))
    ).all()
    bound = session.scalars(
        select(BoundEndorserRow.endorser)
        .where(BoundEndorserRow.selection == row.name, BoundEndorserRow.endorser != row.endorser)
        .order_by(BoundEndorserRow.endorser)
    ).all()
    sets = session.scalars(
        select(SelectedSetRow.set_name).where(SelectedSetRow.selection == row.name).order_by(SelectedSetRow.set_name)
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
        versions=tuple(version_of(version_rows(each)[-1]) for each in appliances),
        keys=dict(row.keys),
        endorsers=(row.endorser, *bound),
        sets=tuple(_selected_set(session, name) for name in sets),
    )


def _selected_set(session: Session, name: str) -> SelectedSet:
    row = set_row(session, name)
    return SelectedSet(
        name=row.name,
        identifier=row.identifier,
        expires=row.expires,
        release=newest_release(session, name),
    )
