# SPDX-License-Identifier: Apache-2.0
"""XML that libvirt gives, read within bounds into a small tree: no document type, hence no entities of its own.

Thousands of definitions are read at a time: what nobody asks for is left out of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

from coppice.errors import CloudAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 4 * 1024 * 1024
"""What one text of libvirt's protocol holds (``VIR_NET_MESSAGE_STRING_MAX``)."""
_MAX_DEPTH = 64
_MAX_ELEMENTS = 20_000
_SEPARATOR = " "
_HARDWARE = "devices"
_DISK = "disk"


@dataclass(slots=True)
class Element:
    """One element.

    Attributes:
        tag: Its name, after its namespace and a blank where it has one.
        attributes: By name.
        children: What it holds.
        text: Its own text.
    """

    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> Iterator[Element]:
        """Yield the children of that name."""
        return (child for child in self.children if child.tag == tag)

    def text_of(self, tag: str) -> str:
        """Return the text of the first child of that name; empty: there is none."""
        return next((child.text for child in self.all(tag)), "")


def parse(xml: str, of: str) -> Element:
    """Return the root of a document; of a machine's devices, the disks alone.

    Args:
        xml: All of it.
        of: What it describes, for messages.

    Raises:
        CloudAnswerError: It is too long or too deep, no well-formed XML, or has a document type.
    """
    return _Parsing(of, xml).root()


class _Parsing:
    """One document on its way to a tree."""

    def __init__(self, of: str, xml: str) -> None:
        self._of, self._xml = of, xml
        self._top = Element("", {})
        self._open = [self._top]
        self._texts: list[str] = []
        self._elements = 0
        self._left_out = 0

    def root(self) -> Element:
        content = self._xml.encode("utf-8", "replace")
        if len(content) > MAX_BYTES:
            raise self._refusal(f"it has {len(content)} bytes")
        parser = expat.ParserCreate("UTF-8", _SEPARATOR)
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(content, True)  # noqa: FBT003 - the library takes it by place only
        except expat.ExpatError as problem:
            raise self._refusal(expat.ErrorString(problem.code)) from problem
        return self._top.children[0]

    def _doctype(self, *_: object) -> None:
        raise self._refusal("it has a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._left_out or (self._open[-1].tag == _HARDWARE and tag != _DISK):
            self._left_out += 1
        else:
            element = Element(tag, attributes)
            self._open[-1].children.append(element)
            self._open.append(element)
        if self._elements > _MAX_ELEMENTS or len(self._open) + self._left_out > _MAX_DEPTH:
            raise self._refusal("it has too many elements, or too deep ones")
        self._texts.clear()

    def _end(self, tag: str) -> None:
        del tag
        if self._left_out:
            self._left_out -= 1
        else:
            # The text before a child, and between children, is white space: it is not kept.
            self._open.pop().text = "".join(self._texts)
        self._texts.clear()

    def _characters(self, data: str) -> None:
        self._texts.append(data)

    def _refusal(self, found: str) -> CloudAnswerError:
        return CloudAnswerError(
            f"what libvirt says of {self._of} cannot be read: {found}",
            details=self._xml[:2000],
            resolution="Nothing was changed. Look at it with virsh.",
        )
