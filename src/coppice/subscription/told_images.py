# SPDX-License-Identifier: Apache-2.0
"""Tell of images that a list names for the first time, or in another version: each wanted one, once a subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from coppice.events.journal import write_events
from coppice.events.model import EventKind
from coppice.events.payload import image_facts
from coppice.subscription.selection import Selector, Wish
from coppice.subscription.tables import ToldImageRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from coppice.imagelist.model import ListedImage
    from coppice.subscription.model import Subscription, VerifiedImageList

_MARK = ""
_CHUNK = 500


def tell_images(session: Session, subscription: Subscription, verified: VerifiedImageList, *, had_list: bool) -> None:
    """Write an event for each wanted image that is new in the list, or has another version, and note it.

    Args:
        session: The transaction in which the list comes into force.
        subscription: Whose list it is.
        verified: The list.
        had_list: Whether one was in force before. Where nothing was noted of that (by an older Coppice), its successor
            is noted without a word: not everything in it is new.
    """
    name, content = subscription.name, verified.content
    rows = session.execute(
        select(ToldImageRow.image_identifier, ToldImageRow.version).where(ToldImageRow.subscription == name)
    )
    told = {row.image_identifier: row.version for row in rows}
    selector = Selector(subscription.selection)
    wanted = [image for image in content.images if selector.wish(image, content.vo) is Wish.WANTED]
    if _MARK in told or not had_list:
        new = (image for image in wanted if told.get(image.identifier) != image.version)
        events = (_event(subscription, verified, image, told.get(image.identifier)) for image in new)
        write_events(session, events, at=verified.verified_at)
    _note(
        session,
        name,
        told,
        {**{str(image.identifier): image.version for image in wanted}, _MARK: ""},
        {
            *(str(image.identifier) for image in content.images),
            *(str(entry.identifier) for entry in content.unreadable),
        },
    )


def _event(
    subscription: Subscription, verified: VerifiedImageList, image: ListedImage, before: str | None
) -> tuple[EventKind, str, Mapping[str, object]]:
    facts = image_facts(subscription.name, verified.content, image)
    if before is not None:
        facts["previous_version"] = before
    kind = EventKind.IMAGE_NEW if before is None else EventKind.IMAGE_CHANGED
    return kind, f"{verified.content.identifier}/{image.identifier}", facts


def _note(session: Session, name: str, told: dict[str, str], now: dict[str, str], named: set[str]) -> None:
    mine = ToldImageRow.subscription == name
    # What is named still, and not wanted or not readable just now, was told of all the same.
    gone = sorted(set(told) - named - {_MARK})
    for start in range(0, len(gone), _CHUNK):
        chunk = gone[start : start + _CHUNK]
        session.execute(delete(ToldImageRow).where(mine, ToldImageRow.image_identifier.in_(chunk)))
    new = [each for each in now if each not in told]
    if new:
        values = [{"subscription": name, "image_identifier": each, "version": now[each]} for each in new]
        session.execute(insert(ToldImageRow), values)
    for each in sorted(now):
        if each in told and told[each] != now[each]:
            changed = update(ToldImageRow).where(mine, ToldImageRow.image_identifier == each)
            session.execute(changed.values(version=now[each]))
