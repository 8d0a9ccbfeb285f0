# SPDX-License-Identifier: Apache-2.0
"""What a vmcaster database says: image lists, their images, and who endorses them; each with its keys.

The tables are those of vmcaster 0.0.36: every key of the list format is a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.workflows.foreign_database import open_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.workflows.foreign_database import ForeignDatabase

_WHAT = "vmcaster"
_TABLES = (
    *("endorser", "endorserMetadata", "imagelist", "ImagelistMetadata"),
    *("Image", "ImageMetadata", "Endorsement", "ImageListImage"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CastEndorser:
    """An endorser: the subject of its certificate, and its keys (``hv:ca``, ``hv:email``, ``dc:creator``)."""

    subject: str
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CastImage:
    """An image.

    Attributes:
        identifier: ``dc:identifier``.
        keys: Its other keys.
        contradicted: Keys that stand there with two values; the later one counts.
    """

    identifier: str
    keys: Mapping[str, str]
    contradicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CastList:
    """An image list.

    Attributes:
        identifier: ``dc:identifier``.
        keys: Its other keys.
        endorsers: Bound to it.
        images: Bound to it.
    """

    identifier: str
    keys: Mapping[str, str]
    endorsers: tuple[CastEndorser, ...]
    images: tuple[CastImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CastCatalogue:
    """A whole vmcaster database.

    Attributes:
        lists: Every image list.
        endorsers: Every endorser.
        unbound: Images that no list carries.
    """

    lists: tuple[CastList, ...]
    endorsers: tuple[CastEndorser, ...]
    unbound: tuple[CastImage, ...]


def read_vmcaster(path: Path) -> CastCatalogue:
    """Return what the database at ``path`` holds.

    Raises:
        UnreadableFileError: It cannot be read, or is not vmcaster's.
    """
    with open_foreign(path, _WHAT) as database:
        database.require_tables(_TABLES)
        return _catalogue(database)


def _catalogue(database: ForeignDatabase) -> CastCatalogue:
    about = _keys(database, "endorserMetadata", "fkEndorser")
    endorsers = {
        row["id"]: CastEndorser(subject=_text(row["subject"]), keys=about.get(row["id"], {}))
        for row in database.rows("endorser", ("id", "subject"))
    }
    about, twice = _keys_and_doubles(database, "ImageMetadata", "fkImage")
    images = {
        row["id"]: CastImage(
            identifier=_text(row["identifier"]),
            keys=about.get(row["id"], {}),
            contradicted=tuple(sorted(twice.get(row["id"], ()))),
        )
        for row in database.rows("Image", ("id", "identifier"))
    }
    bound_endorsers = _links(database, "Endorsement", "fkEndorser")
    bound_images = _links(database, "ImageListImage", "fkImage")
    about = _keys(database, "ImagelistMetadata", "fkImageList")
    lists = tuple(
        CastList(
            identifier=_text(row["identifier"]),
            keys=about.get(row["id"], {}),
            endorsers=tuple(endorsers[number] for number in bound_endorsers.get(row["id"], ()) if number in endorsers),
            images=tuple(images[number] for number in bound_images.get(row["id"], ()) if number in images),
        )
        for row in database.rows("imagelist", ("id", "identifier"))
    )
    carried = {number for numbers in bound_images.values() for number in numbers}
    unbound = tuple(image for number, image in images.items() if number not in carried)
    return CastCatalogue(lists=lists, endorsers=tuple(endorsers.values()), unbound=unbound)


def _links(database: ForeignDatabase, table: str, column: str) -> dict[object, list[object]]:
    found: dict[object, list[object]] = {}
    for row in database.rows(table, ("id", "fkImageList", column)):
        bound = found.setdefault(row["fkImageList"], [])
        if row[column] not in bound:
            bound.append(row[column])
    return found


def _keys(database: ForeignDatabase, table: str, column: str) -> dict[object, dict[str, str]]:
    return _keys_and_doubles(database, table, column)[0]


def _keys_and_doubles(
    database: ForeignDatabase, table: str, column: str
) -> tuple[dict[object, dict[str, str]], dict[object, set[str]]]:
    found: dict[object, dict[str, str]] = {}
    twice: dict[object, set[str]] = {}
    for row in database.rows(table, ("id", column, "key", "value")):
        keys = found.setdefault(row[column], {})
        key, value = _text(row["key"]), _text(row["value"])
        if keys.get(key, value) != value:
            twice.setdefault(row[column], set()).add(key)
        keys[key] = value
    return found, twice


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
