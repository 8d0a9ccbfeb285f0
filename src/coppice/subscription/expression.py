# SPDX-License-Identifier: Apache-2.0
"""The condition language of selections: parsed into a tree that compares values, never evaluated as code.

::

    os = Debian and osversion >= 12 and (arch = x86_64 or arch = aarch64)
    not title ~ "*test*" and size < 4 GiB

A condition is true, false, or neither (None): a number, version or date that the list does not state is neither above
nor below anything. ``not`` of neither is neither; ``and`` is false as soon as one side is, ``or`` true as soon as one
is.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

from coppice.errors import InputError
from coppice.model.version import Version
from coppice.settings.quantities import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.imagelist.model import ListedImage

MAX_EXPRESSION_LENGTH = 4096
MAX_EXPRESSION_DEPTH = 32
_MIB = 1024 * 1024
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<operator>!=|<=|>=|[=<>~])|(?P<bracket>[()])"""
    r"""|(?P<word>[^\s()'"=!<>~]+))""",
    re.DOTALL,
)
_UNIT = re.compile(r"[KMGT]i?B|B")
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,6})?")


class Kind(StrEnum):
    """What is compared, and how."""

    TEXT = "text"
    VERSION = "version"
    SIZE = "size"
    NUMBER = "number"
    DATE = "date"


_OPERATORS = {
    Kind.TEXT: ("=", "!=", "~"),
    Kind.VERSION: ("=", "!=", "<", "<=", ">", ">=", "~"),
    Kind.SIZE: ("=", "!=", "<", "<=", ">", ">="),
    Kind.NUMBER: ("=", "!=", "<", "<=", ">", ">="),
    Kind.DATE: ("=", "!=", "<", "<=", ">", ">="),
}
_ORDER: dict[str, Callable[[object, object], bool]] = {
    "=": operator.eq,
    "<": operator.lt,  # type: ignore[dict-item]
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}
_FIELDS: dict[str, tuple[Kind, Callable[[ListedImage, str], tuple[object, ...]]]] = {
    "title": (Kind.TEXT, lambda image, _vo: (image.title,)),
    "description": (Kind.TEXT, lambda image, _vo: (image.description,)),
    "version": (Kind.VERSION, lambda image, _vo: (image.version,)),
    "os": (Kind.TEXT, lambda image, _vo: (image.operating_system.distribution, image.operating_system.kind)),
    "osversion": (Kind.VERSION, lambda image, _vo: (image.operating_system.version,)),
    "arch": (Kind.TEXT, lambda image, _vo: (image.operating_system.architecture,)),
    "vo": (Kind.TEXT, lambda _image, vo: (vo,)),
    "group": (Kind.TEXT, lambda image, _vo: image.groups or ("",)),
    "size": (Kind.SIZE, lambda image, _vo: (image.size_bytes,)),
    "ram": (Kind.SIZE, lambda image, _vo: (_mebibytes(image.requirements.minimum_ram_mib),)),
    "cores": (Kind.NUMBER, lambda image, _vo: (image.requirements.minimum_cores,)),
    "format": (Kind.TEXT, lambda image, _vo: (image.declared_format or "",)),
    "identifier": (Kind.TEXT, lambda image, _vo: (image.identifier,)),
    "expires": (Kind.DATE, lambda image, _vo: (image.expires,)),
    "mpuri": (Kind.TEXT, lambda image, _vo: (image.mpuri or "",)),
    "hypervisor": (Kind.TEXT, lambda image, _vo: (image.hypervisor,)),
    "comments": (Kind.TEXT, lambda image, _vo: (image.comments,)),
}
FIELDS = tuple(_FIELDS)
"""What can be compared."""


class Condition(Protocol):
    """A part of an expression."""

    def holds(self, image: ListedImage, vo: str) -> bool | None:
        """Tell whether it is true of an image of a list of that VO; None: neither true nor false."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a value."""

    field: str
    sign: str
    value: object

    def holds(self, image: ListedImage, vo: str) -> bool | None:
        """Compare; a field with several values is equal when one of them is."""
        kind, values = _FIELDS[self.field][0], _FIELDS[self.field][1](image, vo)
        if self.sign == "!=":
            same = _any(_compare(kind, "=", each, self.value) for each in values)
            return None if same is None else not same
        return _any(_compare(kind, self.sign, each, self.value) for each in values)


@dataclass(frozen=True, slots=True)
class Negation:
    """Not."""

    part: Condition

    def holds(self, image: ListedImage, vo: str) -> bool | None:
        """Turn it round."""
        found = self.part.holds(image, vo)
        return None if found is None else not found


@dataclass(frozen=True, slots=True)
class Junction:
    """All of the parts (``and``), or any of them (``or``)."""

    parts: tuple[Condition, ...]
    is_all: bool

    def holds(self, image: ListedImage, vo: str) -> bool | None:
        """Join what the parts say."""
        found = [part.holds(image, vo) for part in self.parts]
        if self.is_all:
            return False if False in found else None if None in found else True
        return _any(found)


