# SPDX-License-Identifier: Apache-2.0
"""Sets: complementary appliances whose versions are published, replaced, taken back and expired together.

A release of a set names one version of each of its appliances, and never changes. Lists that carry the set carry the
newest release, whole. Going back is a new release with the members of an earlier one: subscribers take what the newest
version of a list says, so nothing of theirs has to go backwards.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.catalogue import keys
from coppice.catalogue.consistency import require_to_come
from coppice.catalogue.endorsers import require_name
from coppice.catalogue.model import SetRelease
from coppice.catalogue.releases import (
    appliances_of,
    earlier_release,
    following_release,
    keep_release,
    lists_carrying,
    newest_release,
    release_of,
    releases_of,
    set_of,
    set_row,
)
from coppice.catalogue.rows import appliance_row, tell, version_of, version_row, version_rows
from coppice.catalogue.tables import SetMemberRow, SetRow
from coppice.clock import SystemClock, to_rfc3339
from coppice.errors import ExistsError, InconsistentListError, InputError, NotFoundError, StateError
from coppice.model.identifiers import is_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.catalogue.model import ApplianceSet
    from coppice.catalogue.tables import ApplianceVersionRow
    from coppice.clock import Clock
    from coppice.database import Database


class Sets:
    """The sets of one publisher.

    Args:
        database: Where they are kept.
        clock: Tells when a change was made; the machine's when None.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def create(self, name: str, *, title: str, description: str = "", identifier: str | None = None) -> ApplianceSet:
        """Make a set without appliances; its identifier is minted here, once.

        Raises:
            InputError: The name, the title or the identifier cannot be one.
            ExistsError: There is a set of that name, or of that identifier.
        """
        require_name(name, "a set")
        if identifier is not None and not is_uuid(identifier):
            raise InputError(f"{identifier[:60]!r} is no identifier", resolution="An identifier is a UUID.")
        minted = identifier.lower() if identifier is not None else str(uuid.uuid4())
        try:
            row = SetRow(name=name, identifier=minted, title=keys.line(title), description=keys.paragraph(description))
        except ValueError as problem:
            raise InputError(f"the set {name}: {problem}") from problem
        with self._database.session() as session:
            taken = session.scalar(select(SetRow.name).where((SetRow.name == name) | (SetRow.identifier == minted)))
            if taken is not None:
                raise ExistsError(f"there is a set {taken!r} already", resolution="Choose another name or identifier.")
            session.add(row)
            tell(session, "set", name, "created", self._clock.now(), {"set": minted})
            session.flush()
            return set_of(session, row)

    def get(self, name: str) -> ApplianceSet:
        """Return the set ``name``.

        Raises:
            NotFoundError: There is no such set.
        """
        with self._database.session() as session:
            return set_of(session, set_row(session, name))

    def all(self) -> tuple[ApplianceSet, ...]:
        """Return every set, by name."""
        with self._database.session() as session:
            return tuple(set_of(session, row) for row in session.scalars(select(SetRow).order_by(SetRow.name)).all())

    def add(self, name: str, *appliances: str) -> ApplianceSet:
        """Have the next release of the set take in ``appliances``.

        Raises:
            NotFoundError: There is no such set, or no such appliance.
            StateError: An appliance is discontinued.
        """
        with self._database.session() as session:
            row = set_row(session, name)
            for appliance in appliances:
                ends = appliance_row(session, appliance).discontinued_on
                if ends is not None:
                    raise StateError(f"{appliance} is discontinued on {to_rfc3339(ends)} and joins no set any more")
                if session.get(SetMemberRow, (name, appliance)) is None:
                    session.add(SetMemberRow(set_name=name, appliance=appliance))
                    tell(session, "set", name, "appliance added", self._clock.now(), {"appliance": appliance})
            session.flush()
            return set_of(session, row)

    def leave_out(self, name: str, *appliances: str) -> ApplianceSet:
        """Leave ``appliances`` out of the next release of the set; releases that there are stay as they are.

        Raises:
            NotFoundError: There is no such set, or an appliance is not of it.
        """
        with self._database.session() as session:
            row = set_row(session, name)
            for appliance in appliances:
                member = session.get(SetMemberRow, (name, appliance))
                if member is None:
                    raise NotFoundError(f"the set {name!r} does not have {appliance!r}")
                session.delete(member)
                tell(session, "set", name, "appliance removed", self._clock.now(), {"appliance": appliance})
            session.flush()
            return set_of(session, row)

    def release(
        self,
        name: str,
        *,
        version: str | None = None,
        versions: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> SetRelease:
        """Make a release: the newest version of each appliance, or the one that is named.

        When the newest release has the very same members, it is returned, and nothing is made.

        Args:
            name: The set.
            version: Of the release; the one that follows the newest when None.
            versions: By appliance, where it should not be the newest version.
            dry_run: Change nothing.

        Raises:
            NotFoundError: There is no such set, or a version that is named.
            InconsistentListError: The set has no appliances, or one of them cannot be in a release.
            InputError: The version cannot be one, or does not come after the newest.
        """
        with self._database.session() as session:
            row = set_row(session, name)
            members = self._members(session, row, versions or {})
            newest = newest_release(session, name)
            chosen = tuple(sorted((version_of(each) for each in members), key=lambda each: each.appliance.name))
            if newest is not None and newest.members == chosen and version in {None, newest.version}:
                return newest
            made = SetRelease(
                version=following_release(name, newest, version), created=self._clock.now(), members=chosen
            )
            if not dry_run:
                keep_release(session, row, made, members)
            return made

    def roll_back(self, name: str, *, to: str | None = None, dry_run: bool = False) -> SetRelease:
        """Make a new release that has the members of an earlier one.

        Args:
            name: The set.
            to: Version of the earlier release; None: the one before the newest (before the one that the newest went
                back to, when it did).
            dry_run: Change nothing.

        Raises:
            NotFoundError: There is no such set or release.
            StateError: There is nothing to go back to.
        """
        with self._database.session() as session:
            row = set_row(session, name)
            releases = releases_of(session, name)
            earlier = earlier_release(name, releases, to)
            newest = release_of(releases[-1])
            made = SetRelease(
                version=following_release(name, newest, None),
                created=self._clock.now(),
                members=release_of(earlier).members,
                members_of=earlier.version,
            )
            if not dry_run:
                keep_release(session, row, made, [member.row for member in earlier.members])
            return made

    def expire(self, name: str, on: datetime | None, *, dry_run: bool = False) -> ApplianceSet:
        """Have the endorsement of every member end at ``on``, at the latest; None takes that back.

        Raises:
            NotFoundError: There is no such set.
            InputError: The date lies before today.
        """
        now = self._clock.now()
        if on is not None:
            require_to_come(on, now, f"the set {name}")
        with self._database.session() as session:
            row = set_row(session, name)
            found = set_of(session, row)
            if not dry_run:
                row.expires = on
                facts = {"on": None if on is None else to_rfc3339(on)}
                tell(session, "set", name, "expiry set", now, facts)
                session.flush()
            return found if dry_run else set_of(session, row)

    def delete(self, name: str) -> None:
        """Delete a set and its releases; its appliances stay.

        Raises:
            NotFoundError: There is no such set.
            StateError: A list carries it.
        """
        with self._database.session() as session:
            row = set_row(session, name)
            lists = lists_carrying(session, name)
            if lists:
                raise StateError(
                    f"the set {name} is carried by: {', '.join(lists)}",
                    resolution=f"`coppice imagelist unbind-set LIST {name}` takes it out.",
                )
            session.execute(delete(SetRow).where(SetRow.name == name))
            tell(session, "set", name, "deleted", self._clock.now(), {"set": row.identifier})

    def _members(self, session: Session, row: SetRow, versions: Mapping[str, str]) -> list[ApplianceVersionRow]:
        names = appliances_of(session, row.name)
        unknown = sorted(set(versions) - set(names))
        if unknown:
            raise NotFoundError(f"the set {row.name!r} does not have {unknown[0]!r}")
        problems, members = [], []
        for name in names:
            appliance = appliance_row(session, name)
            wanted = versions.get(name)
            member = version_row(session, name, wanted) if wanted is not None else version_rows(appliance)[-1]
            ends = [each for each in (member.expires, appliance.discontinued_on) if each is not None]
            if ends and min(ends) <= self._clock.now():
                problems.append(f"{name} {member.version} ended on {to_rfc3339(min(ends))}")
            members.append(member)
        if not names:
            problems.append(f"it has no appliances: `coppice set add {row.name} APPLIANCE` adds one")
        if problems:
            raise InconsistentListError(
                f"the set {row.name} cannot be released: {problems[0]}", details="\n".join(problems[1:]) or None
            )
        return members
