# SPDX-License-Identifier: Apache-2.0
"""The archive: every list that was verified for a subscription, as the bytes that were signed; one of them is current.

A list is what was signed, and the certificate that signed it: however often the same is wrapped anew, it is kept once.
The functions that take a session work in its transaction; `ListArchive` is for those who ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, select

from coppice.clock import FixedClock
from coppice.errors import DatabaseError, InputError, NotFoundError, StateError, TrustError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.checksum import Checksum
from coppice.model.version import Version
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import TrustBasis
from coppice.subscription.rows import damaged, find_row, read_row
from coppice.subscription.source.drivers import judging_shelf
from coppice.subscription.source.protocol import Circumstances
from coppice.subscription.tables import ArchivedListRow, CurrentListRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.database import Database
    from coppice.subscription.model import VerifiedImageList


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedList:
    """A list that was verified here; its bytes are asked for by its number.

    Attributes:
        number: Rises in the order in which lists were verified.
        list_identifier: Its ``dc:identifier``.
        version: Its ``hv:version``.
        created: Its ``dc:date:created``; None where an older database did not keep it.
        expires: Its ``dc:date:expires``.
        payload_checksum: Of the signed content.
        message_checksum: Of the whole message that is kept: of those with this content and signer, the first verified.
        signer: Who signed it; None where an older database did not keep it.
        signer_fingerprint: SHA-256 of the signer's certificate or key; None where there is neither.
        basis: By what it came to be trusted.
        verified_at: When it was verified first.
        is_current: Whether it is the one in force.
    """

    number: int
    list_identifier: str
    version: str
    created: datetime | None
    expires: datetime
    payload_checksum: Checksum
    message_checksum: Checksum
    signer: str | None
    signer_fingerprint: str | None
    basis: TrustBasis
    verified_at: datetime
    is_current: bool


class ListArchive:
    """The verified lists of one site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self, name: str) -> tuple[ArchivedList, ...]:
        """Return the verified lists of a subscription, the newest version first.

        Raises:
            NotFoundError: There is no such subscription.
        """
        with self._database.session() as session:
            find_row(session, name)
            current = current_number(session, name)
            return tuple(_archived(row, current) for row in _newest_first(session, name))

    def message(self, name: str, version: str | None = None) -> tuple[ArchivedList, bytes]:
        """Return a verified list of a subscription and its message as it was signed.

        Args:
            name: Of the subscription.
            version: Which; None: the current one.

        Raises:
            NotFoundError: There is no such subscription, or no such version was verified.
            StateError: The bytes are not what was archived.
        """
        with self._database.session() as session:
            find_row(session, name)
            row = find_archived(session, name, version)
            return _archived(row, current_number(session, name)), intact_message(row)


def keep(session: Session, name: str, verified: VerifiedImageList, message: bytes) -> tuple[ArchivedListRow, bool]:
    """Archive a verified list and return its row, and whether it is new.

    New is another content, or the same one signed with another certificate. Whoever is on the path can wrap what was
    signed as often as he likes (a header before the message, other line ends, other base64): each is as it was signed,
    and none may push a real version out of the archive. The message that was verified first stays, and so does when
    that was: its certificates were judged then, and to read the same again does not renew that. Only when it is damaged
    or would be refused today, and the new one was not, that one takes its place (signed anew with a stronger digest or
    below a renewed authority, say).
    """
    digest = Checksum.of(message).hexdigest
    known = _known(session, name, verified, digest)
    row = known or ArchivedListRow(subscription=name)
    if known is not None and verified.content.validity.expires > known.expires:
        # Only where nobody signs a date: what was gathered anew, and says the same, holds for longer.
        row.message, row.message_sha512 = message, digest
    elif known is None or not _is_good(session, known, verified, digest):
        if known is None or digest != known.message_sha512:
            row.verified_at = verified.verified_at
        row.message, row.message_sha512 = message, digest
    row.list_identifier = verified.content.identifier
    row.version = verified.content.version
    row.created = verified.content.validity.created
    row.expires = verified.content.validity.expires
    row.payload_sha512 = verified.payload_checksum.hexdigest
    row.signer, row.signer_issuer, row.signer_fingerprint = _who(verified)
    row.basis = str(verified.trusted_by.basis)
    session.add(row)
    session.flush()
    return row, known is None


def prune(session: Session, name: str, keep_count: int) -> int:
    """Remove the oldest archived lists beyond ``keep_count``, never the current one; return how many."""
    current = current_number(session, name)
    numbers = session.scalars(
        select(ArchivedListRow.number)
        .where(ArchivedListRow.subscription == name)
        .order_by(ArchivedListRow.number.desc())
    ).all()
    others = [number for number in numbers if number != current]
    gone = others[max(0, keep_count - (0 if current is None else 1)) :]
    if gone:
        session.execute(delete(ArchivedListRow).where(ArchivedListRow.number.in_(gone)))
    return len(gone)


def numbers_since_reset(session: Session, name: str, list_identifier: str, taken_back: str | None) -> list[int]:
    """Return the numbers of a list's archived versions, leaving out the one that was taken back and all before it."""
    rows = session.execute(
        select(ArchivedListRow.number, ArchivedListRow.version)
        .where(ArchivedListRow.subscription == name, ArchivedListRow.list_identifier == list_identifier)
        .order_by(ArchivedListRow.number)
    ).all()
    known = [(number, taken_back is not None and _same_order(version, taken_back)) for number, version in rows]
    end = max((number for number, is_it in known if is_it), default=0)
    return [number for number, _ in known if number > end]


