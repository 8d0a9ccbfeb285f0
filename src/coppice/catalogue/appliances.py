# SPDX-License-Identifier: Apache-2.0
"""What is done to appliances over their life: described anew, discontinued, continued, deleted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select

from coppice.catalogue.consistency import check_appliance, require_to_come
from coppice.catalogue.drafts import ApplianceDraft
from coppice.catalogue.history import lists_naming
from coppice.catalogue.lists import selection_of, selection_row
from coppice.catalogue.rows import appliance_of, appliance_row, tell, version_of, version_row, version_rows
from coppice.catalogue.tables import (
    ApplianceRow,
    ApplianceVersionRow,
    SelectedApplianceRow,
    SelectedSetRow,
    SetMemberRow,
    SetReleaseMemberRow,
    SetReleaseRow,
)
from coppice.clock import SystemClock, to_rfc3339
from coppice.errors import InconsistentListError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.orm import Session

    from coppice.catalogue.model import ApplianceVersion
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.model.appliance import Appliance

_TEXTS = (
    "title",
    "description",
    "os_kind",
    "os_distribution",
    "os_version",
    "architecture",
    "hypervisor",
    "comments",
)
_NEEDS = ("minimum_cores", "minimum_ram_mib", "minimum_disk_bytes", "recommended_cores", "recommended_ram_mib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an appliance ends.

    Attributes:
        appliance: As it is now.
        lists: Names of the image lists that carry it, alone or in a set.
        ends: The end of each version that these lists carry, by version.
    """

    appliance: Appliance
    lists: tuple[str, ...]
    ends: dict[str, datetime | None]


