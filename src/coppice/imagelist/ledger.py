# SPDX-License-Identifier: Apache-2.0
"""What publishers remember at a place, as notes of JSON beside the lists.

- A **ledger** for each list: which image files Coppice put there for it, and what they were when they were verified.
  Only what a ledger knows is ever removed: other files at the place are somebody else's.
- A **claim** for each list that is being published: images that a list which is not there yet will name.
- **Marks**: since when no published list has named an image.
- An **intent** for each removal that is going on.

Publishing writes its claim before it reads the intents; removing writes its intent before it reads the claims. So at
least one of two that run at the same time sees the other, whatever the order, and no lock is needed.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from coppice.errors import DocumentError, PublicationError
from coppice.formats.strict_json import read_json
from coppice.imagelist.place import SMALL_LIMIT_BYTES, Facts, Kind
from coppice.imagelist.upload import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from coppice.imagelist.place import Place

LEDGER = "ledger-"
CLAIM = "claim-"
INTENT = "removal-"
MARKS = "unnamed.json"
CLAIM_AGE = timedelta(days=1)
"""A claim that was not renewed for so long is that of a run which was killed."""
INTENT_AGE = timedelta(hours=1)
"""A removal that takes longer than this was killed."""
CLAIM_RENEWAL = timedelta(hours=1)
_SUFFIX = ".json"
_NO_REMOVAL = frozenset({400, 403, 405})
_LONG_AGO = "1970-01-01T00:00:00+00:00"
_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """An image that was verified at the place.

    Attributes:
        facts: What its bytes were.
        stamp: What the place said of it then.
    """

    facts: Facts
    stamp: str | None


@dataclass(slots=True)
class Ledger:
    """The images that were put at a place for one list.

    Attributes:
        list_name: The list.
        files: Image name → what was verified; None where that did not happen yet.
    """

    list_name: str
    files: dict[str, Verified | None] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """Name of the note that keeps it."""
        return f"{LEDGER}{self.list_name}{_SUFFIX}"

    def write(self, place: Place) -> None:
        """Keep it at the place."""
        entries = {name: _entry(known) for name, known in sorted(self.files.items())}
        place.replace(Kind.NOTE, self.note, _encode({"files": entries}))

    @classmethod
    def read(cls, place: Place, list_name: str) -> Ledger:
        """Return the ledger at the place; an empty one where there is none.

        Raises:
            DocumentError: It is there and cannot be understood.
        """
        empty = cls(list_name)
        data = place.read(Kind.NOTE, empty.note)
        return empty if data is None else cls(list_name, _ledger_files(data, empty.note))


def known_files(place: Place, notes: Collection[str]) -> set[str]:
    """Return the names of all images that Coppice put at the place.

    Raises:
        DocumentError: A ledger cannot be understood.
    """
    known: set[str] = set()
    for note in notes:
        if note.startswith(LEDGER):
            data = place.read(Kind.NOTE, note)
            known |= set(_ledger_files(data, note)) if data is not None else set()
    return known


class Claim:
    """Says at a place, while a list is published, which images it will name.

    There is one for each list and machine, so that the next run takes over what a killed one left.

    Args:
        place: Where.
        list_name: The list.
        names: Its images.
        now: Tells the time.
    """

    def __init__(self, place: Place, list_name: str, names: Collection[str], now: Callable[[], datetime]) -> None:
        self._place, self._now, self._names = place, now, sorted(names)
        self._note = f"{CLAIM}{list_name}-{machine()}{_SUFFIX}"
        self._written: datetime | None = None

    def renew(self) -> None:
        """Write it, unless that was done lately.

        Raises:
            PublicationError: It was not renewed for so long that others took this run for killed.
        """
        now = self._now()
        if self._written is not None and now - self._written >= CLAIM_AGE:
            raise PublicationError(
                f"this publication to {self._place.label} stood still for too long: images may be gone meanwhile",
                resolution="Publish again.",
            )
        if self._written is None or now - self._written >= CLAIM_RENEWAL or now < self._written:
            self._place.replace(Kind.NOTE, self._note, _encode({"at": now.isoformat(), "names": self._names}))
            self._written = now

    def end(self) -> None:
        """Remove it: the list is there and speaks for itself."""
        end_note(self._place, self._note)


def end_note(place: Place, note: str) -> None:
    """Have a claim or an intent say nothing any more: remove it, or, where nothing can be removed, empty it."""
    try:
        place.delete(Kind.NOTE, note)
    except PublicationError as problem:
        if problem.context.get("status") not in _NO_REMOVAL:
            raise
        place.replace(Kind.NOTE, note, _encode({"at": _LONG_AGO, "names": []}))


def write_intent(place: Place, names: Collection[str], now: datetime) -> str:
    """Say that these images are being removed; return the note's name."""
    note = f"{INTENT}{secrets.token_hex(6)}{_SUFFIX}"
    place.replace(Kind.NOTE, note, _encode({"at": now.isoformat(), "names": sorted(names)}))
    return note


