# SPDX-License-Identifier: Apache-2.0
"""What each cloud was seen to have, last: for people and metrics. Plans are made from the clouds themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from coppice.cloud.model import RegisteredImage
from coppice.cloud.properties import SITE, from_properties, to_properties
from coppice.cloud.tables import ObservationRow
from coppice.errors import MarkerError
from coppice.events.journal import write_event
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.errors import CoppiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a cloud was seen to have, and whether it answered last.

    Attributes:
        cloud: Name of the target.
        at: When `images` was seen; None: it never answered.
        images: All that it had of this site then.
        tried_at: When it was asked last.
        error_code: Code of the error with which it answered last; None: it answered well.
        error: What that error said.
    """

    cloud: str
    at: datetime | None
    images: tuple[RegisteredImage, ...]
    tried_at: datetime
    error_code: str | None = None
    error: str | None = None


class Observations:
    """The observations in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[Observation, ...]:
        """Return what was seen of each cloud, in the order of their names.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            return tuple(_read(row) for row in session.scalars(select(ObservationRow).order_by(ObservationRow.cloud)))

    def of(self, cloud: str) -> Observation | None:
        """Return what was seen of one cloud; None: it was never asked.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = session.get(ObservationRow, cloud)
            return None if row is None else _read(row)

    def record(self, cloud: str, images: Iterable[RegisteredImage], at: datetime) -> None:
        """Keep what a cloud has; that it answers again is told once.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, cloud, at)
            if row.error_code is not None:
                _tell(session, EventKind.CLOUD_RECOVERED, cloud, {"since": str(row.error_code)}, at)
            row.at, row.images = at, [_as_dict(image) for image in images]
            row.error_code = row.error = None

    def record_failure(self, cloud: str, error: CoppiceError, at: datetime) -> None:
        """Keep that a cloud could not be asked, and what it had before; that it fails is told once, not at each try.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            row = _row(session, cloud, at)
            if row.error_code is None:
                _tell(session, EventKind.CLOUD_FAILED, cloud, {"error": error.as_dict()}, at)
            row.error_code, row.error = error.code, error.message

    def forget(self, known: Sequence[str]) -> None:
        """Forget the clouds that are not among those that are ``known``: they are set up no more.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            for row in session.scalars(select(ObservationRow)):
                if row.cloud not in known:
                    session.delete(row)


def _row(session: Session, cloud: str, at: datetime) -> ObservationRow:
    row = session.get(ObservationRow, cloud)
    if row is None:
        row = ObservationRow(cloud=cloud, at=None, images=[], tried_at=at, error_code=None, error=None)
        session.add(row)
    row.tried_at = at
    return row


def _tell(session: Session, kind: EventKind, cloud: str, facts: Mapping[str, object], at: datetime) -> None:
    write_event(session, kind, subject=cloud, facts={"cloud": cloud, **facts}, at=at)


def _as_dict(image: RegisteredImage) -> dict[str, object]:
    return {
        "cloud_identifier": image.cloud_identifier,
        "name": image.name,
        "ready": image.ready,
        "problem": image.problem,
        "drift": image.drift,
        "marker": to_properties(image.marker),
    }


def _read(row: ObservationRow) -> Observation:
    found = (_image(row.cloud, each) for each in row.images)
    return Observation(
        cloud=row.cloud,
        at=row.at,
        images=tuple(image for image in found if image is not None),
        tried_at=row.tried_at,
        error_code=row.error_code,
        error=row.error,
    )


def _image(cloud: str, kept: Mapping[str, object]) -> RegisteredImage | None:
    """Return an image as it was kept; None: by a version of Coppice that writes otherwise. The next look mends it."""
    properties = kept.get("marker")
    if not isinstance(properties, dict) or not isinstance(properties.get(SITE), str):
        return None
    try:
        marker = from_properties(properties, properties[SITE])
    except MarkerError:
        return None
    if marker is None:
        return None
    problem, drift = kept.get("problem"), kept.get("drift")
    return RegisteredImage(
        cloud=cloud,
        cloud_identifier=str(kept.get("cloud_identifier")),
        name=str(kept.get("name")),
        marker=marker,
        ready=bool(kept.get("ready")),
        problem=None if problem is None else str(problem),
        drift=None if drift is None else str(drift),
    )
