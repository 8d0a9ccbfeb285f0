# SPDX-License-Identifier: Apache-2.0
"""What people can set on image lists and appliances: names, the format's keys that they become, and how each is read.

A key is known by a name of this project and, where there is one, by the key that image lists write. Any other key can
be set if it has a prefix (``prefix:name``); it is written into lists as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coppice.errors import DocumentError, InconsistentListError
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.formats.strict_json import read_json
from coppice.model.identifiers import is_name
from coppice.model.version import Version
from coppice.settings.quantities import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_LIFETIME_DAYS = 3650
_OWN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}(?::[A-Za-z0-9_.-]{1,64}){1,4}")
_VO = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_MPURI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[^\s<>\"{}|\\^`]|\{version\})+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MAX_NUMBER = 2**63 - 1
MAX_OWN_KEYS = 200


class Draft(Protocol):
    """Something that is being edited: attributes for known keys, and the rest by the format's keys."""

    keys: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that can be set.

    Attributes:
        name: How commands call it.
        meaning: For people, half a line.
        read: Makes the value of a text, or of what JSON holds; raises `ValueError` when it cannot be one.
        wire: The format's key, which is understood too; None: there is none.
        attribute: Of the draft; None: the value is kept under the format's key.
        required: Whether there must always be a value.
        empty: What stands there when nothing is set.
    """

    name: str
    meaning: str
    read: Callable[[object], object]
    wire: str | None = None
    attribute: str | None = None
    required: bool = False
    empty: object = None


def set_key(draft: Draft, known: Sequence[Key], computed: Mapping[str, str], name: str, value: object) -> Key | None:
    """Set the key ``name`` of a draft; return it, or None for one that Coppice does not know.

    Args:
        draft: What is edited.
        known: The keys that it has.
        computed: Keys that nobody sets, and why not.
        name: By its name here, or by the format's key.
        value: A text, or what JSON can hold.

    Raises:
        InconsistentListError: There is no such key, it cannot be set, or the value cannot be its.
    """
    key = find_key(known, computed, name)
    try:
        if key is None:
            draft.keys[name] = _own_value(value)
            if len(draft.keys) > MAX_OWN_KEYS:
                message = f"more than {MAX_OWN_KEYS} keys"
                raise ValueError(message)  # noqa: TRY301 - told in the same words as any other
        elif key.attribute is not None:
            setattr(draft, key.attribute, key.read(value))
        else:
            draft.keys[str(key.wire)] = key.read(value)
    except ValueError as problem:
        raise InconsistentListError(
            f"{name} cannot be {_shown(value)}: {problem}",
            resolution="docs/reference/catalogue.md says what each key can be.",
            context={"key": name},
        ) from problem
    return key


def unset_key(draft: Draft, known: Sequence[Key], computed: Mapping[str, str], name: str) -> Key | None:
    """Take the key ``name`` away from a draft; return it, or None for one that Coppice does not know.

    Raises:
        InconsistentListError: There is no such key, it is not set, or it cannot be missing.
    """
    key = find_key(known, computed, name)
    if key is not None and key.required:
        raise InconsistentListError(f"{name} cannot be missing", resolution="Set another value.", context={"key": name})
    if key is not None and key.attribute is not None:
        setattr(draft, key.attribute, key.empty)
        return key
    if draft.keys.pop(name if key is None else str(key.wire), None) is None:
        raise InconsistentListError(
            f"{name} is not set",
            details=f"set beside the known keys: {', '.join(sorted(draft.keys)) or 'nothing'}",
            context={"key": name},
        )
    return key


def find_key(known: Sequence[Key], computed: Mapping[str, str], name: str) -> Key | None:
    """Return the key that ``name`` means; None for one that Coppice does not know, but that can be set.

    Raises:
        InconsistentListError: There is none, or it cannot be set.
    """
    for key in known:
        if name in {key.name, key.wire}:
            return key
    reason = computed.get(name) or ("keys of Coppice's own are computed" if name.startswith("coppice:") else None)
    if reason is not None:
        raise InconsistentListError(f"{name} cannot be set: {reason}", context={"key": name})
    if not _OWN_KEY.fullmatch(name):
        raise InconsistentListError(
            f"there is no key {name[:80]!r}",
            details=f"known: {', '.join(key.name for key in known)}",
            resolution="A key of your own needs a prefix, such as ad:swid or example.org's `example:tier`.",
            context={"key": name[:80]},
        )
    return None


def read_json_value(text: str) -> object:
    """Return what the JSON ``text`` says.

    Raises:
        InconsistentListError: It is not JSON, or not what may be in a list.
    """
    try:
        members = read_json(f'{{"value": {text}}}'.encode(errors="surrogatepass"), what="value")
    except DocumentError as problem:
        raise InconsistentListError(f"{text[:80]!a} is no JSON value", details=problem.message) from problem
    if members.keys() != {"value"}:
        raise InconsistentListError(f"{text[:80]!a} is no JSON value", details="it goes on after its end")
    return members["value"]


def _own_value(value: object) -> object:
    try:
        written = json.dumps({"value": value}, allow_nan=False).encode()
        if len(written) > DEFAULT_LIMITS.text_bytes:
            message = f"it is longer than {DEFAULT_LIMITS.text_bytes} bytes"
            raise ValueError(message)
        # As a subscriber will read it: what that refuses must not get into a list.
        return read_json(written, what="value", max_depth=DEFAULT_LIMITS.depth - 4)["value"]
    except (DocumentError, TypeError, RecursionError) as problem:
        raise ValueError(str(problem)) from problem


def _shown(value: object) -> str:
    return ascii(value if len(str(value)) <= 80 else f"{str(value)[:77]}...")  # noqa: PLR2004 - a line of a terminal


def line(value: object) -> str:
    """Read a text of one line that is not empty."""
    text = _text(value, DEFAULT_LIMITS.title_bytes).strip()
    if _CONTROL.search(text):
        message = "it has line breaks or control characters"
        raise ValueError(message)
    if not text:
        message = "it is empty"
        raise ValueError(message)
    return text


def paragraph(value: object) -> str:
    """Read a text that may have lines, or be empty."""
    text = _text(value, DEFAULT_LIMITS.text_bytes)
    if _CONTROL_BUT_LINES.search(text):
        message = "it has control characters"
        raise ValueError(message)
    return text


def number(value: object) -> int:
    """Read a whole number from 1 on."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_NUMBER:
        message = "a whole number from 1 on is needed"
        raise ValueError(message)
    return value


