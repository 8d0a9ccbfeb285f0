# SPDX-License-Identifier: Apache-2.0
"""What is handed out to hooks: each step is in the database before it is seen, with the event that tells of it.

A kill between two steps leaves a state that the next run ends: nothing that was told of stays half-told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.cache.tables import HandedOutImageRow
from coppice.errors import NotFoundError
from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database


class HandState(StrEnum):
    """States of an image that is handed out."""

    COMING = "coming"
    """It was told that the image comes; its file may be there or not."""
    HERE = "here"
    """It was told that it is here, and it is."""
    LEAVING = "leaving"
    """It was told that it leaves; its file may be there still or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedImage:
    """An image that is handed out.

    Attributes:
        number: Rises as images come; 0 before it is written.
        key: Which image of which list.
        version: Its version.
        digest: Of the published file, as its list has it.
        checksum: sha512 of the published file.
        file_name: Under which it is handed out.
        state: How far it came.
        expires: When its endorsement ends, as it was known last.
        since: Since when it is in that state.
        facts: What was told when it came; the same is told when it leaves.
        given: State of its file, as `coppice.cache.handout` says it; empty: not handed out yet.
    """

    number: int
    key: ImageKey
    version: str
    digest: Checksum
    checksum: Checksum
    file_name: str
    state: HandState
    expires: datetime
    since: datetime
    facts: Mapping[str, object]
    given: tuple[int, ...] = ()


class HandedOut:
    """Remembers what is handed out.

    Args:
        database: Where it is written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[HandedImage, ...]:
        """Return what is handed out, in the order in which it came.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            return tuple(
                _read(row) for row in session.scalars(select(HandedOutImageRow).order_by(HandedOutImageRow.number))
            )

    def all_of(self, key: ImageKey) -> tuple[HandedImage, ...]:
        """Return what is handed out of an image: more than one version only while one leaves.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            rows = select(HandedOutImageRow).where(
                HandedOutImageRow.list_identifier == key.list_identifier,
                HandedOutImageRow.image_identifier == key.image_identifier,
            )
            return tuple(_read(row) for row in session.scalars(rows.order_by(HandedOutImageRow.number)))

    def comes(self, image: HandedImage, now: datetime) -> HandedImage:
        """Write that an image comes, and tell so.

        Raises:
            DatabaseError: The database failed, or another image has that file name.
        """
        with self._database.session() as session:
            row = HandedOutImageRow(
                list_identifier=image.key.list_identifier,
                image_identifier=image.key.image_identifier,
                version=image.version,
                digest=str(image.digest),
                sha512=image.checksum.hexdigest,
                file_name=image.file_name,
                state=str(HandState.COMING),
                expires=image.expires,
                since=now,
                facts=dict(image.facts),
                given=[],
            )
            session.add(row)
            _tell(session, EventKind.IMAGE_CACHING, image, image.facts, now)
            session.flush()
            return replace(image, number=row.number, state=HandState.COMING, since=now)

    def is_here(self, image: HandedImage, now: datetime, *, given: tuple[int, ...] = (), **more: object) -> HandedImage:
        """Write that an image is here, and tell so unless that was told.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, image)
            row.given = list(given)
            if row.state == HandState.HERE:
                return _read(row)
            row.state, row.since = str(HandState.HERE), now
            _tell(session, EventKind.IMAGE_CACHED, image, {**image.facts, **more}, now)
            return _read(row)

    def leaves(self, image: HandedImage, now: datetime, **more: object) -> HandedImage:
        """Write that an image leaves, and tell so.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, image)
            row.state, row.since = str(HandState.LEAVING), now
            # A run that goes on after a kill tells the same.
            row.facts = {**image.facts, **more}
            _tell(session, EventKind.IMAGE_UNCACHING, image, {**image.facts, **more}, now)
            return _read(row)

    def is_gone(self, image: HandedImage, now: datetime, **more: object) -> None:
        """Write that an image is handed out no more, and tell so.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            session.delete(_row(session, image))
            _tell(session, EventKind.IMAGE_UNCACHED, image, {**image.facts, **more}, now)

    def confirm(self, expiries: Mapping[int, datetime]) -> None:
        """Note until when images are endorsed, by their numbers, as their lists say today; nothing is told.

        Raises:
            DatabaseError: The database failed.
        """
        if not expiries:
            return
        with self._database.session() as session:
            for number, expires in expiries.items():
                row = session.get(HandedOutImageRow, number)
                if row is not None:
                    row.expires = expires


def _row(session: Session, image: HandedImage) -> HandedOutImageRow:
    row = session.get(HandedOutImageRow, image.number)
    if row is None:
        raise NotFoundError(
            f"image {image.key} version {image.version} is not handed out any more",
            resolution="Another run went on with it. Run again.",
        )
    return row


def _tell(session: Session, kind: EventKind, image: HandedImage, facts: Mapping[str, object], now: datetime) -> None:
    write_event(session, kind, subject=str(image.key), facts=facts, at=now)


def _read(row: HandedOutImageRow) -> HandedImage:
    return HandedImage(
        number=row.number,
        key=ImageKey(ListIdentifier(row.list_identifier), ImageIdentifier(row.image_identifier)),
        version=row.version,
        digest=Checksum.parse(row.digest),
        checksum=Checksum("sha512", row.sha512),
        file_name=row.file_name,
        state=HandState(row.state),
        expires=row.expires,
        since=row.since,
        facts=row.facts,
        given=tuple(row.given),
    )