class Appliances:
    """The appliances of one publisher, as those who look after them see them.

    Args:
        database: Where they are kept.
        clock: Tells when a change was made; the machine's when None.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def get(self, name: str) -> Appliance:
        """Return the appliance ``name``.

        Raises:
            NotFoundError: There is no such appliance.
        """
        with self._database.session() as session:
            return appliance_of(appliance_row(session, name))

    def lists_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the image lists that carry the appliance ``name``, alone or in a set.

        Raises:
            NotFoundError: There is no such appliance.
        """
        with self._database.session() as session:
            appliance_row(session, name)
            return _lists(session, name)

    @contextmanager
    def edit(self, name: str, *, dry_run: bool = False) -> Iterator[ApplianceDraft]:
        """Yield a draft of the appliance ``name``; keep it when the block ends well, and change nothing when not.

        Subscribers see the change with the next publication of the lists that carry it.

        Args:
            name: The appliance.
            dry_run: Check what was edited, and keep nothing.

        Raises:
            NotFoundError: There is no such appliance.
            InconsistentListError: What was edited contradicts itself; the details name all that is wrong.
        """
        with self._database.session() as session:
            row = appliance_row(session, name)
            draft, before = _draft(row), _draft(row)
            yield draft
            check_appliance(draft)
            changed = [
                key
                for key in (*_TEXTS, *_NEEDS, "groups", "keys", "edited")
                if getattr(draft, key) != getattr(before, key)
            ]
            _write(row, draft)
            if changed:
                tell(session, "appliance", name, "edited", self._clock.now(), {"keys": changed})
            if dry_run:
                session.rollback()

    def discontinue(self, name: str, *, on: datetime, successor: str | None = None, dry_run: bool = False) -> Ending:
        """End an appliance: no new version is accepted, and what is listed of it expires at ``on`` at the latest.

        Doing so again sets another date or successor.

        Args:
            name: The appliance.
            on: When it ends.
            successor: Name of the appliance that takes its place.
            dry_run: Change nothing.

        Raises:
            NotFoundError: There is no such appliance or successor.
            InputError: The date lies before today.
            InconsistentListError: The successor cannot be one.
        """
        now = self._clock.now()
        require_to_come(on, now, name)
        with self._database.session() as session:
            row = appliance_row(session, name)
            following = None if successor is None else _successor(session, row, successor)
            row.discontinued_on, row.successor = on, following.identifier if following is not None else None
            facts = {"on": to_rfc3339(on), "successor": successor}
            tell(session, "appliance", name, "discontinued", now, facts)
            session.flush()
            found = _ending(session, row)
            if dry_run:
                session.rollback()
            return found

    def resume(self, name: str, *, dry_run: bool = False) -> Ending:
        """Take back that an appliance was discontinued: its versions end when they would have ended without it.

        Raises:
            NotFoundError: There is no such appliance.
            StateError: It is not discontinued.
        """
        with self._database.session() as session:
            row = appliance_row(session, name)
            if row.discontinued_on is None:
                raise StateError(f"{name} is not discontinued")
            row.discontinued_on, row.successor = None, None
            tell(session, "appliance", name, "continued", self._clock.now())
            session.flush()
            found = _ending(session, row)
            if dry_run:
                session.rollback()
            return found

    def set_expiry(self, name: str, version: str, expires: datetime | None) -> ApplianceVersion:
        """Set when the endorsement of a version ends; None: with its list.

        Raises:
            NotFoundError: There is no such appliance or version.
        """
        with self._database.session() as session:
            row = version_row(session, name, version)
            if row.expires != expires:
                row.expires = expires
                facts = {"version": version, "expires": None if expires is None else to_rfc3339(expires)}
                tell(session, "appliance", name, "expiry set", self._clock.now(), facts)
            session.flush()
            return version_of(row)

    def delete(self, name: str, *, dry_run: bool = False) -> tuple[Path, ...]:
        """Delete an appliance with all its versions; return the files that nothing in the catalogue needs any more.

        Its identifier is never given out again.

        Raises:
            NotFoundError: There is no such appliance.
            StateError: A list or a set carries it, or a published list names it.
        """
        with self._database.session() as session:
            row = appliance_row(session, name)
            now = self._clock.now()
            _refuse_carried(name, _lists(session, name), _sets(session, name))
            _refuse_named(name, lists_naming(session, row.identifier, None, now))
            paths = [version.path for version in row.versions if version.path is not None]
            session.execute(delete(ApplianceVersionRow).where(ApplianceVersionRow.appliance_name == name))
            session.execute(delete(ApplianceRow).where(ApplianceRow.name == name))
            tell(session, "appliance", name, "deleted", now, {"image": row.identifier})
            unneeded = _unneeded(session, paths)
            if dry_run:
                session.rollback()
            return unneeded

    def delete_version(self, name: str, version: str, *, dry_run: bool = False) -> tuple[Path, ...]:
        """Delete a version; return the files that nothing in the catalogue needs any more.

        The version is never given out again for other bytes.

        Raises:
            NotFoundError: There is no such appliance or version.
            StateError: It is the only one, lists carry it, a release of a set has it, or a published list names it.
        """
        with self._database.session() as session:
            row = version_row(session, name, version)
            rows = version_rows(row.appliance)
            if len(rows) == 1:
                raise StateError(
                    f"{version} is the only version of {name}", resolution=f"`coppice appliance delete {name}`"
                )
            carrying = _lists_alone(session, name) if row is rows[-1] else ()
            _refuse_carried(f"version {version} of {name}", carrying, _releases_with(session, row))
            now = self._clock.now()
            _refuse_named(f"version {version} of {name}", lists_naming(session, row.appliance.identifier, version, now))
            paths = [row.path] if row.path is not None else []
            row.deleted_at = now
            tell(session, "appliance", name, "version deleted", now, {"version": version})
            session.flush()
            unneeded = _unneeded(session, paths)
            if dry_run:
                session.rollback()
            return unneeded


def _draft(row: ApplianceRow) -> ApplianceDraft:
    said: dict[str, Any] = {key: getattr(row, key) for key in _TEXTS}
    said |= {key: row.requirements.get(key) for key in _NEEDS}
    return ApplianceDraft(
        name=row.name,
        **said,
        groups=tuple(row.groups),
        keys=dict(row.keys),
        edited=set(row.edited),
    )


def _write(row: ApplianceRow, draft: ApplianceDraft) -> None:
    for key in _TEXTS:
        setattr(row, key, getattr(draft, key))
    needs = {key: getattr(draft, key) for key in _NEEDS}
    row.requirements = {key: value for key, value in needs.items() if value is not None}
    row.groups, row.keys, row.edited = list(draft.groups), dict(draft.keys), sorted(draft.edited)


