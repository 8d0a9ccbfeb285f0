# SPDX-License-Identifier: Apache-2.0
"""The releases of sets, as rows and as what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.catalogue import keys
from coppice.catalogue.model import ApplianceSet, SetRelease
from coppice.catalogue.rows import tell, version_of
from coppice.catalogue.tables import (
    ApplianceVersionRow,
    SelectedSetRow,
    SetMemberRow,
    SetReleaseMemberRow,
    SetReleaseRow,
    SetRow,
)
from coppice.errors import InputError, NotFoundError, StateError
from coppice.model.version import Version, next_version

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Member:
    """A member of a release, as a row and as what it means."""

    def __init__(self, row: ApplianceVersionRow) -> None:
        self.row = row
        self.version = version_of(row)


class Release:
    """A release with its members."""

    def __init__(self, row: SetReleaseRow, members: list[Member]) -> None:
        self.row = row
        self.version = row.version
        self.members = sorted(members, key=lambda member: member.version.appliance.name)


def set_row(session: Session, name: str) -> SetRow:
    """Return the row of the set ``name``.

    Raises:
        NotFoundError: There is no such set.
    """
    row = session.get(SetRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(SetRow.name).order_by(SetRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no set {name!r}", details=f"there are: {known}", resolution="`coppice set create` makes one."
        )
    return row


def set_of(session: Session, row: SetRow) -> ApplianceSet:
    """Return the set of a row."""
    return ApplianceSet(
        name=row.name,
        identifier=row.identifier,
        title=row.title,
        description=row.description,
        appliances=appliances_of(session, row.name),
        expires=row.expires,
        releases=tuple(release_of(each) for each in releases_of(session, row.name)),
        lists=lists_carrying(session, row.name),
    )


def newest_release(session: Session, name: str) -> SetRelease | None:
    """Return the newest release of the set ``name``; None when there is none yet."""
    releases = releases_of(session, name)
    return release_of(releases[-1]) if releases else None


def release_of(release: Release) -> SetRelease:
    """Return what a release is."""
    return SetRelease(
        version=release.row.version,
        created=release.row.created,
        members=tuple(member.version for member in release.members),
        members_of=release.row.members_of,
    )


def releases_of(session: Session, name: str) -> list[Release]:
    """Return the releases of the set ``name``, oldest first."""
    rows = session.scalars(select(SetReleaseRow).where(SetReleaseRow.set_name == name)).all()
    members = session.execute(
        select(SetReleaseMemberRow.release, ApplianceVersionRow)
        .join(ApplianceVersionRow, ApplianceVersionRow.number == SetReleaseMemberRow.appliance_version)
        .where(SetReleaseMemberRow.release.in_([row.number for row in rows]))
    ).all()
    by_release: dict[int, list[Member]] = {}
    for number, member in members:
        by_release.setdefault(number, []).append(Member(member))
    found = [Release(row, by_release.get(row.number, [])) for row in rows]
    return sorted(found, key=lambda release: Version(release.version))


def earlier_release(name: str, releases: list[Release], to: str | None) -> Release:
    """Return the release to go back to: ``to``, or the one before what the newest stands for.

    Raises:
        NotFoundError: There is no such release.
        StateError: There is nothing to go back to.
    """
    if to is not None:
        found = next((each for each in releases if each.version == to), None)
        if found is None:
            raise NotFoundError(
                f"there is no release {to} of the set {name}",
                details=f"there are: {', '.join(each.version for each in releases) or 'none'}",
            )
        if found is releases[-1]:
            raise StateError(f"{to} is the newest release of the set {name}: there is nothing to go back to")
        return found
    stands_for = releases[-1].row.members_of or releases[-1].version if releases else None
    before = [each for each in releases if stands_for is not None and Version(each.version) < Version(stands_for)]
    own = [each for each in before if each.row.members_of is None]
    if not own:
        raise StateError(
            f"there is no release of the set {name} to go back to",
            details=f"there are: {', '.join(each.version for each in releases) or 'none'}",
        )
    return own[-1]


def following_release(name: str, newest: SetRelease | None, wanted: str | None) -> str:
    """Return the version of the release after ``newest``: ``wanted``, or the one that follows.

    Raises:
        InputError: It cannot be a version, or does not come after the newest.
    """
    last = newest.version if newest is not None else None
    try:
        version = keys.version(wanted if wanted is not None else next_version(last))
    except ValueError as problem:
        raise InputError(f"the release of the set {name}: {problem}") from problem
    if last is not None and not Version(version) > Version(last):
        raise InputError(
            f"release {version} of the set {name} does not come after {last}",
            resolution="Choose a version that sorts after it, or none.",
        )
    return version


def keep_release(session: Session, row: SetRow, made: SetRelease, members: list[ApplianceVersionRow]) -> None:
    """Keep a release, and tell of it, in the transaction of ``session``."""
    kept = SetReleaseRow(set_name=row.name, version=made.version, created=made.created, members_of=made.members_of)
    session.add(kept)
    session.flush()
    session.add_all(SetReleaseMemberRow(release=kept.number, appliance_version=member.number) for member in members)
    facts = {
        "version": made.version,
        "members": [f"{member.appliance.name} {member.version}" for member in made.members],
        "members_of": made.members_of,
    }
    tell(session, "set", row.name, "released" if made.members_of is None else "rolled back", made.created, facts)


def appliances_of(session: Session, name: str) -> tuple[str, ...]:
    """Return the names of the appliances of the set ``name``."""
    return tuple(
        session.scalars(
            select(SetMemberRow.appliance).where(SetMemberRow.set_name == name).order_by(SetMemberRow.appliance)
        )
    )


def lists_carrying(session: Session, name: str) -> tuple[str, ...]:
    """Return the names of the lists that carry the set ``name``."""
    return tuple(
        session.scalars(
            select(SelectedSetRow.selection).where(SelectedSetRow.set_name == name).order_by(SelectedSetRow.selection)
        )
    )