def current_notes(
    place: Place, prefix: str, age: timedelta, now: datetime, *, notes: Collection[str] | None = None
) -> Iterator[tuple[str, frozenset[str], bool]]:
    """Yield claims or intents: the note's name, the images that it names, and whether it is current.

    Raises:
        DocumentError: One of them cannot be understood.
    """
    for note in place.names(Kind.NOTE) if notes is None else notes:
        if not note.startswith(prefix):
            continue
        data = place.read(Kind.NOTE, note)
        if data is None:
            continue
        document = _decode(data, note)
        at, names = _instant(document.get("at"), note), document.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _malformed(note)
        yield note, frozenset(names), now - at < age


def read_marks(place: Place) -> dict[str, datetime]:
    """Return since when which images are named by no published list.

    Raises:
        DocumentError: The note cannot be understood.
    """
    data = place.read(Kind.NOTE, MARKS)
    if data is None:
        return {}
    marks = _decode(data, MARKS).get("since")
    if not isinstance(marks, dict):
        raise _malformed(MARKS)
    return {str(name): _instant(since, MARKS) for name, since in marks.items()}


def write_marks(place: Place, marks: Mapping[str, datetime]) -> None:
    """Keep the marks at the place."""
    since = {name: instant.isoformat() for name, instant in sorted(marks.items())}
    place.replace(Kind.NOTE, MARKS, _encode({"since": since}))


def _entry(known: Verified | None) -> dict[str, object]:
    if known is None:
        return {}
    return {"size": known.facts.size_bytes, "sha512": known.facts.sha512, "stamp": known.stamp}


def _ledger_files(data: bytes, note: str) -> dict[str, Verified | None]:
    entries = _decode(data, note).get("files")
    if not isinstance(entries, dict):
        raise _malformed(note)
    return {name: _verified(entry, note) for name, entry in entries.items()}


def _verified(entry: object, note: str) -> Verified | None:
    if not isinstance(entry, dict):
        raise _malformed(note)
    size, sha512, stamp = entry.get("size"), entry.get("sha512"), entry.get("stamp")
    if not entry or not isinstance(size, int) or not isinstance(sha512, str):
        return None
    return Verified(facts=Facts(size_bytes=size, sha512=sha512), stamp=stamp if isinstance(stamp, str) else None)


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps({"format": 1, **document}, indent=1, sort_keys=True).encode("ascii") + b"\n"


def _decode(data: bytes, note: str) -> dict[str, Any]:
    document = read_json(data, what=f"publisher's note {note}", max_bytes=SMALL_LIMIT_BYTES, max_depth=_DEPTH)
    if document.get("format") != 1:
        raise _malformed(note)
    return document


def _instant(value: object, note: str) -> datetime:
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise _malformed(note)
    return instant


def _malformed(note: str) -> DocumentError:
    return DocumentError(
        f"the publisher's note {note} cannot be understood",
        resolution="It was written by another program, or by a later Coppice. Remove the note by hand if nothing else "
        "needs it.",
        context={"note": note},
    )
