# SPDX-License-Identifier: Apache-2.0
"""What a vmcatcher database says: subscriptions, whom each trusts, and which images are wanted.

The tables are those of vmcatcher 0.6; columns that older versions lack may be missing. Passwords stand in clear in
them: what is read here is for handing on, never for showing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.workflows.foreign_database import open_foreign

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.workflows.foreign_database import ForeignDatabase

_WHAT = "vmcatcher"
_TABLES = ("endorser", "endorserPrincible", "subscription", "subscriptionAuth", "ImageDefinition", "imageListInstance")
# A column that an old version filled with its default has this in it: nobody's name or password.
_NOTHING = ("", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedEndorser:
    """An endorser linked to a subscription: ``hv:dn``, ``hv:ca``, and whether the link is in force."""

    subject: str
    issuer: str
    authorised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImage:
    """An image that a subscription accepted.

    Attributes:
        identifier: ``dc:identifier``.
        wanted: Whether it is cached.
    """

    identifier: str
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSubscription:
    """A subscription of vmcatcher's.

    Attributes:
        identifier: ``dc:identifier`` of its list.
        description: For people.
        uri: Where the list is fetched.
        authorised: Whether its images may be used.
        trust_anchor: Whom the server's certificate must come from: 0 anybody, 1 a browser's authorities, 2 the IGTF's.
        username: For HTTP basic, or None.
        password: In clear; never shown.
        update_mode: What becomes of an image that is new in the list: bit 0 accepts, bit 1 caches it.
        endorsers: Linked to it.
        images: Accepted so far.
        last_version: Of the list that was verified last, or None.
        last_message: Its bytes, or None.
    """

    identifier: str
    description: str
    uri: str
    authorised: bool
    trust_anchor: int
    username: str | None
    password: str | None = field(repr=False)
    update_mode: int
    endorsers: tuple[LinkedEndorser, ...]
    images: tuple[KnownImage, ...]
    last_version: str | None
    last_message: bytes | None = field(repr=False)


def read_vmcatcher(path: Path) -> tuple[ForeignSubscription, ...]:
    """Return every subscription of the database at ``path``.

    Raises:
        UnreadableFileError: It cannot be read, or is not vmcatcher's.
    """
    with open_foreign(path, _WHAT) as database:
        database.require_tables(_TABLES)
        return _subscriptions(database)


def _subscriptions(database: ForeignDatabase) -> tuple[ForeignSubscription, ...]:
    endorsers = _endorsers(database)
    images: dict[object, list[KnownImage]] = {}
    for row in database.rows("ImageDefinition", ("id", "identifier", "cache", "subscription")):
        known = KnownImage(identifier=_text(row["identifier"]), wanted=bool(_number(row["cache"]) & 1))
        images.setdefault(row["subscription"], []).append(known)
    versions = {row["id"]: _text(row["version"]) for row in database.rows("imageListInstance", ("id", "version"))}
    found = []
    columns = ("id", "identifier", "description", "uri", "authorised", "imagelist_latest")
    for row in database.rows("subscription", columns, ("trustAnchor", "userName", "password", "updateMode")):
        latest = row["imagelist_latest"]
        there = isinstance(latest, int) and latest in versions
        found.append(
            ForeignSubscription(
                identifier=_text(row["identifier"]),
                description=_text(row["description"]),
                uri=_text(row["uri"]),
                authorised=bool(_number(row["authorised"])),
                trust_anchor=_number(row["trustAnchor"]),
                username=_something(row["userName"]),
                password=_something(row["password"]),
                update_mode=_number(row["updateMode"]),
                endorsers=tuple(endorsers.get(row["id"], ())),
                images=tuple(images.get(row["id"], ())),
                last_version=versions[latest] if there else None,
                last_message=database.blob("imageListInstance", "data", latest)
                if there and isinstance(latest, int)
                else None,
            )
        )
    return tuple(found)


def _endorsers(database: ForeignDatabase) -> dict[object, list[LinkedEndorser]]:
    """Return the linked endorsers by subscription; a name belongs to the endorser that its row refers to."""
    names: dict[object, list[tuple[str, str]]] = {}
    for row in database.rows("endorserPrincible", ("id", "hv_dn", "hv_ca", "endorser")):
        names.setdefault(row["endorser"], []).append((_text(row["hv_dn"]), _text(row["hv_ca"])))
    linked: dict[object, list[LinkedEndorser]] = {}
    for row in database.rows("subscriptionAuth", ("id", "subscription", "endorser", "authorised")):
        for subject, issuer in names.get(row["endorser"], ()):
            endorser = LinkedEndorser(subject=subject, issuer=issuer, authorised=bool(_number(row["authorised"])))
            linked.setdefault(row["subscription"], []).append(endorser)
    return linked


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _something(value: object) -> str | None:
    text = _text(value)
    return None if text in _NOTHING else text


def _number(value: object) -> int:
    try:
        return int(_text(value) or 0)
    except ValueError:
        return 0
