# SPDX-License-Identifier: Apache-2.0
"""A long XML document of somebody else, read piece by piece, within bounds: no document type, hence no entities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from coppice.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from xml.parsers.expat import XMLParserType

MAX_ELEMENTS = 20_000_000
MAX_DEPTH = 32
MAX_GAP_BYTES = 4 * 1024 * 1024
"""Between the beginnings and ends of elements."""
MAX_NAMES = 4_096
"""Different names of elements and attributes in a document: the parser keeps each of them until its end."""
MAX_NAME_LENGTH = 256
"""Of a name, and of the address of a namespace, which stands before each name of it."""
MAX_ATTRIBUTES = 64
"""Of an element; as many prefixes may be in force at once."""
_PIECE_BYTES = 64 * 1024
"""What is handed to the parser at once; a tag or comment that is longer is refused before it is looked into."""
_SEPARATOR = " "
_DECLARATION, _DECLARATIONS = "xmlns", "xmlns:"
_OWN_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0", b"<\0")
"""How UTF-16 begins, which the parser takes whatever it is told."""
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class Reader(Protocol):
    """What is told of a document.

    A name is its namespace, a space and the name there; one without a namespace is the name alone.
    """

    root: str
    """What the outermost element must be called."""
    texts: frozenset[str]
    """The elements whose text is wanted: they hold nothing but text."""

    def start(self, depth: int, name: str, attributes: Mapping[str, str]) -> None:
        """Take the beginning of an element; ``depth`` of the outermost is 1."""
        ...

    def end(self, depth: int, name: str, text: str) -> None:
        """Take the end of an element, with its text where that is wanted."""
        ...


def read_xml(pieces: Iterable[bytes], reader: Reader, *, what: str) -> None:
    """Tell ``reader`` of a document.

    Args:
        pieces: Its bytes, in order.
        reader: Is told.
        what: Names the document in errors.

    Raises:
        DocumentError: It is not UTF-8, no well-formed XML, another document, has a document type, or is beyond bounds.
    """
    _Reading(reader, what).read(pieces)


@dataclass(slots=True, kw_only=True)
class _Scope:
    """What prefixes stand for, from an element on to its end."""

    depth: int
    namespaces: Mapping[str, str]
    elements: dict[str, str] = field(default_factory=dict)


class _Reading:
    def __init__(self, reader: Reader, what: str) -> None:
        # No other parser is needed: what makes this one dangerous is a document type, and there is none.
        from xml.parsers import expat

        self._reader, self._what = reader, what
        self._texts = reader.texts
        self._depth = self._elements = self._gap = 0
        self._fed = 0
        self._text: list[str] | None = None
        self._scope = _Scope(depth=0, namespaces={"": "", "xml": _OWN_NAMESPACE})
        self._scopes, self._names = [self._scope], self._scope.elements
        self._plain: set[str] = set()
        self._raw: dict[str, str] = {}
        self._error = expat.ExpatError
        # Told of namespaces, the parser would make a new text of each name, with the whole address before it, and keep
        # it for good.
        self._parser: XMLParserType = expat.ParserCreate("UTF-8", None, intern=self._raw)
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declared
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def read(self, pieces: Iterable[bytes]) -> None:
        try:
            for piece in _of_even_length(pieces):
                if not self._elements and piece.startswith(_OTHER_MARKS):
                    self._refuse("is not UTF-8")
                self._gap += len(piece)
                self._fed += len(piece)
                self._parser.Parse(piece, False)  # noqa: FBT003 - the library takes it by place only
                if self._gap > MAX_GAP_BYTES:
                    self._refuse(f"has more than {MAX_GAP_BYTES} bytes in one piece")
                # Up to where the parser stands all has been told; what follows waits for its end.
                waiting = self._fed - (self._parser.CurrentByteIndex if self._elements else 0)
                if waiting > _PIECE_BYTES:
                    self._refuse(f"has a tag or comment of more than {_PIECE_BYTES} bytes in one piece")
            self._parser.Parse(b"", True)  # noqa: FBT003 - likewise
        except self._error as problem:
            raise DocumentError(f"{self._what} is no well-formed XML: {problem}") from problem

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        del version, standalone
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            self._refuse(f"is declared as {encoding[:40]!r}; UTF-8 alone is read")

    def _doctype(self, *_: object) -> NoReturn:
        self._refuse("has a document type: its entities may grow without end, and bring files of this machine in")

    def _start(self, raw: str, attributes: dict[str, str]) -> None:
        self._gap = 0
        self._depth += 1
        self._elements += 1
        if self._elements > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            self._refuse("has too many elements, or too deep ones")
        if len(attributes) > MAX_ATTRIBUTES:
            self._refuse(f"has an element with too many attributes: {raw[:80]!r}")
        # Nearly all elements and attributes of a document are called like some before, the latter without a prefix.
        if not self._plain.issuperset(attributes):
            attributes = self._resolved(attributes)
        name = self._names.get(raw) or self._element(raw)
        if self._depth == 1 and name != self._reader.root:
            self._refuse(f"is another document: it begins with {name[:80]!r}")
        if name in self._texts:
            self._text = []
            self._parser.CharacterDataHandler = self._text.append
        self._reader.start(self._depth, name, attributes)

    def _end(self, raw: str) -> None:
        self._gap = 0
        text = ""
        if self._text is not None:
            text, self._text = "".join(self._text).strip(), None
            self._parser.CharacterDataHandler = None
        depth = self._depth
        self._reader.end(depth, self._names[raw], text)
        if depth == self._scope.depth:
            self._scopes.pop()
            self._enter(self._scopes[-1])
        self._depth = depth - 1

    def _enter(self, scope: _Scope) -> None:
        self._scope, self._names = scope, scope.elements

    def _element(self, raw: str) -> str:
        name = self._names[raw] = self._full(*self._parted(raw))
        return name

    def _resolved(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Return the attributes by their full names; what is declared among them is in force from here on."""
        self._require_few_names()
        declared = {
            raw.removeprefix(_DECLARATION).removeprefix(":"): value
            for raw, value in attributes.items()
            if raw == _DECLARATION or raw.startswith(_DECLARATIONS)
        }
        if declared:
            self._declare(declared)
        found: dict[str, str] = {}
        for raw, value in attributes.items():
            if raw == _DECLARATION or raw.startswith(_DECLARATIONS):
                continue
            prefix, local = self._parted(raw)
            name = self._full(prefix, local) if prefix else local
            if not prefix:
                self._plain.add(raw)
            if name in found:
                self._refuse(f"has an element with the attribute {name[:80]!r} twice")
            found[name] = value
        return found

    def _declare(self, declared: Mapping[str, str]) -> None:
        for prefix, address in declared.items():
            if len(prefix) > MAX_NAME_LENGTH or len(address) > MAX_NAME_LENGTH:
                self._refuse(f"has a namespace of more than {MAX_NAME_LENGTH} characters")
            is_own = prefix in {"xml", _DECLARATION} or address == _OWN_NAMESPACE
            if is_own or ":" in prefix or (prefix and not address) or any(each.isspace() for each in address):
                self._refuse(f"declares a namespace that is none: {prefix[:40]!r} as {address[:80]!r}")
        namespaces = {**self._scope.namespaces, **declared}
        if len(namespaces) > MAX_ATTRIBUTES:
            self._refuse("has too many names of namespaces")
        self._scopes.append(_Scope(depth=self._depth, namespaces=namespaces))
        self._enter(self._scopes[-1])

    def _require_few_names(self) -> None:
        if len(self._raw) > MAX_NAMES:
            self._refuse(f"has too many names: more than {MAX_NAMES} different ones")

    def _parted(self, raw: str) -> tuple[str, str]:
        self._require_few_names()
        if len(raw) > MAX_NAME_LENGTH:
            self._refuse(f"has a name of more than {MAX_NAME_LENGTH} characters")
        prefix, colon, local = raw.rpartition(":")
        if (colon and not prefix) or not local or ":" in prefix:
            self._refuse(f"has a name that is none: {raw[:80]!r}")
        return prefix, local

    def _full(self, prefix: str, local: str) -> str:
        address = self._scope.namespaces.get(prefix)
        if address is None:
            self._refuse(f"is no well-formed XML: unbound prefix {prefix[:80]!r}")
        return f"{address}{_SEPARATOR}{local}" if address else local

    def _refuse(self, found: str) -> NoReturn:
        raise DocumentError(f"{self._what} {found}")


def _of_even_length(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces of a good length: each one that does not end what is open is looked through from its beginning."""
    held = bytearray()
    for piece in pieces:
        held += piece
        for start in range(0, len(held) - _PIECE_BYTES + 1, _PIECE_BYTES):
            yield bytes(held[start : start + _PIECE_BYTES])
        del held[: len(held) - len(held) % _PIECE_BYTES]
    if held:
        yield bytes(held)
