# SPDX-License-Identifier: Apache-2.0
"""Removing image files that no published list names any more: late, and never on a guess.

An image is named when any string of any published list at the place ends in its name, so a list that gives the place
another host name counts too. While one list or note cannot be read or understood, nothing is removed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coppice.errors import CoppiceError, DocumentError, TrustError
from coppice.formats.cms import open_message
from coppice.formats.limits import ListLimits
from coppice.formats.strict_json import read_json
from coppice.imagelist.ledger import (
    CLAIM,
    CLAIM_AGE,
    INTENT,
    INTENT_AGE,
    current_notes,
    end_note,
    known_files,
    read_marks,
    write_intent,
    write_marks,
)
from coppice.imagelist.place import SMALL_LIMIT_BYTES, Kind

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.imagelist.place import Place
    from coppice.monitor import Monitor

_DEPTH = 64
_LIMITS = ListLimits(size_bytes=SMALL_LIMIT_BYTES)


class _Unclear(Exception):  # noqa: N818 - no error: a reason to leave everything as it is
    """Why it cannot be said what the lists at a place name."""


def note_unnamed(place: Place, *, previous: bytes | None, current: bytes, now: datetime, monitor: Monitor) -> None:
    """Bring the marks at the place up to date after a list was replaced.

    Args:
        place: Where.
        previous: The list as it was before; what it named was named until now.
        current: The list as it is now; some places show what is new in their listings only after a while.
        now: This instant.
        monitor: Told when it cannot be said what is named.
    """
    try:
        fresh = _named_by(place, previous) if previous is not None else set()
        _marks(place, _needed(place, now) | _named_by(place, current), fresh, now)
    except (_Unclear, DocumentError) as problem:
        monitor.message(f"{problem}; images that no list names any more stay at {place.label} until that is mended")


def retire(place: Place, *, unnamed_since: datetime, now: datetime, monitor: Monitor) -> tuple[str, ...]:
    """Remove the images that no list at ``place`` has named since ``unnamed_since``; return their names."""
    try:
        marks = _marks(place, _needed(place, now), set(), now)
        due = {name for name, since in marks.items() if since <= unnamed_since}
        return _remove(place, due, now, monitor) if due else ()
    except (_Unclear, DocumentError) as problem:
        monitor.message(f"{problem}; no image is removed from {place.label} until that is mended")
        return ()


def _remove(place: Place, due: set[str], now: datetime, monitor: Monitor) -> tuple[str, ...]:
    removed: list[str] = []
    began = time.monotonic()
    intent = write_intent(place, due, now)
    try:
        # Read anew, after the intent was written: a list that is published from now on sees it.
        doomed = sorted(due - _needed(place, now))
        with monitor.task("remove images that no list names", total=len(doomed)) as task:
            for name in doomed:
                if time.monotonic() - began > INTENT_AGE.total_seconds() / 2:
                    # Others take a removal for killed at twice this age. The next one goes on.
                    break
                place.delete(Kind.IMAGE, name)
                removed.append(name)
                task.advance(1)
    finally:
        end_note(place, intent)
    marks = read_marks(place)
    write_marks(place, {name: since for name, since in marks.items() if name not in removed})
    return tuple(removed)


def _marks(place: Place, needed: set[str], fresh: set[str], now: datetime) -> dict[str, datetime]:
    """Bring the marks up to date and return them; ``fresh`` names were named until now."""
    notes = place.names(Kind.NOTE)
    old = read_marks(place)
    known = known_files(place, notes)
    there = set(place.names(Kind.IMAGE)) & known
    marks = {name: now if name in fresh else old.get(name, now) for name in there - needed}
    if marks != old:
        write_marks(place, marks)
    for prefix, age in ((CLAIM, CLAIM_AGE), (INTENT, INTENT_AGE)):
        for note, names, is_current in current_notes(place, prefix, age, now, notes=notes):
            if names and not is_current:
                end_note(place, note)
    return marks


def _needed(place: Place, now: datetime) -> set[str]:
    """Return the names of images that lists name, or that lists which are being published will name.

    Claims are read first: a claim ends when its list is there, so between the two no image is overlooked.
    """
    claims = current_notes(place, CLAIM, CLAIM_AGE, now)
    claimed = {name for _, names, is_current in claims if is_current for name in names}
    return claimed | _named(place)


def _named(place: Place) -> set[str]:
    """Return the names of images that the published lists name.

    Raises:
        _Unclear: A list cannot be read.
    """
    named: set[str] = set()
    for list_name in place.names(Kind.LIST):
        try:
            message = place.read(Kind.LIST, list_name)
        except CoppiceError as problem:
            raise _Unclear(f"the list {list_name} at {place.label} cannot be read ({problem.message})") from problem
        if message is None:
            # It was listed a moment ago. Whether it ended or the server errs, nobody knows.
            raise _Unclear(f"the list {list_name} at {place.label} was there a moment ago")
        try:
            named |= _named_by(place, message)
        except _Unclear as problem:
            raise _Unclear(f"the list {list_name} at {place.label} cannot be understood ({problem})") from problem
    return named


def _named_by(place: Place, message: bytes) -> set[str]:
    try:
        content = open_message(message, limits=_LIMITS).payload
        document = read_json(content, what="list", max_bytes=SMALL_LIMIT_BYTES, max_depth=_DEPTH)
    except (TrustError, DocumentError) as problem:
        raise _Unclear(problem.message) from problem
    named: set[str] = set()
    pending: list[object] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str):
            named.update(place.meant_by(value))
    return named
