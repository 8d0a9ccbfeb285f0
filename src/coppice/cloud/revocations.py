# SPDX-License-Identifier: Apache-2.0
"""What an administrator revoked, as it is kept; and the plan that takes a revocation back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.cloud.draft import Draft, Phase
from coppice.cloud.model import Desired, ImageState, Policy, Revocation, RevokedContent
from coppice.cloud.revocation import Revoked, listed_contents
from coppice.cloud.tables import RevocationRow, RevokedContentRow
from coppice.errors import DatabaseError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.cloud.model import RegisteredImage
    from coppice.cloud.revocation import Known
    from coppice.cloud.steps import Plan
    from coppice.database import Database

MOST_CONTENTS = 1000
"""Of how many contents that came after a revocation by name it is kept that they are of that name, unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is revoked: a content, or an image of a list in one version or in every.

    Attributes:
        digest: Of the published file; None: `key` says which.
        key: Which image of which list; None: `digest` says which.
        version: Only this version of `key`; None: every one.
    """

    digest: Checksum | None = None
    key: ImageKey | None = None
    version: str | None = None

    def is_of(self, revocation: Revocation) -> bool:
        """Tell whether ``revocation`` is of this target, or of a version of it."""
        if self.digest is not None:
            return revocation.digest is not None and revocation.digest.matches(self.digest)
        if revocation.key != self.key:
            return False
        if self.version is None or revocation.version is None:
            return self.version is None
        return Version(revocation.version) == Version(self.version)

    def names(self, known: Known) -> bool:
        """Tell whether ``known`` is revoked by its name by this."""
        if self.digest is not None or known.key != self.key:
            return False
        if self.version is None:
            return True
        return Version.is_version(known.version) and Version(known.version) == Version(self.version)

    def revocation(self, reason: str, at: datetime, known: Iterable[Known] = ()) -> Revocation:
        """Return this as what is revoked; what is named is known to hold what ``known`` says."""
        digests = {str(each.digest): each.digest for each in known if self.names(each)}
        contents = tuple(RevokedContent(digest=digests[each], everywhere=True) for each in sorted(digests))
        return Revocation(
            digest=self.digest, key=self.key, version=self.version, reason=reason, at=at, contents=contents
        )

    def __str__(self) -> str:
        """Return it as people write it."""
        if self.digest is not None:
            return str(self.digest)
        return f"{self.key} version {self.version}" if self.version is not None else f"every version of {self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevocation:
    """A revocation with the number under which it is kept."""

    number: int
    revocation: Revocation


@dataclass(frozen=True, slots=True)
class _Learning:
    """What is kept of a revocation by name."""

    number: int
    revocation: Revocation
    contents: dict[str, RevokedContentRow]

    def learn(self, session: Session, known: Known, *, is_needed: bool) -> bool:
        """Keep what ``known`` holds, if it is of that name; tell whether nothing was left out."""
        version, digest = self.revocation.version, str(known.digest)
        if version is not None and Version(version) != Version(known.version):
            return True
        everywhere, row = known.was_there(self.revocation.at), self.contents.get(digest)
        if row is not None:
            # A cloud that did not answer then had it all the same.
            row.everywhere = row.everywhere or everywhere
        elif everywhere or is_needed or len(self.contents) < MOST_CONTENTS:
            row = RevokedContentRow(revocation=self.number, digest=digest, everywhere=everywhere)
            self.contents[digest] = row
            session.add(row)
        return row is not None


class Revocations:
    """The revocations in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[KeptRevocation, ...]:
        """Return what is revoked, oldest first.

        Raises:
            DatabaseError: The database failed, or what it holds is damaged: nothing counts as not revoked then.
        """
        with self._database.session() as session:
            return tuple(_read(row, contents) for row, contents in _rows(session))

    def in_force(self) -> tuple[Revocation, ...]:
        """Return what is revoked, without its numbers.

        Raises:
            DatabaseError: As `all`.
        """
        return tuple(each.revocation for each in self.all())

    def make(
        self, target: Target, *, reason: str, at: datetime, known: Iterable[Known] = ()
    ) -> tuple[KeptRevocation, bool]:
        """Keep a revocation and tell of it; return it, and whether it is new.

        What is revoked already stays as it is, with its first reason.

        Args:
            target: What is revoked.
            reason: Why, for people.
            at: This instant.
            known: What is listed now: what of it is revoked by its name holds what it is built on for every list.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            for row, contents in _rows(session):
                kept = _read(row, contents)
                if target.is_of(kept.revocation) and kept.revocation.version == target.version:
                    return kept, False
            row = RevocationRow(
                digest=None if target.digest is None else str(target.digest),
                list_identifier=None if target.key is None else target.key.list_identifier,
                image_identifier=None if target.key is None else target.key.image_identifier,
                version=target.version,
                reason=reason,
                at=at,
            )
            session.add(row)
            session.flush()
            made = target.revocation(reason, at, known)
            for each in made.contents:
                session.add(RevokedContentRow(revocation=row.number, digest=str(each.digest), everywhere=True))
            write_event(session, EventKind.REVOCATION_MADE, subject=str(target), facts=_facts(made), at=at)
            return KeptRevocation(number=row.number, revocation=made), True

    def learn(self, known: Sequence[Known]) -> tuple[Known, ...]:
        """Keep what images hold that are revoked by their names: what is built on it outlives it. Return what is not.

        What was registered when the revocation was made counts for every list, what came later for its own. Nothing
        is forgotten. Of a name of which very much came later only that is kept on which something is built.

        Args:
            known: What is listed and registered.

        Raises:
            DatabaseError: As `all`.
        """
        with self._database.session() as session:
            by_key: dict[ImageKey, list[_Learning]] = {}
            for row, contents in _rows(session):
                revocation = _read(row, contents).revocation
                if revocation.key is not None:
                    entry = _Learning(row.number, revocation, {each.digest: each for each in contents})
                    by_key.setdefault(revocation.key, []).append(entry)
            if not by_key:
                return ()
            needed = {each for one in known for each in one.built_on}
            return tuple(
                one
                for one in known
                for learning in by_key.get(one.key, ())
                if not learning.learn(session, one, is_needed=one.prefix in needed)
            )

    def take_back(self, target: Target, *, at: datetime) -> tuple[KeptRevocation, ...]:
        """Forget every revocation of ``target`` and tell of each; return them.

        Raises:
            DatabaseError: The database failed.
        """
        taken = []
        with self._database.session() as session:
            for row, contents in _rows(session):
                kept = _read(row, contents)
                if target.is_of(kept.revocation):
                    session.delete(row)
                    facts = _facts(kept.revocation)
                    write_event(session, EventKind.REVOCATION_TAKEN_BACK, subject=str(target), facts=facts, at=at)
                    taken.append(kept)
        return tuple(taken)


def plan_taking_back(
    registered: Sequence[RegisteredImage],
    target: Target,
    remaining: Sequence[Revocation],
    now: datetime,
    cloud: str,
    *,
    listed: Desired | None = None,
    taken: Sequence[Revocation] = (),
) -> Plan:
    """Return what lets go of what was revoked in a cloud by ``target``, and is by nothing else.

    It becomes withdrawn: nothing starts from it before the next sync finds it listed.

    Args:
        registered: All that the cloud has of this site.
        target: What was taken back.
        remaining: What is revoked still.
        now: This instant.
        cloud: Name of the target.
        listed: What the lists name: what is revoked through its lineage may be built on what this cloud never had.
            None: nothing is known of them.
        taken: The revocations that were taken back, as they were kept.
    """
    listed = listed or Desired(lists=())
    of_target = Revoked((target.revocation("", now, listed_contents(listed)), *taken), listed, registered)
    draft = Draft(policy=Policy(grace=timedelta(0)), now=now, revoked=Revoked(remaining, listed, registered))
    for each in sorted(registered, key=lambda image: image.cloud_identifier):
        is_free = of_target.why_registered(each) is not None and draft.revoked.why_registered(each) is None
        if each.marker.state is ImageState.REVOKED and is_free:
            draft.change(each, ImageState.WITHDRAWN, "its revocation was taken back", Phase.RETIRE)
    return draft.finish(cloud, registered)


def _rows(session: Session) -> list[tuple[RevocationRow, list[RevokedContentRow]]]:
    contents: dict[int, list[RevokedContentRow]] = {}
    for each in session.scalars(select(RevokedContentRow).order_by(RevokedContentRow.digest)):
        contents.setdefault(each.revocation, []).append(each)
    rows = session.scalars(select(RevocationRow).order_by(RevocationRow.number)).all()
    return [(row, contents.get(row.number, [])) for row in rows]


def _read(row: RevocationRow, contents: Iterable[RevokedContentRow]) -> KeptRevocation:
    try:
        key = None
        if row.list_identifier is not None and row.image_identifier is not None:
            key = ImageKey(ListIdentifier(row.list_identifier), ImageIdentifier(row.image_identifier))
        revocation = Revocation(
            digest=Checksum.parse(row.digest or "") if key is None else None,
            key=key,
            version=None if row.version is None else Version(row.version).text,
            reason=row.reason,
            at=row.at,
            contents=tuple(
                RevokedContent(digest=Checksum.parse(each.digest), everywhere=each.everywhere) for each in contents
            ),
        )
    except ValueError as problem:
        raise DatabaseError(
            f"revocation {row.number} in the database is damaged: {problem}",
            resolution="No cloud was changed. Mend the row in the table revocation, or remove it and revoke anew.",
        ) from problem
    return KeptRevocation(number=row.number, revocation=revocation)


def _facts(revocation: Revocation) -> dict[str, object]:
    key = revocation.key
    facts: dict[str, object] = {"reason": revocation.reason}
    if revocation.digest is not None:
        facts["digest"] = str(revocation.digest)
    if key is not None:
        facts |= {"list": key.list_identifier, "image": key.image_identifier, "version": revocation.version}
    return facts
