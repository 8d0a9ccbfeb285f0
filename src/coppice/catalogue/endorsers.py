# SPDX-License-Identifier: Apache-2.0
"""The endorsers who can sign here: where certificate and key lie, never the key or its passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.catalogue.model import EndorserIdentity, KeyKind
from coppice.catalogue.tables import BoundEndorserRow, EndorserRow, SelectionRow
from coppice.errors import DatabaseError, ExistsError, InputError, NotFoundError
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import is_name

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from coppice.database import Database


class Endorsers:
    """The endorsers of one publisher."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, identity: EndorserIdentity) -> None:
        """Remember an endorser who can sign here; the same name again replaces where certificate and key lie.

        Raises:
            InputError: The name cannot be one.
        """
        require_name(identity.name, "an endorser")
        with self._database.session() as session:
            session.merge(
                EndorserRow(
                    name=identity.name,
                    kind=str(identity.kind),
                    certificate=str(identity.certificate or ""),
                    key=str(identity.key),
                    passphrase_file=str(identity.passphrase_file) if identity.passphrase_file else None,
                    passphrase_variable=identity.passphrase_variable,
                    ask_passphrase=identity.ask_passphrase,
                    digest=identity.digest,
                    creator=identity.creator,
                    email=identity.email,
                    subject=_pairs(identity.subject),
                    issuer=_pairs(identity.issuer),
                )
            )

    def get(self, name: str) -> EndorserIdentity:
        """Return the endorser ``name``.

        Raises:
            NotFoundError: There is no such endorser.
        """
        with self._database.session() as session:
            return _identity(endorser_row(session, name))

    def all(self) -> tuple[EndorserIdentity, ...]:
        """Return every endorser, by name."""
        with self._database.session() as session:
            return tuple(_identity(row) for row in session.scalars(select(EndorserRow).order_by(EndorserRow.name)))

    def lists_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the image lists that the endorser ``name`` vouches for.

        Raises:
            NotFoundError: There is no such endorser.
        """
        with self._database.session() as session:
            endorser_row(session, name)
            return _lists(session, name)

    def forget(self, name: str) -> None:
        """Forget an endorser; certificate and key stay where they are.

        Raises:
            NotFoundError: There is no such endorser.
            ExistsError: An image list still names it.
        """
        with self._database.session() as session:
            endorser_row(session, name)
            lists = _lists(session, name)
            if lists:
                raise ExistsError(
                    f"the endorser {name!r} still vouches for: {', '.join(lists)}",
                    resolution="Give these lists another endorser first, and unbind this one from them.",
                )
            session.execute(delete(EndorserRow).where(EndorserRow.name == name))


def require_name(name: str, what: str) -> None:
    """Refuse a name that cannot be one.

    Raises:
        InputError: It cannot.
    """
    if not is_name(name):
        raise InputError(
            f"{name[:80]!r} cannot name {what}",
            resolution="Use 1 to 64 characters out of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends.",
        )


def endorser_row(session: Session, name: str) -> EndorserRow:
    """Return the row of the endorser ``name``.

    Raises:
        NotFoundError: There is no such endorser.
    """
    row = session.get(EndorserRow, name)
    if row is None:
        known = ", ".join(session.scalars(select(EndorserRow.name).order_by(EndorserRow.name))) or "none yet"
        raise NotFoundError(
            f"there is no endorser {name!r}",
            details=f"there are: {known}",
            resolution="`coppice endorser add` makes one known, with its certificate and key.",
        )
    return row


def _lists(session: Session, name: str) -> tuple[str, ...]:
    bound = session.scalars(select(BoundEndorserRow.selection).where(BoundEndorserRow.endorser == name))
    return tuple(sorted({*bound, *session.scalars(select(SelectionRow.name).where(SelectionRow.endorser == name))}))


def _pairs(name: DistinguishedName | None) -> list[list[str]] | None:
    return None if name is None else [list(pair) for pair in name.attributes]


def _name(pairs: list[list[str]] | None) -> DistinguishedName | None:
    return None if pairs is None else DistinguishedName.of(*((kind, value) for kind, value in pairs))


def _identity(row: EndorserRow) -> EndorserIdentity:
    try:
        return _read_identity(row)
    except (ValueError, TypeError, AttributeError) as problem:
        raise DatabaseError(
            f"the database holds something that cannot be about the endorser {row.name!r}: {problem}",
            resolution="Restore the database from a backup, or add the endorser again under the same name.",
        ) from problem


def _read_identity(row: EndorserRow) -> EndorserIdentity:
    kind = KeyKind(row.kind)
    return EndorserIdentity(
        name=row.name,
        kind=kind,
        certificate=Path(row.certificate) if row.certificate else None,
        key=row.key if kind is KeyKind.PKCS11 else Path(row.key),
        passphrase_file=Path(row.passphrase_file) if row.passphrase_file else None,
        passphrase_variable=row.passphrase_variable,
        ask_passphrase=row.ask_passphrase,
        digest=row.digest,
        creator=row.creator,
        email=row.email,
        subject=_name(row.subject),
        issuer=_name(row.issuer),
    )