def current_number(session: Session, name: str) -> int | None:
    """Return the number of a subscription's list in force; None: there is none."""
    return session.scalars(select(CurrentListRow.archived).where(CurrentListRow.subscription == name)).first()


def find_archived(session: Session, name: str, version: str | None = None) -> ArchivedListRow:
    """Return the current list's row, or the newest row of ``version`` (as written, or equal in order).

    Raises:
        NotFoundError: There is none.
    """
    if version is None:
        number = current_number(session, name)
        row = None if number is None else session.get(ArchivedListRow, number)
        if row is None:
            raise NotFoundError(
                f"no list was verified yet for the subscription {name!r}",
                resolution=f"`coppice subscription refresh {name}` fetches and verifies it.",
            )
        return row
    rows = _newest_first(session, name)
    exact = [row for row in rows if row.version == version]
    equal = exact or [row for row in rows if _same_order(row.version, version)]
    if not equal:
        known = ", ".join(dict.fromkeys(row.version for row in rows)) or "none"
        raise NotFoundError(
            f"version {version[:80]!r} of the list of {name!r} is not in the archive",
            details=f"there are: {known}",
            resolution=f"`coppice subscription archive {name}` lists them.",
        )
    return equal[0]


def newest_archived(session: Session, name: str, *, but: str | None) -> ArchivedListRow:
    """Return the newest version that was verified for a subscription, leaving out the version ``but``.

    Raises:
        StateError: There is none.
    """
    rows = [row for row in _newest_first(session, name) if but is None or not _same_order(row.version, but)]
    if not rows:
        raise StateError(
            f"the archive of the subscription {name!r} has no version to go on from",
            resolution=f"`coppice subscription refresh {name} --force` fetches and verifies the list.",
        )
    return rows[0]


def intact_message(row: ArchivedListRow) -> bytes:
    """Return an archived message.

    Raises:
        StateError: Its bytes are not those that were archived.
    """
    if Checksum.of(row.message).hexdigest != row.message_sha512:
        raise StateError(
            f"the kept bytes of version {row.version} of the list of {row.subscription!r} are not those that were "
            "verified",
            resolution=f"`coppice subscription refresh {row.subscription} --force` fetches the list anew. Check the "
            "disk that the database is on.",
        )
    return row.message


def _who(verified: VerifiedImageList) -> tuple[str, str | None, str | None]:
    by = verified.trusted_by
    return by.signer, by.issuer, None if by.fingerprint is None else by.fingerprint.hexdigest


def _known(session: Session, name: str, verified: VerifiedImageList, digest: str) -> ArchivedListRow | None:
    """Return the row of a list; an older database did not keep its signer, and knows it by its message only."""
    of_subscription = select(ArchivedListRow).where(ArchivedListRow.subscription == name)
    signer, _, fingerprint = _who(verified)
    of_content = of_subscription.where(
        ArchivedListRow.payload_sha512 == verified.payload_checksum.hexdigest,
        # Where there is no certificate and no key, the signer's name says who vouches.
        ArchivedListRow.signer_fingerprint == fingerprint
        if fingerprint is not None
        else and_(ArchivedListRow.signer_fingerprint.is_(None), ArchivedListRow.signer == signer),
    )
    of_message = of_subscription.where(ArchivedListRow.message_sha512 == digest)
    return session.scalars(of_content).first() or session.scalars(of_message).first()


def _is_good(session: Session, known: ArchivedListRow, verified: VerifiedImageList, digest: str) -> bool:
    """Tell whether the bytes of a list that is known are intact, and would be verified as the new ones were."""
    try:
        message = intact_message(known)
        if digest != known.message_sha512:
            subscription = read_row(find_row(session, known.subscription))
            circumstances = Circumstances(
                last=None,
                now=verified.verified_at,
                limits=DEFAULT_LIMITS,
                terms=DEFAULT_TERMS,
                first_verified_at=known.verified_at,
            )
            source = judging_shelf(FixedClock(verified.verified_at)).open(subscription.source)
            found = source.verify(message, subscription, circumstances).content
            # What nobody signs may be known better by now: the size of a file that was being written then.
            new = verified.content
            return (found.images, found.unreadable) == (new.images, new.unreadable)
    except (StateError, TrustError, InputError):
        return False
    return True


def _newest_first(session: Session, name: str) -> Sequence[ArchivedListRow]:
    rows = session.scalars(select(ArchivedListRow).where(ArchivedListRow.subscription == name)).all()
    try:
        return sorted(rows, key=lambda row: (Version(row.version), row.number), reverse=True)
    except ValueError as problem:
        raise damaged(f"the lists of {name!r}", problem) from problem


def _same_order(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except ValueError:
        return False


def _archived(row: ArchivedListRow, current: int | None) -> ArchivedList:
    try:
        return ArchivedList(
            number=row.number,
            list_identifier=row.list_identifier,
            version=row.version,
            created=row.created,
            expires=row.expires,
            payload_checksum=Checksum("sha512", row.payload_sha512),
            message_checksum=Checksum("sha512", row.message_sha512),
            signer=row.signer,
            signer_fingerprint=row.signer_fingerprint,
            basis=TrustBasis(row.basis) if row.basis else TrustBasis.X509,
            verified_at=row.verified_at,
            is_current=row.number == current,
        )
    except ValueError as problem:
        raise _broken(row, problem) from problem


def _broken(row: ArchivedListRow, problem: Exception) -> DatabaseError:
    return damaged(f"an archived list of {row.subscription!r}", problem)
