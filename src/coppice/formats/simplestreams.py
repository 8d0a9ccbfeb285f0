# SPDX-License-Identifier: Apache-2.0
"""Simplestreams documents: an index, and products with their versions and items (``index:1.0``, ``products:1.0``).

A value that stands higher up holds for all that is below, unless it is said again there. Keys that are not known are
kept as they are: publishers add their own (``combined_*_sha256``, ``requirements``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.fields import Fields, read_instant
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.formats.strict_json import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.formats.limits import ListLimits

INDEX_FORM = "index:1.0"
PRODUCTS_FORM = "products:1.0"
IMAGES = "image-downloads"
"""The ``datatype`` of what can be downloaded, as against identifiers of images in some cloud (``image-ids``)."""
MAX_CONTENTS = 1000
MAX_NAME_LENGTH = 256
_MAX_ALIASES = 200
_SEGMENT = re.compile(r"[A-Za-z0-9._~:@+,=!$&()*;' -]{1,255}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_PATH_LENGTH = 2048
_MAX_DATE_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContent:
    """An entry of an index: where the products of one stream are.

    Attributes:
        identifier: Its content ID, such as ``com.ubuntu.cloud:released:download``.
        datatype: ``image-downloads`` or another.
        path: Below the mirror's base.
        updated: When the products changed last, as the index says; None: it does not.
    """

    identifier: str
    datatype: str
    path: str
    updated: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamIndex:
    """An index.

    Attributes:
        contents: In its order.
        updated: When it was written, as it says; None: it does not.
    """

    contents: tuple[StreamContent, ...]
    updated: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamItem:
    """A file of one version of a product.

    Attributes:
        name: As its version calls it.
        fields: What is said of it alone; with what holds from higher up: `StreamProducts.values`.
    """

    name: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamVersion:
    """A version of a product.

    Attributes:
        name: Such as ``20260101.1``.
        fields: What is said of all its items.
        items: In its order.
    """

    name: str
    fields: Mapping[str, object]
    items: tuple[StreamItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProduct:
    """A product.

    Attributes:
        name: Such as ``com.ubuntu.cloud:server:24.04:amd64``.
        fields: What is said of all its versions.
        versions: In its order, which says nothing.
        problem: Why it cannot be read; None: it can. Nothing else is known of it then.
    """

    name: str
    fields: Mapping[str, object]
    versions: tuple[StreamVersion, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProducts:
    """The products of one stream.

    Attributes:
        identifier: Its content ID.
        datatype: ``image-downloads`` or another; empty where it says none.
        updated: When they changed last, as they say; None: they do not.
        fields: What is said of all of them.
        products: In their order.
    """

    identifier: str
    datatype: str
    updated: datetime | None
    fields: Mapping[str, object]
    products: tuple[StreamProduct, ...]

    def values(self, product: StreamProduct, version: StreamVersion, item: StreamItem) -> dict[str, object]:
        """Return what holds of an item, from the top down; with the names under which filters know the levels."""
        return {
            **self.fields,
            **product.fields,
            **version.fields,
            **item.fields,
            "content_id": self.identifier,
            "product_name": product.name,
            "version_name": version.name,
            "item_name": item.name,
        }


def read_streams(payload: bytes, *, limits: ListLimits = DEFAULT_LIMITS) -> StreamIndex | StreamProducts:
    """Return the index, or the products, that ``payload`` holds.

    Raises:
        DocumentError: It is neither.
    """
    what = "simplestreams document"
    document = read_json(
        payload,
        what=what,
        max_bytes=limits.size_bytes,
        max_depth=limits.depth,
        max_text_bytes=limits.text_bytes,
        max_values=limits.values,
    )
    fields = Fields(document, "$", what)
    form = fields.word("format", limit_bytes=MAX_NAME_LENGTH)
    if form == INDEX_FORM:
        return _index(fields)
    if form != PRODUCTS_FORM:
        fields.refuse("format", f"{INDEX_FORM} or {PRODUCTS_FORM} is needed, not {form[:40]!r}")
    return _products(fields)


def relative_path(text: object) -> str:
    """Return a path below the mirror's base, which leads nowhere else.

    Raises:
        DocumentError: It is absolute, leads upwards or to another server, or is no path.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_PATH_LENGTH:
        raise DocumentError("a path below the mirror's base is needed")
    segments = text.split("/")
    if any(segment in {"", ".", ".."} or not _SEGMENT.fullmatch(segment) for segment in segments):
        raise DocumentError(
            f"the path {text[:200]!a} is absolute, leads upwards, or has characters that are not accepted"
        )
    return text


