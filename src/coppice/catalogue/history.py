# SPDX-License-Identifier: Apache-2.0
"""The publication history: every version of a list that was signed, its bytes, and whether it went out.

A version is written down when it is signed, before it goes out. A run that is killed in between leaves it ``signed``:
the next publication takes the next version, and no version ever has two contents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import defer, load_only

from coppice.catalogue.model import PublicationState, PublishedImage, RecordedPublication
from coppice.catalogue.tables import PublicationRow, SelectionRow
from coppice.clock import to_rfc3339
from coppice.errors import DatabaseError, NotFoundError, StateError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.catalogue.model import Selection
    from coppice.database import Database

_OUT = (str(PublicationState.PUBLISHED), str(PublicationState.IMPORTED))


class PublicationHistory:
    """What was published, and when."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_signed(
        self,
        selection: Selection,
        *,
        version: str,
        message: bytes,
        payload: Checksum,
        signer: str,
        endorser: str,
        uri: str,
        images: Sequence[PublishedImage],
        at: datetime,
        expires: datetime,
    ) -> int:
        """Write down that a version was signed and is about to go out; return the entry's number.

        Raises:
            NotFoundError: The list is not there any more.
            StateError: Another run signed a version meanwhile.
        """
        with self._database.session() as session:
            row = session.get(SelectionRow, selection.name)
            if row is None or row.identifier != selection.identifier:
                raise NotFoundError(f"the image list {selection.name!r} was deleted meanwhile")
            if row.last_version != selection.last_version:
                raise StateError(
                    f"version {row.last_version} of the image list {selection.name} was signed meanwhile",
                    resolution="Another run publishes it. Publish again to have a version that comes after.",
                )
            entry = PublicationRow(
                selection=selection.name,
                list_identifier=selection.identifier,
                version=version,
                state=str(PublicationState.SIGNED),
                payload_sha512=payload.hexdigest,
                signer=signer,
                endorser=endorser,
                uri=uri,
                images=[_plain(image) for image in images],
                message=message,
                signed_at=at,
                expires=expires,
                published_at=None,
            )
            row.last_version = version
            session.add(entry)
            session.flush()
            return entry.number

    def record_published(self, number: int, *, at: datetime) -> RecordedPublication:
        """Write down that a signed version is where subscribers fetch it."""
        with self._database.session() as session:
            row = session.get_one(PublicationRow, number)
            if row.state == str(PublicationState.SIGNED):
                row.state, row.published_at = str(PublicationState.PUBLISHED), at
                facts = {
                    "list": row.list_identifier,
                    "version": row.version,
                    "payload": f"sha512:{row.payload_sha512}",
                    "signer": row.signer,
                    "images": [f"{image['appliance']} {image['version']}" for image in row.images],
                }
                write_event(session, EventKind.LIST_PUBLISHED, subject=row.selection, facts=facts, at=at)
            return _entry(row)

    def entries(self, name: str) -> tuple[RecordedPublication, ...]:
        """Return the history of the list ``name``, newest first; that of a deleted list too.

        Raises:
            NotFoundError: There is neither such a list nor a history of it.
        """
        with self._database.session() as session:
            row = session.get(SelectionRow, name)
            chosen = PublicationRow.selection == name
            if row is not None:
                chosen = PublicationRow.list_identifier == row.identifier
            rows = session.scalars(
                select(PublicationRow)
                .where(chosen)
                .order_by(PublicationRow.number.desc())
                .options(defer(PublicationRow.message))
            ).all()
            if row is None and not rows:
                raise NotFoundError(f"there is no image list {name!r}, and none was published from here")
            return tuple(_entry(each) for each in rows)

    def message(self, number: int) -> bytes:
        """Return the signed bytes of an entry."""
        with self._database.session() as session:
            return session.get_one(PublicationRow, number).message

    def unfinished(self, identifier: ListIdentifier) -> tuple[tuple[int, bytes], ...]:
        """Return number and bytes of every version of a list of which it is not known whether it went out."""
        with self._database.session() as session:
            rows = session.scalars(
                select(PublicationRow).where(
                    PublicationRow.list_identifier == identifier,
                    PublicationRow.state == str(PublicationState.SIGNED),
                )
            )
            return tuple((row.number, row.message) for row in rows)

    def last_published(self, identifier: ListIdentifier) -> RecordedPublication | None:
        """Return the newest version of a list that went out; None when none did."""
        with self._database.session() as session:
            return _last_out(session, identifier)