def size(value: object) -> int:
    """Read a number of bytes, which may be written with a unit."""
    return number(parse_size(number(value) if isinstance(value, str) and value.strip().isdecimal() else value))


def days(value: object) -> int:
    """Read a lifetime in days."""
    found = number(value)
    if found > LONGEST_LIFETIME_DAYS:
        message = f"it is none of 1 to {LONGEST_LIFETIME_DAYS} days"
        raise ValueError(message)
    return found


def vo(value: object) -> str:
    """Read the name of a virtual organisation: letters and digits with ``.``, ``-``, ``_`` between them."""
    text = line(value)
    if not _VO.fullmatch(text):
        message = "letters, digits and, between them, '.', '-' or '_' are needed"
        raise ValueError(message)
    return text


def uri(value: object) -> str:
    """Read an absolute URI."""
    text = line(value)
    if not _URI.fullmatch(text):
        message = "an address such as https://images.example.org/ is needed"
        raise ValueError(message)
    return text


def mpuri(value: object) -> str:
    """Read a marketplace URI, in which ``{version}`` stands for the image's version."""
    text = line(value)
    if not _MPURI.fullmatch(text):
        message = "an address such as https://mp.example.org/image/77:{version}/ is needed"
        raise ValueError(message)
    return text


def name(value: object) -> str:
    """Read the name of something of the catalogue or of the settings."""
    text = line(value)
    if not is_name(text):
        message = "that cannot be a name"
        raise ValueError(message)
    return text


def version(value: object) -> str:
    """Read a version."""
    text = line(value)
    Version(text)
    return text


def groups(value: object) -> tuple[str, ...]:
    """Read categories, separated by commas or as an array of texts."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        message = "texts, separated by commas, are needed"
        raise ValueError(message)  # noqa: TRY004 - one error for all that cannot be read
    found = tuple(line(part) for part in parts if not isinstance(part, str) or part.strip())
    if any("," in part for part in found):
        message = "a category has no comma in it"
        raise ValueError(message)
    return found


def _text(value: object, limit_bytes: int) -> str:
    if not isinstance(value, str):
        message = "a text is needed"
        raise ValueError(message)  # noqa: TRY004 - one error for all that cannot be read
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        message = "it is not UTF-8"
        raise ValueError(message) from None
    if length > limit_bytes:
        message = f"it is longer than {limit_bytes} bytes"
        raise ValueError(message)
    return value