def aliases_of(value: object) -> tuple[str, ...]:
    """Return aliases, which are written as one text with commas between them, or as an array.

    Raises:
        DocumentError: They are something else, or too many.
    """
    if value is None:
        return ()
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > _MAX_ALIASES:
        raise DocumentError(f"aliases are at most {_MAX_ALIASES} texts")
    if any(not isinstance(each, str) or len(each) > MAX_NAME_LENGTH for each in found):
        raise DocumentError(f"an alias is a text of at most {MAX_NAME_LENGTH} characters")
    return tuple(dict.fromkeys(each.strip() for each in found if each.strip()))


def end_of_support(value: object) -> datetime | None:
    """Return when the support ends that ``support_eol`` names: with the end of that day, in UTC.

    Raises:
        DocumentError: It is no date.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= _MAX_DATE_LENGTH:
        if _DAY.fullmatch(value):
            try:
                return datetime.combine(date.fromisoformat(value), time(), UTC) + timedelta(days=1)
            except (ValueError, OverflowError):
                pass
        instant = read_instant(value)
        if instant is not None:
            return instant
    raise DocumentError(f"support_eol is no date such as 2029-05-31: {str(value)[:40]!a}")


def _index(fields: Fields) -> StreamIndex:
    updated = _updated(fields)
    entries = fields.group("index")
    names = entries.rest()
    if len(names) > MAX_CONTENTS:
        fields.refuse("index", f"it has more than {MAX_CONTENTS} entries")
    return StreamIndex(contents=tuple(_content(entries, name) for name in names), updated=updated)


def _content(entries: Fields, name: str) -> StreamContent:
    _check_name(entries, name)
    entry = entries.group(name)
    try:
        path = relative_path(entry.take("path"))
    except DocumentError as problem:
        entry.refuse("path", problem.message)
    return StreamContent(identifier=name, datatype=entry.text_or_empty("datatype"), path=path, updated=_updated(entry))


def _products(fields: Fields) -> StreamProducts:
    identifier = fields.word("content_id", limit_bytes=MAX_NAME_LENGTH)
    datatype = fields.text_or_empty("datatype")
    updated = _updated(fields)
    entries = fields.group("products")
    products = tuple(_product(entries, name) for name in entries.rest())
    return StreamProducts(
        identifier=identifier, datatype=datatype, updated=updated, fields=_scalars(fields), products=products
    )


def _product(entries: Fields, name: str) -> StreamProduct:
    _check_name(entries, name)
    try:
        entry = entries.group(name)
        held = entry.group("versions")
        versions = tuple(_version(held, each) for each in held.rest())
        return StreamProduct(name=name, fields=entry.rest(), versions=versions)
    except DocumentError as problem:
        # One product that nobody can read must not hide all others.
        return StreamProduct(name=name, fields={}, problem=problem.message)


def _version(held: Fields, name: str) -> StreamVersion:
    _check_name(held, name)
    entry = held.group(name)
    items = entry.group("items")
    found = []
    for each in items.rest():
        _check_name(items, each)
        found.append(StreamItem(name=each, fields=items.group(each).rest()))
    return StreamVersion(name=name, fields=entry.rest(), items=tuple(found))


def _check_name(parent: Fields, name: str) -> None:
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        parent.refuse(name[:80].encode("unicode_escape").decode(), "it is no name")


def _scalars(fields: Fields) -> dict[str, object]:
    """Return what holds of every item; tables for other tools (``_aliases``) do not."""
    return {name: value for name, value in fields.rest().items() if not isinstance(value, dict | list)}


def _updated(fields: Fields) -> datetime | None:
    """Return ``updated``, which is written as mail writes dates (RFC 5322, 3.3) or as RFC 3339."""
    text = fields.optional_text("updated")
    if text is None:
        return None
    found = read_instant(text) if len(text) <= _MAX_DATE_LENGTH else None
    if found is None and len(text) <= _MAX_DATE_LENGTH:
        try:
            parsed = parsedate_to_datetime(text)
            # A zone of -0000 says that nobody knows it.
            found = None if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            found = None
    if found is None:
        fields.refuse("updated", f"a date such as Wed, 25 Nov 2026 10:00:00 +0000 is needed, not {text[:40]!a}")
    return found
