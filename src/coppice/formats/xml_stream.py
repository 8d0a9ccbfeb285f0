# SPDX-License-Identifier: Apache-2.0
"""A long XML document of somebody else, read piece by piece, within bounds: no document type, hence no entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

from coppice.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from xml.parsers.expat import XMLParserType

MAX_ELEMENTS = 20_000_000
MAX_DEPTH = 32
MAX_GAP_BYTES = 4 * 1024 * 1024
"""Between the beginnings and ends of elements: some parsers take ever longer over a piece that does not end."""
_PIECE_BYTES = 256 * 1024
_SEPARATOR = " "
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


class _Reading:
    def __init__(self, reader: Reader, what: str) -> None:
        # No other parser is needed: what makes this one dangerous is a document type, and there is none.
        from xml.parsers import expat

        self._reader, self._what = reader, what
        self._texts = reader.texts
        self._depth = self._elements = self._gap = 0
        self._text: list[str] | None = None
        self._error = expat.ExpatError
        self._parser: XMLParserType = expat.ParserCreate("UTF-8", _SEPARATOR)
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
                self._parser.Parse(piece, False)  # noqa: FBT003 - the library takes it by place only
                if self._gap > MAX_GAP_BYTES:
                    self._refuse(f"has more than {MAX_GAP_BYTES} bytes in one piece")
            self._parser.Parse(b"", True)  # noqa: FBT003 - likewise
        except self._error as problem:
            raise DocumentError(f"{self._what} is no well-formed XML: {problem}") from problem

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        del version, standalone
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            self._refuse(f"is declared as {encoding[:40]!r}; UTF-8 alone is read")

    def _doctype(self, *_: object) -> NoReturn:
        self._refuse("has a document type: its entities may grow without end, and bring files of this machine in")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._gap = 0
        self._depth += 1
        self._elements += 1
        if self._elements > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            self._refuse("has too many elements, or too deep ones")
        if self._depth == 1 and name != self._reader.root:
            self._refuse(f"is another document: it begins with {name[:80]!r}")
        if name in self._texts:
            self._text = []
            self._parser.CharacterDataHandler = self._text.append
        self._reader.start(self._depth, name, attributes)

    def _end(self, name: str) -> None:
        self._gap = 0
        text = ""
        if self._text is not None:
            text, self._text = "".join(self._text).strip(), None
            self._parser.CharacterDataHandler = None
        self._reader.end(self._depth, name, text)
        self._depth -= 1

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