def parse_expression(text: str) -> Condition:
    """Return the condition that ``text`` says.

    Raises:
        InputError: It says none; the message and ``context["position"]`` tell at which character, from 1.
    """
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise InputError(f"a condition of {len(text)} characters; {MAX_EXPRESSION_LENGTH} are the most")
    reader = _Reader(text)
    found = reader.alternatives(0)
    if reader.token is not None:
        reader.fail("'and', 'or' or the end")
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Reader:
    """Reads tokens from left to right; one method a level of precedence."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0

    @property
    def token(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def fail(self, expected: str) -> NoReturn:
        token = self.token
        position = token.position if token is not None else len(self._text)
        found = "the end" if token is None else repr(token.text[:40])
        _refuse(self._text, position, f"expected {expected}, found {found}")

    def alternatives(self, depth: int) -> Condition:
        parts = [self._joined(depth)]
        while self._take_word("or"):
            parts.append(self._joined(depth))
        return parts[0] if len(parts) == 1 else Junction(tuple(parts), is_all=False)

    def _joined(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._take_word("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Junction(tuple(parts), is_all=True)

    def _one(self, depth: int) -> Condition:
        if depth > MAX_EXPRESSION_DEPTH:
            token = self.token
            position = token.position if token is not None else len(self._text)
            _refuse(self._text, position, f"nested more than {MAX_EXPRESSION_DEPTH} deep")
        if self._take_word("not"):
            return Negation(self._one(depth + 1))
        if self._take("bracket", "("):
            inner = self.alternatives(depth + 1)
            if not self._take("bracket", ")"):
                self.fail("')'")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        field = self.token
        if field is None or field.kind != "word" or field.text.lower() not in _FIELDS:
            self.fail(f"a field ({', '.join(_FIELDS)}), 'not' or '('")
        self._next += 1
        name = field.text.lower()
        kind = _FIELDS[name][0]
        sign = self.token
        if sign is None or sign.kind != "operator" or sign.text not in _OPERATORS[kind]:
            self.fail(f"one of {' '.join(_OPERATORS[kind])} after {name!r}")
        self._next += 1
        return Comparison(name, sign.text, self._value(name, kind, sign.text))

    def _value(self, name: str, kind: Kind, sign: str) -> object:
        token = self.token
        if token is None or token.kind not in {"word", "text"}:
            self.fail("a value")
        self._next += 1
        text = _unquoted(token)
        unit = self.token
        if kind is Kind.SIZE and _NUMBER.fullmatch(text) and unit is not None and _UNIT.fullmatch(unit.text):
            self._next += 1
            text = f"{text} {unit.text}"
        try:
            return _read_value(name, kind, sign, text)
        except ValueError as problem:
            _refuse(self._text, token.position, str(problem))

    def _take_word(self, word: str) -> bool:
        token = self.token
        if token is None or token.kind != "word" or token.text.lower() != word:
            return False
        self._next += 1
        return True

    def _take(self, kind: str, text: str) -> bool:
        token = self.token
        if token is None or (token.kind, token.text) != (kind, text):
            return False
        self._next += 1
        return True


def _tokens(text: str) -> tuple[_Token, ...]:
    found, place = [], 0
    end = len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            what = "a quoted text has no end" if text[start] in "'\"" else f"{text[start]!r} means nothing here"
            _refuse(text, start, what)
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return tuple(found)


def _refuse(text: str, position: int, what: str) -> NoReturn:
    raise InputError(
        f"the condition is not understood at character {position + 1}: {what}",
        details=f"{text[:position][-60:]} >>> {text[position:][:60]}",
        resolution="Write as in: os = Debian and (arch = x86_64 or size < 4 GiB) and not title ~ '*test*'",
        context={"position": position + 1},
    )


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if token.kind == "text" else token.text


def _read_value(name: str, kind: Kind, sign: str, text: str) -> object:
    if kind is Kind.TEXT or sign == "~":
        return text.casefold()
    if kind is Kind.VERSION:
        return Version(text)
    if kind is Kind.SIZE:
        # Memory is counted in MiB where no unit is written, as image lists do.
        return int(text) * _MIB if name == "ram" and text.isascii() and text.isdigit() else parse_size(_sized(text))
    if kind is Kind.NUMBER:
        if not (text.isascii() and text.isdigit() and len(text) <= 9):  # noqa: PLR2004 - a billion cores are enough
            message = f"expected a whole number, found {text[:40]!r}"
            raise ValueError(message)
        return int(text)
    return _date(text)


def _sized(text: str) -> str:
    if len(text) > 40:  # noqa: PLR2004 - longer than any size
        message = f"expected a size, found {text[:40]!r}"
        raise ValueError(message)
    return text


def _date(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z, found {text[:40]!r}"
        raise ValueError(message) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _compare(kind: Kind, sign: str, found: object, wanted: object) -> bool | None:
    if found is None:
        return None
    if kind is Kind.TEXT or sign == "~":
        text = str(found).casefold()
        return _glob(str(wanted), text) if sign == "~" else text == wanted
    if kind is Kind.VERSION:
        try:
            found = Version(str(found))
        except ValueError:
            return None
    return _ORDER[sign](found, wanted)


def _glob(pattern: str, text: str) -> bool:
    """Tell whether ``pattern`` is all of ``text``: ``*`` is any text, ``?`` any character.

    Each piece between two stars is looked for once, from where the one before it ended: more than one place for a piece
    need never be tried.
    """
    first, *pieces = pattern.split("*")
    if not pieces:
        return len(text) == len(first) and _find(first, text, 0, len(text)) == 0
    last = pieces.pop()
    place, end = len(first), len(text) - len(last)
    if place > end or _find(first, text, 0, place) != 0 or _find(last, text, end, len(text)) != end:
        return False
    for piece in pieces:
        found = _find(piece, text, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True


def _find(piece: str, text: str, start: int, end: int) -> int:
    """Return where ``piece`` begins first between ``start`` and ``end``; -1: nowhere."""
    if "?" not in piece:
        return text.find(piece, start, end)
    found = re.compile(".".join(map(re.escape, piece.split("?"))), re.DOTALL).search(text, start, end)
    return -1 if found is None else found.start()


def _any(found: object) -> bool | None:
    said = list(found)  # type: ignore[call-overload]
    return True if True in said else None if None in said else False


def _mebibytes(count: int | None) -> int | None:
    return None if count is None else count * _MIB
