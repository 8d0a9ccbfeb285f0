# SPDX-License-Identifier: Apache-2.0
"""What of a verified list ends soon or has ended, told once each; and image identifiers that two lists use.

All of it works without reading the list again: an unchanged list costs no more than its row.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import aliased

from coppice.events.journal import write_event
from coppice.events.model import EventKind
from coppice.subscription.model import ListWarning, WarningKind
from coppice.subscription.tables import ListedImageRow, SubscriptionRow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from coppice.imagelist.model import ImageList
    from coppice.subscription.tables import ArchivedListRow, CurrentListRow

STALE_SHARE = 0.75
"""The share of a list's life after which it is stale, if no newer version came."""
_SHOWN_IDENTIFIERS = 5
_CHUNK = 500
_OF_LIST = frozenset({WarningKind.LIST_EXPIRING, WarningKind.LIST_STALE})
_TOLD_KINDS = frozenset({WarningKind.IMAGE_EXPIRING, WarningKind.CERTIFICATE_EXPIRING, WarningKind.REVOCATION_EXPIRING})


def is_stale(created: datetime | None, expires: datetime, now: datetime) -> bool:
    """Tell whether three quarters of a list's life are over."""
    return created is not None and now > created + (expires - created) * STALE_SHARE


def date_warnings(
    created: datetime | None, expires: datetime, now: datetime, warn_list_days: float
) -> tuple[ListWarning, ...]:
    """Return what is to be said about a list's own dates, without reading it."""
    said = []
    if is_stale(created, expires, now):
        said.append(
            ListWarning(
                kind=WarningKind.LIST_STALE,
                text="the list is stale: three quarters of its life are over, and no newer version has come",
            )
        )
    if now < expires <= now + timedelta(days=warn_list_days):
        said.append(
            ListWarning(kind=WarningKind.LIST_EXPIRING, text=f"the list expires on {expires:%Y-%m-%d %H:%M UTC}")
        )
    return tuple(said)


def keep_warnings(current: CurrentListRow, warnings: Iterable[ListWarning]) -> None:
    """Keep what was said of the current list; what its dates say is found anew whenever it is asked for."""
    current.warnings = [[str(each.kind), each.text] for each in warnings if each.kind not in _OF_LIST]


def kept_warnings(current: CurrentListRow) -> tuple[ListWarning, ...]:
    """Return what was said of the current list when it was judged last."""
    known = {str(kind) for kind in WarningKind}
    return tuple(ListWarning(kind=WarningKind(kind), text=text) for kind, text in current.warnings if kind in known)


def tell_dates(
    session: Session, current: CurrentListRow, archived: ArchivedListRow, *, now: datetime, warn_list_days: float
) -> None:
    """Write an event for all that ends soon or has ended and was not told yet."""
    due: dict[str, tuple[EventKind, str, str]] = {}
    ends = f"{archived.expires:%Y-%m-%dT%H:%M:%SZ}"
    if archived.expires <= now:
        due[f"expired {ends}"] = (EventKind.LIST_EXPIRED, "list-expired", f"the list expired on {ends}")
    else:
        for each in date_warnings(archived.created, archived.expires, now, warn_list_days):
            due[f"{each.kind} {ends}"] = (EventKind.LIST_EXPIRING, str(each.kind), each.text)
    for each in kept_warnings(current):
        if each.kind in _TOLD_KINDS:
            due[_key(each)] = (EventKind.LIST_EXPIRING, str(each.kind), each.text)
    for key, (kind, what, text) in due.items():
        if key not in current.told:
            facts = {
                "list": archived.list_identifier,
                "version": archived.version,
                "expires": ends,
                "what": what,
                "text": text,
            }
            write_event(session, kind, subject=current.subscription, facts=facts, at=now)
    if sorted(due) != sorted(current.told):
        # What is not due any more is forgotten, so that it is told again when it comes back.
        current.told = sorted(due)


def note_images(session: Session, content: ImageList) -> None:
    """Note which image identifiers a list uses; only what changed is written."""
    known = set(
        session.scalars(
            select(ListedImageRow.image_identifier).where(ListedImageRow.list_identifier == content.identifier)
        )
    )
    now = {*(each.identifier for each in content.images), *(each.identifier for each in content.unreadable)}
    gone, new = sorted(known - now), sorted(now - known)
    for start in range(0, len(gone), _CHUNK):
        session.execute(
            delete(ListedImageRow).where(
                ListedImageRow.list_identifier == content.identifier,
                ListedImageRow.image_identifier.in_(gone[start : start + _CHUNK]),
            )
        )
    if new:
        session.execute(
            insert(ListedImageRow),
            [{"list_identifier": content.identifier, "image_identifier": each} for each in new],
        )


def forget_images(session: Session, list_identifier: str) -> None:
    """Forget which image identifiers a list uses: nobody follows it any more."""
    session.execute(delete(ListedImageRow).where(ListedImageRow.list_identifier == list_identifier))


def shared_identifiers(session: Session, list_identifier: str) -> tuple[ListWarning, ...]:
    """Return a warning for each other followed list that uses image identifiers of this one."""
    mine, theirs = aliased(ListedImageRow), aliased(ListedImageRow)
    found = session.execute(
        select(theirs.list_identifier, theirs.image_identifier)
        .join(mine, mine.image_identifier == theirs.image_identifier)
        .where(mine.list_identifier == list_identifier, theirs.list_identifier != list_identifier)
        .order_by(theirs.list_identifier, theirs.image_identifier)
    )
    by_list: dict[str, list[str]] = {}
    for other, image in found:
        by_list.setdefault(other, []).append(image)
    said = []
    for other, images in by_list.items():
        names = session.scalars(
            select(SubscriptionRow.name).where(SubscriptionRow.list_identifier == other).order_by(SubscriptionRow.name)
        ).all()
        shown = ", ".join(images[:_SHOWN_IDENTIFIERS])
        more = f" and {len(images) - _SHOWN_IDENTIFIERS} more" if len(images) > _SHOWN_IDENTIFIERS else ""
        said.append(
            ListWarning(
                kind=WarningKind.SHARED_IDENTIFIER,
                text=f"image identifiers of this list {list_identifier} are used by the list {other} "
                f"(subscription {', '.join(names) or 'none'}), too: {shown}{more}; they are different images here",
            )
        )
    return tuple(said)


def _key(warning: ListWarning) -> str:
    return f"{warning.kind} {hashlib.sha256(warning.text.encode('utf-8', errors='replace')).hexdigest()[:16]}"
