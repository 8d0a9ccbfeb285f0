# SPDX-License-Identifier: Apache-2.0
"""What a subscription to simplestreams asks for: which mirror, which stream, which products and items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from coppice.errors import InputError
from coppice.formats.simplestreams import relative_path
from coppice.subscription.source.gathered import DEFAULT_VALID_DAYS
from coppice.subscription.source.keyring_trust import KeyringTrust, read_trust
from coppice.subscription.source.options import SourceOptions
from coppice.subscription.source.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER = "simplestreams"
DEFAULT_MAX_ITEMS = 3
_MOST_ITEMS = 1000
_FILTER = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})\s*(!~|!=|~|=)(.*)", re.DOTALL)
_SCHEMES = frozenset({"https", "http", "file"})
_STREAMS = "/streams/v1/"
_SAFE_IN_PATH = "/:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition over one field of an item, as ``sstream-mirror`` writes it: ``=``, ``!=``, ``~``, ``!~``.

    Attributes:
        field: Of the item, its version, its product or the stream.
        value: What it must be; None: ``pattern`` says it.
        pattern: What it must begin with.
        negated: Whether it must not.
    """

    field: str
    value: str | None
    pattern: Pattern | None
    negated: bool

    def __str__(self) -> str:
        """Return it in its one spelling."""
        sign = "!" if self.negated else ""
        return f"{self.field}{sign}={self.value}" if self.pattern is None else f"{self.field}{sign}~{self.pattern.text}"

    def holds(self, texts: tuple[str, ...]) -> bool:
        """Tell whether it is true of a field that says one of ``texts``; what is not said is the empty text."""
        said = texts or ("",)
        if self.pattern is not None:
            found = any(self.pattern.match_start(each) is not None for each in said)
        else:
            found = self.value in said
        return found != self.negated


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsOptions:
    """What is asked for.

    Attributes:
        trust: Who must have signed.
        content_id: Which stream of the index; None: the only one that has images.
        filters: All must hold of an item.
        max_items: How many of a product's newest versions are looked at for an item.
        expire: Whether an image ends with its support (``support_eol``).
        valid_days: How long a list holds after its date.
    """

    trust: KeyringTrust
    content_id: str | None
    filters: tuple[Filter, ...]
    max_items: int
    expire: bool
    valid_days: float

    @property
    def choice(self) -> tuple[str, ...]:
        """What chooses the content, for the list's identifier: all filters must hold, in whatever order."""
        return tuple(sorted({str(each) for each in self.filters}))

    @property
    def item_types(self) -> tuple[str, ...]:
        """The item types that a filter names outright; empty: none does."""
        return tuple(each.value for each in self.filters if each.field == "ftype" and each.value and not each.negated)

    @property
    def chooses_items(self) -> bool:
        """Whether a filter says which items are wanted: then no other choice is made."""
        return any(each.field in {"ftype", "item_name"} for each in self.filters)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsAddress:
    """Where a mirror is.

    Attributes:
        base: What all paths are below; ends with a slash.
        path: Of the document that is read first.
    """

    base: str
    path: str

    def uri(self, path: str) -> str:
        """Return the address of a path below the base."""
        return self.base + quote(path, safe=_SAFE_IN_PATH)


def read_options(values: Mapping[str, object]) -> StreamsOptions:
    """Return a subscription's options.

    Raises:
        InputError: One is unknown, or has a value that cannot be.
    """
    given = values.get("filters")
    options = SourceOptions(DRIVER, {**values, "filters": split_filters(given)} if isinstance(given, str) else values)
    found = StreamsOptions(
        trust=read_trust(options),
        content_id=options.optional_text("content_id"),
        filters=tuple(read_filter(each) for each in options.texts("filters")),
        max_items=options.whole_number("max_items", DEFAULT_MAX_ITEMS, least=1, most=_MOST_ITEMS),
        expire=options.choice("support_eol", {"expire", "ignore"}, "expire") == "expire",
        valid_days=options.valid_days(DEFAULT_VALID_DAYS),
    )
    options.finish()
    return found


def split_filters(text: str) -> list[str]:
    """Return the filters of one text with commas between them; those within brackets belong to a pattern."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def read_filter(text: str) -> Filter:
    """Return the filter that ``text`` writes, such as ``arch=amd64`` or ``release~(noble|jammy)``.

    Raises:
        InputError: It writes none.
    """
    match = _FILTER.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text[:80]!r} is no filter",
            resolution="Write field=value, field!=value, field~pattern or field!~pattern.",
        )
    field, sign, value = match[1], match[2], match[3].strip()
    is_pattern = sign.endswith("~")
    return Filter(
        field=field,
        value=None if is_pattern else value,
        pattern=Pattern(value) if is_pattern else None,
        negated=sign.startswith("!"),
    )


def read_address(uri: str, *, signed: bool) -> StreamsAddress:
    """Return where a mirror is: ``uri`` is its base, or the address of its index or of its products.

    Raises:
        InputError: It is no such address.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as problem:
        raise InputError(f"the address {uri[:200]!r} is malformed: {problem}") from problem
    is_here = parts.netloc in {"", "localhost"} if parts.scheme == "file" else bool(parts.netloc)
    if parts.scheme not in _SCHEMES or parts.query or parts.fragment or not is_here:
        raise InputError(
            f"simplestreams cannot be fetched from {uri[:200]!r}",
            resolution="Use the https://, http:// or file:/// address of the mirror, or of its index.",
        )
    if "@" in parts.netloc:
        raise InputError(
            "the address of a mirror has user information in it, which would be shown with every image",
            resolution="Leave it out, and name a credential (--credential).",
        )
    before, mark, name = parts.path.partition(_STREAMS)
    base = urlunsplit((parts.scheme, parts.netloc, before.rstrip("/") + "/", "", ""))
    if mark and name:
        return StreamsAddress(base=base, path=relative_path(_STREAMS[1:] + name))
    return StreamsAddress(base=base, path=f"{_STREAMS[1:]}index.{'sjson' if signed else 'json'}")
