# SPDX-License-Identifier: Apache-2.0
"""OpenNebula's templates in their XML form: the only place that writes or reads one.

The text form (``NAME = "value"``) cannot be quoted without loss, so it is never used. In the XML form an attribute is
an element with one text in it, or with elements that have one text each ("vector"); a second level does not exist.
Names of attributes are Coppice's or the administrator's, never a list's.

``oned`` writes values back between ``<![CDATA[`` and ``]]>`` as they are. A value with ``]]>`` in it would make every
answer that holds it unreadable, for everybody: it is taken apart here.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING

from coppice.cloud.properties import clean

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from xml.etree.ElementTree import Element

Value = str | tuple[tuple[str, str], ...]
"""Of an attribute: a text, or the pairs of a vector."""
Attribute = tuple[str, Value]
"""Name and value; a name may come several times (``NIC``)."""
Attributes = tuple[Attribute, ...]

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
MAX_VALUE_LENGTH = 1_000_000
MAX_NAME_BYTES = 128
"""Of an object's name, in UTF-8 (``PoolObjectSQL::name_is_valid``)."""
_REFUSED_IN_NAMES = re.compile(r"[&|:\\\";/'#{}$<>]")
"""What ``oned`` refuses in names (``PoolObjectSQL::INVALID_NAME_CHARS``)."""
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold (paragraph 2.2), control characters, and the carriage return that a parser turns into LF."""
_END_OF_DATA = "]]>"
_ENCODED = "json:"


def document(attributes: Iterable[Attribute]) -> str:
    """Return a template that holds ``attributes`` and nothing else.

    Values are unchanged but for control characters, which are left out, and ``]]>``, which becomes ``]] >``. What is
    empty is left out: ``oned`` would do so, too.

    Raises:
        ValueError: A name is none of an attribute, or a value is too long.
    """
    written = "".join(_element(name, value) for name, value in attributes)
    return f"<TEMPLATE>{written}</TEMPLATE>"


def _element(name: str, value: Value) -> str:
    if NAME.fullmatch(name) is None:
        message = f"not a name of an attribute: {name[:100]!r}"
        raise ValueError(message)
    inner = escaped(value) if isinstance(value, str) else "".join(_element(part, text) for part, text in value)
    return f"<{name}>{inner}</{name}>" if inner else ""


def escaped(text: str) -> str:
    """Return ``text`` as the one text node of an element."""
    if len(text) > MAX_VALUE_LENGTH:
        message = f"a value of {len(text)} characters is too long"
        raise ValueError(message)
    # Not CDATA: two sections, or a section beside a text, are two nodes, and oned takes the first alone.
    return writable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def writable(text: str) -> str:
    """Return ``text`` as it comes back from OpenNebula."""
    return _UNWRITABLE.sub("", text).replace(_END_OF_DATA, "]] >")


class _Read(tuple[Attribute, ...]):  # noqa: SLOT001 - what is computed once has to be kept somewhere
    """Attributes of an answer; they are looked at many times."""

    @cached_property
    def texts(self) -> Mapping[str, str]:
        return _texts(self)


def read(element: Element) -> Attributes:
    """Return what a ``TEMPLATE`` element of an answer holds, in its order."""
    return _Read(
        (child.tag, tuple((part.tag, part.text or "") for part in child) if len(child) else child.text or "")
        for child in element
    )


def texts(attributes: Iterable[Attribute]) -> Mapping[str, str]:
    """Return the attributes that are no vectors, by name; of several of one name the last."""
    return attributes.texts if isinstance(attributes, _Read) else _texts(attributes)


def _texts(attributes: Iterable[Attribute]) -> dict[str, str]:
    return {name: value for name, value in attributes if isinstance(value, str)}


def to_marker_value(text: str) -> str:
    """Return ``text`` so that `from_marker_value` gives the very same again, whatever OpenNebula does to odd ones."""
    if text and text == text.strip() == writable(text) and not text.startswith(_ENCODED):
        return text
    return _ENCODED + as_json(text)


def from_marker_value(text: str) -> str:
    """Return what `to_marker_value` was given; what is damaged comes back as it is."""
    if not text.startswith(_ENCODED):
        return text
    try:
        decoded = json.loads(text.removeprefix(_ENCODED))
    except (ValueError, RecursionError):
        return text
    return decoded if isinstance(decoded, str) else text


def as_json(value: object) -> str:
    """Return ``value`` as JSON of ASCII characters that mean nothing in XML."""
    written = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def object_name(*parts: str) -> str:
    """Return a name that OpenNebula takes, of texts that people read; the last part is never cut.

    What ``oned`` refuses in a name becomes a blank; what is not seen is left out.
    """
    *first, last = [" ".join(_REFUSED_IN_NAMES.sub(" ", clean(part, MAX_NAME_BYTES)).split()) for part in parts]
    tail = _cut(last, MAX_NAME_BYTES - 20) if first else _cut(last, MAX_NAME_BYTES)
    head = _cut(" ".join(part for part in first if part), MAX_NAME_BYTES - len(tail.encode()) - 1)
    return f"{head} {tail}".strip() or "image"


def _cut(text: str, limit: int) -> str:
    return text.encode()[: max(limit, 0)].decode("utf-8", "ignore").strip()


def merged(before: Iterable[Attribute], now: Iterable[Attribute], ours: Container[str]) -> Attributes:
    """Return ``now``, and of ``before`` what has other names and is not among ``ours``."""
    written = tuple(now)
    names = {name for name, _ in written}
    return (*written, *((name, value) for name, value in before if name not in names and name not in ours))
