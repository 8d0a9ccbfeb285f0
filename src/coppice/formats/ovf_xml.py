# SPDX-License-Identifier: Apache-2.0
"""The XML of an OVF descriptor, read within bounds: UTF-8, no document type, hence no entities of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import OvfError
from coppice.formats.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.parsers.expat import XMLParserType

MAX_DESCRIPTOR_BYTES = 1024 * 1024
_MAX_DEPTH = 64
_MAX_ELEMENTS = 20_000
_SEPARATOR = " "
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0", b"<\0", b"\x2b\x2f\x76", b"\x4c\x6f\xa7\x94")
"""How UTF-16, UTF-32, UTF-7 and EBCDIC begin."""
_WHY_BOUNDS = "a descriptor of one machine needs far less"


@dataclass(slots=True, kw_only=True)
class Element:
    """One element.

    Attributes:
        namespace: Its namespace; empty: none.
        tag: Its name there.
        attributes: By namespace and name.
        offset: Where it begins in the file, in bytes.
        children: What it holds.
        text: Its own text.
    """

    namespace: str
    tag: str
    attributes: dict[tuple[str, str], str]
    offset: int
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, namespace: str, tag: str) -> Iterator[Element]:
        """Yield the children of that name."""
        return (child for child in self.children if child.tag == tag and child.namespace == namespace)


def parse_xml(content: bytes, *, name: str, offset: int = 0) -> Element:
    """Return the root of a document.

    Args:
        content: All of it.
        name: Of the file, for messages.
        offset: Where the document begins in that file.

    Raises:
        OvfError: It is longer than 1 MiB, not UTF-8, no well-formed XML, or has a document type.
    """
    return _Parsing(name, offset).parse(content)


class _Parsing:
    """One document on its way to a tree."""

    def __init__(self, name: str, offset: int) -> None:
        self._name, self._offset = name, offset
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._root: Element | None = None
        self._elements = 0
        self._parser: XMLParserType | None = None

    def parse(self, content: bytes) -> Element:
        # No other parser is needed: what makes this one dangerous is a document type, and there is none.
        from xml.parsers import expat

        if len(content) > MAX_DESCRIPTOR_BYTES:
            self._refuse(f"the descriptor has {len(content)} bytes", why=_WHY_BOUNDS)
        if content.startswith(_OTHER_MARKS):
            self._refuse("the descriptor is not UTF-8", why="programs that look for something in it would miss it")
        parser = self._parser = expat.ParserCreate("UTF-8", _SEPARATOR)
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declared
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(content, True)  # noqa: FBT003 - the library takes it by place only
        except expat.ExpatError as problem:
            self._refuse(
                f"the descriptor is no well-formed XML: {expat.ErrorString(problem.code)}",
                why="each program would read something else",
                at=parser.ErrorByteIndex,
            )
        if self._root is None:
            self._refuse("the descriptor is empty", why="it says nothing")
        return self._root

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        del version, standalone
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            self._refuse(f"the descriptor is declared as {encoding[:40]!r}", why="UTF-8 alone is read", at=0)

    def _doctype(self, *_: object) -> NoReturn:
        self._refuse(
            "the descriptor has a document type",
            why="its entities may blow up without end, and bring files of this machine in",
            at=self._place(),
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > _MAX_ELEMENTS or len(self._open) >= _MAX_DEPTH:
            self._refuse("the descriptor has too many elements, or too deep ones", why=_WHY_BOUNDS, at=self._place())
        namespace, local = _split(tag)
        element = Element(
            namespace=namespace,
            tag=local,
            attributes={_split(key): value for key, value in attributes.items()},
            offset=self._offset + self._place(),
        )
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)
        self._texts.append([])

    def _end(self, tag: str) -> None:
        del tag
        self._open.pop().text = "".join(self._texts.pop())

    def _characters(self, data: str) -> None:
        if self._texts:
            self._texts[-1].append(data)

    def _place(self) -> int:
        return 0 if self._parser is None else max(0, self._parser.CurrentByteIndex)

    def _refuse(self, found: str, *, why: str, at: int = 0) -> NoReturn:
        raise refusal(OvfError, self._name, found, why=why, offset=self._offset + max(0, at))


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(_SEPARATOR)
    return namespace, local
