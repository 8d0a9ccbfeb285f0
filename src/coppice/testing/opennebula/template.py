# SPDX-License-Identifier: Apache-2.0
"""OpenNebula's templates: read from their text form or from XML as ``oned`` reads them, its faults included.

The text form cannot carry every value: a quoted value goes on at each quote that a backslash precedes, as long as
another quote follows; an unterminated quote is taken as part of a word; a value with ``]]>`` ends the reading. What
comes as XML is kept as it is; but whatever is kept is written into CDATA sections as it stands, so that a value with
``]]>`` makes an object that cannot be written, and is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from coppice.testing.opennebula.refusal import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Value = str | Mapping[str, str]

_PLAIN = (
    (re.compile(r"[ \t]*#.*\n"), None),
    (re.compile(r"[ \t\n]+"), None),
    (re.compile(r"[A-Za-z0-9_]+"), "VARIABLE"),
    (re.compile(r"[ \t]*=[ \t]*"), "EQUAL"),
    (re.compile(r"[ \t]*=[ \t]*\n"), "EQUAL_EMPTY"),
    (re.compile(r"[ \t\n]*,[ \t\n]*"), "COMMA"),
    (re.compile(r"[ \t\n]*\][ \t\n]*"), "CBRACKET"),
)
_VALUE = (
    (re.compile(r"[ \t]*\[[ \t\n]*"), "OBRACKET"),
    (re.compile(r".*\]\]>.*"), "CCDATA"),
    (re.compile(r'"[^"]*(?:(?<=\\)"[^"]*)*"'), "QUOTED"),
    (re.compile(r"[^=#\s,\[\]]+"), "STRING"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    line: int
    first: int
    last: int


@dataclass(slots=True)
class Template:
    """Attributes by name; a name may come several times.

    Attributes:
        entries: Name, in capitals, and value.
    """

    entries: list[tuple[str, Value]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Template:
        """Return what ``text`` says, which is XML when its first character is ``<``.

        Raises:
            Refusal: It cannot be read.
        """
        if text.startswith("<"):
            return cls(_xml_entries(text))
        return cls(list(_Parser(text).attributes()))

    def first(self, name: str) -> str:
        """Return the first simple value of that name; empty when there is none."""
        return next((value for key, value in self.entries if key == name and isinstance(value, str)), "")

    def all(self, name: str) -> list[Value]:
        """Return every value of that name."""
        return [value for key, value in self.entries if key == name]

    def take(self, name: str) -> str:
        """Return the first simple value of that name, and take all of that name away."""
        found = self.first(name)
        self.drop(name)
        return found

    def drop(self, name: str) -> None:
        """Take all of that name away."""
        self.entries = [(key, value) for key, value in self.entries if key != name]

    def put(self, name: str, value: Value) -> None:
        """Set the one value of that name."""
        self.drop(name)
        self.entries.append((name, value))

    def merged(self, other: Template) -> Template:
        """Return these attributes, with those of ``other`` instead of all of the same names."""
        names = {name for name, _ in other.entries}
        return Template([each for each in self.entries if each[0] not in names] + other.entries)

    def xml(self, tag: str = "TEMPLATE") -> str:
        """Return it as `oned` writes it: sorted by name, each value in a CDATA section as it stands."""
        parts: list[str] = []
        for name, value in sorted(self.entries, key=lambda entry: entry[0]):
            if isinstance(value, str):
                parts.append(f"<{name}><![CDATA[{value}]]></{name}>")
            else:
                inner = "".join(f"<{key}><![CDATA[{each}]]></{key}>" for key, each in sorted(value.items()))
                parts.append(f"<{name}>{inner}</{name}>")
        return f"<{tag}>{''.join(parts)}</{tag}>"

    def check(self, kind: str, code: Code) -> None:
        """Refuse what cannot be written.

        Raises:
            Refusal: It is no XML when it is written.
        """
        try:
            ET.fromstring(self.xml())  # noqa: S314 - it is this module's own
        except (ET.ParseError, ValueError) as problem:
            raise Refusal(code, f"Error transforming the {kind} to XML.") from problem


def _name(name: str) -> str:
    upper = name.upper()
    return f"ONE_{upper}" if not name[:1].isalpha() or name.startswith("XML") else upper


def _xml_entries(text: str) -> list[tuple[str, Value]]:
    malformed = Refusal(Code.INTERNAL, "XML Template malformed")
    if "<!DOCTYPE" in text:
        raise malformed
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities to expand
    except (ET.ParseError, ValueError) as problem:
        raise malformed from problem
    entries: list[tuple[str, Value]] = []
    for element in root:
        if len(element):
            entries.append((_name(element.tag), {child.tag.upper(): child.text or "" for child in element}))
        else:
            entries.append((_name(element.tag), element.text or ""))
    return entries


class _Parser:
    """The grammar: attributes, each a name, an equals sign, and a value or a list of named values in brackets."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def attributes(self) -> Iterator[tuple[str, Value]]:
        while (token := self._next()).kind != "end":
            if token.kind != "VARIABLE":
                raise _syntax(token, ("VARIABLE",) if self._at > 1 else ())
            sign = self._next()
            if sign.kind == "EQUAL_EMPTY":
                yield _name(token.text), ""
                continue
            if sign.kind != "EQUAL":
                raise _syntax(sign, ("EQUAL", "EQUAL_EMPTY"))
            value = self._next()
            if value.kind == "STRING":
                yield _name(token.text), _unescaped(value.text)
            elif value.kind == "OBRACKET":
                yield _name(token.text), self._list()
            elif value.kind == "CCDATA":
                raise Refusal(Code.INTERNAL, "Parse error: ")
            else:
                raise _syntax(value, ("OBRACKET", "CCDATA", "STRING"))

    def _list(self) -> dict[str, str]:
        found: dict[str, str] = {}
        token = self._next()
        if token.kind == "CBRACKET":
            return found
        while True:
            if token.kind != "VARIABLE":
                raise _syntax(token, ("CBRACKET", "VARIABLE"))
            sign = self._next()
            if sign.kind != "EQUAL":
                raise _syntax(sign, ("EQUAL",))
            value = self._next()
            if value.kind != "STRING":
                raise _syntax(value, ("STRING",))
            found.setdefault(token.text.upper(), _unescaped(value.text))
            token = self._next()
            if token.kind == "CBRACKET":
                return found
            if token.kind != "COMMA":
                raise _syntax(token, ("COMMA", "CBRACKET"))
            token = self._next()

    def _next(self) -> _Token:
        token = self._tokens[min(self._at, len(self._tokens) - 1)]
        self._at += 1
        return token


