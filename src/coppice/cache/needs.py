# SPDX-License-Identifier: Apache-2.0
"""What of the cache nothing needs, and since when; pruning goes by it.

An object counts as unneeded from the first moment on at which nothing needed it and all that may need it was known.
What was never seen to be unneeded stays, so that a database that was lost, or a list that is not known today, removes
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.cache.tables import UnneededObjectRow
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from coppice.database import Database


class Needs:
    """Remembers since when objects are unneeded.

    Args:
        database: Where it is written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def unneeded(self) -> Mapping[Checksum, datetime]:
        """Return since when each object is unneeded, what was needed least recently first.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            rows = session.scalars(
                select(UnneededObjectRow).order_by(UnneededObjectRow.since, UnneededObjectRow.sha512)
            )
            return {Checksum("sha512", row.sha512): row.since for row in rows}

    def note(
        self, held: Collection[Checksum], needed: Collection[Checksum], *, all_known: bool, now: datetime
    ) -> Mapping[Checksum, datetime]:
        """Note what is needed now; return what is not, as `unneeded` does. Where nothing changed, nothing is written.

        Args:
            held: Every object.
            needed: Those that something needs.
            all_known: Whether all that may need something is known; otherwise nothing becomes unneeded.
            now: This instant.

        Raises:
            DatabaseError: The database failed.
        """
        known = self.unneeded()
        begun = [each for each in held if each not in needed and each not in known] if all_known else []
        ended = [each for each in known if each in needed or each not in held]
        if not begun and not ended:
            return known
        with self._database.session() as session:
            for each in ended:
                session.execute(delete(UnneededObjectRow).where(UnneededObjectRow.sha512 == each.hexdigest))
            for each in begun:
                session.merge(UnneededObjectRow(sha512=each.hexdigest, since=now))
        return self.unneeded()
