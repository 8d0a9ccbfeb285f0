# SPDX-License-Identifier: Apache-2.0
"""What could not be fetched: how often it was tried, so that a bad file is not fetched for ever.

Counted are runs in which a server gave something that was of no use. A run in which no server could be reached, or that
got further than the one before, does not count: the list's publisher has nothing to mend then. A file that is wrong is
given up until its list changes; a server that only failed to give it is asked again a day later, for it may be mended
without a word.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete

from coppice.cache.tables import FailedFetchRow
from coppice.errors import (
    AddressRefusedError,
    ChecksumMismatchError,
    GivenUpError,
    SizeMismatchError,
    TransferError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.events.journal import write_event
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.database import Database
    from coppice.errors import CoppiceError
    from coppice.imagelist.model import ListedImage
    from coppice.model.identifiers import ImageKey

_MAX_MESSAGE = 1000
_ASKED_AGAIN_AFTER = timedelta(days=1)
_WRONG_FILE = frozenset({each.code for each in (ChecksumMismatchError, SizeMismatchError, TransferTooLargeError)})


class FetchAttempts:
    """Remembers which images failed.

    Args:
        database: Where it is written.
        maximum: So many runs try one version of an image before its list must change.
    """

    def __init__(self, database: Database, maximum: int) -> None:
        self._database = database
        self._maximum = maximum
        self._failed: set[str] | None = None

    def check(self, key: ImageKey, listed: ListedImage, list_version: str, now: datetime) -> None:
        """Refuse what failed too often.

        Raises:
            GivenUpError: It did, and its list has not changed since; where the file was not wrong, no day has passed.
            DatabaseError: The database failed.
        """
        name = _name(key)
        if name not in self._known():
            return
        with self._database.session() as session:
            row = session.get(FailedFetchRow, name)
            if row is None or not _is_same(row, listed, list_version) or row.runs < self._maximum:
                return
            is_wrong = row.code in _WRONG_FILE
            if not is_wrong and abs(now - row.at) >= _ASKED_AGAIN_AFTER:
                return
            again = "when its list changes" if is_wrong else "a day after the last time, or when its list changes"
            raise GivenUpError(
                f"image {key} is not fetched any more: {row.runs} runs failed, the last with [{row.code}]",
                details=row.message,
                resolution=f"It is tried again {again}. `coppice cache fetch --retry` tries it now. Tell whoever "
                "publishes the list.",
                context={"image": str(key), "version": listed.version, "runs": row.runs, "code": row.code},
            )

    def failed(
        self,
        key: ImageKey,
        listed: ListedImage,
        list_version: str,
        problem: CoppiceError,
        *,
        got_further: bool,
        facts: Mapping[str, object],
        now: datetime,
    ) -> None:
        """Count a run that failed, and tell of it, in one transaction.

        Raises:
            DatabaseError: The database failed.
        """
        counts = not got_further and _is_publishers(problem)
        with self._database.session() as session:
            row = session.get(FailedFetchRow, _name(key))
            runs = row.runs if row is not None and _is_same(row, listed, list_version) else 0
            if counts:
                runs += 1
                session.merge(
                    FailedFetchRow(
                        image_key=_name(key),
                        list_identifier=key.list_identifier,
                        image_identifier=key.image_identifier,
                        version=listed.version,
                        digest=str(listed.checksum),
                        list_version=list_version,
                        runs=runs,
                        code=problem.code,
                        message=problem.message[:_MAX_MESSAGE],
                        at=now,
                    )
                )
            told = {**facts, "error": problem.as_dict(), "runs": runs, "given_up": runs >= self._maximum}
            write_event(session, EventKind.IMAGE_FETCH_FAILED, subject=str(key), facts=told, at=now)
        if counts:
            self._known().add(_name(key))

    def succeeded(self, key: ImageKey) -> None:
        """Forget what failed before.

        Raises:
            DatabaseError: The database failed.
        """
        if _name(key) in self._known():
            with self._database.session() as session:
                session.execute(delete(FailedFetchRow).where(FailedFetchRow.image_key == _name(key)))
            self._known().discard(_name(key))

    def forget(self) -> None:
        """Have everything tried again.

        Raises:
            DatabaseError: The database failed.
        """
        with self._database.session() as session:
            session.execute(delete(FailedFetchRow))
        self._failed = set()

    def _known(self) -> set[str]:
        # Asked once: a run that has nothing to complain of costs one question.
        if self._failed is None:
            with self._database.session() as session:
                self._failed = {name for (name,) in session.query(FailedFetchRow.image_key)}
        return self._failed


def _name(key: ImageKey) -> str:
    # Identifiers may be any text of any length.
    text = f"{key.list_identifier}\0{key.image_identifier}"
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _is_same(row: FailedFetchRow, listed: ListedImage, list_version: str) -> bool:
    return (row.version, row.digest, row.list_version) == (listed.version, str(listed.checksum), list_version)


def _is_publishers(problem: CoppiceError) -> bool:
    if isinstance(problem, (UnreachableError, AddressRefusedError, GivenUpError)):
        return False
    if isinstance(problem, TransferTooLargeError) and "url" not in problem.context:
        # Nobody was asked: this site's own limit is in the way.
        return False
    return isinstance(problem, (TransferError, ChecksumMismatchError, SizeMismatchError))