def record_imported(session: Session, row: PublicationRow) -> None:
    """Write down a version that somebody else published, and that was verified here.

    Raises:
        StateError: The version is known with other content.
    """
    known = session.scalar(
        select(PublicationRow).where(
            PublicationRow.list_identifier == row.list_identifier, PublicationRow.version == row.version
        )
    )
    if known is None:
        session.add(row)
    elif known.payload_sha512 != row.payload_sha512:
        raise StateError(
            f"version {row.version} of the list {row.list_identifier} is known here with other content",
            details=f"known: sha512 {known.payload_sha512}, {to_rfc3339(known.signed_at)}\n"
            f"new:   sha512 {row.payload_sha512}",
            resolution="Two places have published the same version: find out which one is true.",
        )


def last_version_of(session: Session, identifier: str) -> str | None:
    """Return the highest version of a list that was ever signed or imported here."""
    known = session.scalars(select(PublicationRow.version).where(PublicationRow.list_identifier == identifier))
    return max(known, key=Version, default=None)


def published_now(session: Session, identifier: str, now: datetime) -> RecordedPublication | None:
    """Return the version that subscribers find at ``now``, or may find, and that has not expired; None: none.

    A version that was signed, and of which it is not known whether it went out, may be found.
    """
    found = [entry for entry in _maybe_out(session, ListIdentifier(identifier)) if entry.expires > now]
    return max(found, key=lambda entry: Version(entry.version), default=None)


def lists_naming(session: Session, identifier: str, version: str | None, now: datetime) -> tuple[str, ...]:
    """Return which lists that are, or may be, published and have not expired name an image (in that version)."""
    identifiers = session.scalars(select(PublicationRow.list_identifier).where(PublicationRow.expires > now).distinct())
    return tuple(
        sorted(
            f"{entry.selection} version {entry.version}"
            for each in identifiers.all()
            for entry in _maybe_out(session, ListIdentifier(each))
            if entry.expires > now
            and any(image.identifier == identifier and version in {None, image.version} for image in entry.images)
        )
    )


def _maybe_out(session: Session, identifier: ListIdentifier) -> list[RecordedPublication]:
    last = _last_out(session, identifier)
    unknown = session.scalars(
        select(PublicationRow)
        .where(PublicationRow.list_identifier == identifier, PublicationRow.state == str(PublicationState.SIGNED))
        .options(defer(PublicationRow.message))
    )
    after = [_entry(row) for row in unknown if last is None or Version(row.version) > Version(last.version)]
    return [*after, *([last] if last is not None else [])]


def _last_out(session: Session, identifier: ListIdentifier) -> RecordedPublication | None:
    candidates = session.scalars(
        select(PublicationRow)
        .where(PublicationRow.list_identifier == identifier, PublicationRow.state.in_(_OUT))
        .options(load_only(PublicationRow.version))
    ).all()
    newest = max(candidates, key=lambda row: Version(row.version), default=None)
    return None if newest is None else _entry(newest)


def _plain(image: PublishedImage) -> dict[str, object]:
    return {
        "identifier": image.identifier,
        "appliance": image.appliance,
        "version": image.version,
        "sha512": image.checksum,
        "expires": None if image.expires is None else to_rfc3339(image.expires),
    }


def _image(plain: dict[str, object]) -> PublishedImage:
    from datetime import datetime

    expires = plain["expires"]
    return PublishedImage(
        identifier=ImageIdentifier(str(plain["identifier"])),
        appliance=str(plain["appliance"]),
        version=str(plain["version"]),
        checksum=str(plain["sha512"]),
        expires=None if expires is None else datetime.fromisoformat(str(expires)),
    )


def _entry(row: PublicationRow) -> RecordedPublication:
    try:
        return RecordedPublication(
            number=row.number,
            selection=row.selection,
            list_identifier=ListIdentifier(row.list_identifier),
            version=row.version,
            state=PublicationState(row.state),
            payload=Checksum("sha512", row.payload_sha512),
            signer=row.signer,
            endorser=row.endorser,
            uri=row.uri,
            images=tuple(_image(plain) for plain in row.images),
            signed_at=row.signed_at,
            expires=row.expires,
            published_at=row.published_at,
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise DatabaseError(
            f"the database holds something that cannot be about version {row.version} of {row.selection}: {problem}",
            resolution="Restore the database from a backup.",
        ) from problem
