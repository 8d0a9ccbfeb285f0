# SPDX-License-Identifier: Apache-2.0
"""What an administrator revoked, as it is kept; and the plan that takes a revocation back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.cloud.draft import Draft, Phase
from coppice.cloud.model import Desired, ImageState, Policy, Revocation
from coppice.cloud.revocation import Revoked
from coppice.cloud.tables import RevocationRow
from coppice.errors import DatabaseError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coppice.cloud.model import RegisteredImage
    from coppice.cloud.steps import Plan
    from coppice.database import Database


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

    def revocation(self, reason: str, at: datetime) -> Revocation:
        """Return this as what is revoked."""
        return Revocation(digest=self.digest, key=self.key, version=self.version, reason=reason, at=at)

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
            return tuple(_read(row) for row in session.scalars(select(RevocationRow).order_by(RevocationRow.number)))

    def in_force(self) -> tuple[Revocation, ...]:
        """Return what is revoked, without its numbers.

        Raises:
            DatabaseError: As `all`.
        """
        return tuple(each.revocation for each in self.all())

    def make(self, target: Target, *, reason: str, at: datetime) -> tuple[KeptRevocation, bool]:
        """Keep a revocation and tell of it; return it, and whether it is new.

        What is revoked already stays as it is, with its first reason.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            for row in session.scalars(select(RevocationRow).order_by(RevocationRow.number)):
                kept = _read(row)
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
            facts = _facts(target.revocation(reason, at))
            write_event(session, EventKind.REVOCATION_MADE, subject=str(target), facts=facts, at=at)
            return KeptRevocation(number=row.number, revocation=target.revocation(reason, at)), True

    def learn(self, known: Iterable[tuple[ImageKey, str, Checksum]]) -> None:
        """Keep the content of each version that is revoked by its name: what is built on it outlives it.

        Args:
            known: Images, their versions, and what these hold; of several for one version the first counts.

        Raises:
            DatabaseError: As `all`.
        """
        query = select(RevocationRow).where(RevocationRow.version.is_not(None), RevocationRow.digest.is_(None))
        with self._database.session() as session:
            rows = {(_read(row).revocation.key, Version(row.version or "")): row for row in session.scalars(query)}
            keys = {key for key, _ in rows}
            for key, version, digest in known if rows else ():
                row = rows.get((key, Version(version))) if key in keys else None
                if row is not None and row.digest is None:
                    row.digest = str(digest)

    def take_back(self, target: Target, *, at: datetime) -> tuple[KeptRevocation, ...]:
        """Forget every revocation of ``target`` and tell of each; return them.

        Raises:
            DatabaseError: The database failed.
        """
        taken = []
        with self._database.session() as session:
            for row in session.scalars(select(RevocationRow).order_by(RevocationRow.number)).all():
                kept = _read(row)
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
    of_target = Revoked((target.revocation("", now), *taken), listed, registered)
    draft = Draft(policy=Policy(grace=timedelta(0)), now=now, revoked=Revoked(remaining, listed, registered))
    for each in sorted(registered, key=lambda image: image.cloud_identifier):
        is_free = of_target.why_registered(each) is not None and draft.revoked.why_registered(each) is None
        if each.marker.state is ImageState.REVOKED and is_free:
            draft.change(each, ImageState.WITHDRAWN, "its revocation was taken back", Phase.RETIRE)
    return draft.finish(cloud, registered)


def _read(row: RevocationRow) -> KeptRevocation:
    try:
        key = None
        if row.list_identifier is not None and row.image_identifier is not None:
            key = ImageKey(ListIdentifier(row.list_identifier), ImageIdentifier(row.image_identifier))
        kept = Checksum.parse(row.digest or "") if key is None or row.digest else None
        version = None if row.version is None else Version(row.version).text
        digest, content = (kept, None) if key is None else (None, kept)
        revocation = Revocation(digest=digest, key=key, version=version, reason=row.reason, at=row.at, content=content)
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