def _tokens(text: str) -> Iterator[_Token]:
    at, column, line = 0, 1, 0
    rules: tuple[tuple[re.Pattern[str], str | None], ...] = _PLAIN
    while at < len(text):
        best: tuple[int, str | None] = (0, None)
        for pattern, kind in rules:
            match = pattern.match(text, at)
            if match is not None and match.end() - at > best[0]:
                best = (match.end() - at, kind)
        # What no rule knows is passed over, one character at a time.
        length, kind = best[0] or 1, best[1]
        piece = text[at : at + length]
        line += piece.count("\n")
        if kind is not None:
            rules = _VALUE if kind == "EQUAL" else _PLAIN
            is_quoted = kind == "QUOTED"
            yield _Token(
                kind="STRING" if is_quoted else kind,
                text=piece[1:-1] if is_quoted else piece,
                line=line,
                first=column,
                last=column + length,
            )
        at, column = at + length, column + length
    yield _Token(kind="end", text="", line=line, first=column, last=column)


def _unescaped(value: str) -> str:
    return value.replace('\\"', '"')


def _syntax(token: _Token, expected: tuple[str, ...]) -> Refusal:
    found = "end of file" if token.kind == "end" else token.kind
    wanted = f", expecting {' or '.join(expected)}" if expected else ""
    return Refusal(
        Code.INTERNAL,
        f"Parse error: syntax error, unexpected {found}{wanted} "
        f"at line {token.line}, columns {token.first}:{token.last}",
    )