def _successor(session: Session, row: ApplianceRow, name: str) -> ApplianceRow:
    found = appliance_row(session, name)
    seen = {row.identifier}
    step: ApplianceRow | None = found
    while step is not None:
        if step.identifier in seen:
            raise InconsistentListError(
                f"{name} cannot succeed {row.name}: that leads back to {step.name}", context={"successor": name}
            )
        seen.add(step.identifier)
        step = session.scalar(select(ApplianceRow).where(ApplianceRow.identifier == step.successor))
    if found.discontinued_on is not None:
        raise InconsistentListError(
            f"{name} cannot succeed {row.name}: it is discontinued itself, on {to_rfc3339(found.discontinued_on)}",
            resolution="Name the appliance that takes its place.",
        )
    return found


def _ending(session: Session, row: ApplianceRow) -> Ending:
    carried = _carried(session, row.name)
    ends = {
        version.version: min(
            (each for each in (version.expires, row.discontinued_on) if each is not None), default=None
        )
        for version in carried.values()
    }
    return Ending(appliance=appliance_of(row), lists=tuple(carried), ends=ends)


def _lists_alone(session: Session, name: str) -> tuple[str, ...]:
    found = session.scalars(select(SelectedApplianceRow.selection).where(SelectedApplianceRow.appliance == name))
    return tuple(sorted(found))


def _carried(session: Session, name: str) -> dict[str, ApplianceVersion]:
    """Return the version of an appliance that each list carries, alone or in a set, by list."""
    by_set = session.scalars(
        select(SelectedSetRow.selection)
        .join(SetReleaseRow, SetReleaseRow.set_name == SelectedSetRow.set_name)
        .join(SetReleaseMemberRow, SetReleaseMemberRow.release == SetReleaseRow.number)
        .join(ApplianceVersionRow, ApplianceVersionRow.number == SetReleaseMemberRow.appliance_version)
        .where(ApplianceVersionRow.appliance_name == name)
    )
    found = {}
    for each in sorted({*_lists_alone(session, name), *by_set}):
        listed = selection_of(session, selection_row(session, each)).listed_versions
        version = next((known for known in listed if known.appliance.name == name), None)
        # An earlier release of a set may have had it, and the newest has it no more.
        if version is not None:
            found[each] = version
    return found


def _lists(session: Session, name: str) -> tuple[str, ...]:
    return tuple(_carried(session, name))


def _sets(session: Session, name: str) -> tuple[str, ...]:
    members = session.scalars(select(SetMemberRow.set_name).where(SetMemberRow.appliance == name))
    released = session.scalars(
        select(SetReleaseRow.set_name)
        .join(SetReleaseMemberRow, SetReleaseMemberRow.release == SetReleaseRow.number)
        .join(ApplianceVersionRow, ApplianceVersionRow.number == SetReleaseMemberRow.appliance_version)
        .where(ApplianceVersionRow.appliance_name == name)
    )
    return tuple(sorted({*members, *released}))


def _releases_with(session: Session, row: ApplianceVersionRow) -> tuple[str, ...]:
    found = session.execute(
        select(SetReleaseRow.set_name, SetReleaseRow.version)
        .join(SetReleaseMemberRow, SetReleaseMemberRow.release == SetReleaseRow.number)
        .where(SetReleaseMemberRow.appliance_version == row.number)
    )
    return tuple(sorted(f"{name} {version}" for name, version in found))


def _refuse_carried(what: str, lists: tuple[str, ...], sets: tuple[str, ...]) -> None:
    carrying = [*(f"the image list {each}" for each in lists), *(f"the set {each}" for each in sets)]
    if carrying:
        raise StateError(
            f"{what} is carried by {', '.join(carrying)}",
            resolution="Take it out there first; a set keeps its releases until it is deleted.",
            context={"lists": list(lists), "sets": list(sets)},
        )


def _refuse_named(what: str, lists: tuple[str, ...]) -> None:
    if lists:
        raise StateError(
            f"{what} is named by what is published: {', '.join(lists)}",
            resolution="Publish the list anew without it, or wait until it has expired.",
            context={"published": list(lists)},
        )


def _unneeded(session: Session, paths: list[str]) -> tuple[Path, ...]:
    from pathlib import Path

    needed = set(
        session.scalars(
            select(ApplianceVersionRow.path).where(
                ApplianceVersionRow.path.in_(paths), ApplianceVersionRow.deleted_at.is_(None)
            )
        )
    )
    return tuple(Path(path) for path in dict.fromkeys(paths) if path not in needed)
