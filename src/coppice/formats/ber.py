# SPDX-License-Identifier: Apache-2.0
"""The outermost shape of an ASN.1 structure in BER or DER (ITU-T X.690), taken apart within bounds.

A parser that builds an object of every element can be made to fill the memory by a few bytes each. What comes from
outside is therefore first cut into its large pieces here, without recursion; only small pieces go on to a parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SEQUENCE = 0x30
SET = 0x31
OCTET_STRING = 0x04
CHUNKED_OCTET_STRING = 0x24
FIRST = 0xA0
"""The constructed context tag [0]."""
_CONSTRUCTED = 0x20
_HIGH_TAG = 0x1F
_INDEFINITE = 0x80
_MAX_LENGTH_OCTETS = 4
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Element:
    """One element: where its parts are in the data.

    Attributes:
        tag: The identifier octet; tags of several octets are refused.
        start: Of the whole element.
        content: Of the contents.
        end: Behind the contents.
        after: Behind the whole element.
    """

    tag: int
    start: int
    content: int
    end: int
    after: int


class Structure:
    """Data in BER.

    Args:
        data: What is read.
        max_elements: How many elements are looked at before the data is refused.
    """

    def __init__(self, data: bytes, *, max_elements: int = 300_000) -> None:
        self.data = data
        self._left = max_elements

    def root(self) -> Element:
        """Return the element that the whole data is.

        Raises:
            ValueError: It is malformed, or something follows it.
        """
        root = self._element(0, len(self.data))
        if root.after != len(self.data):
            raise ValueError("something follows the structure")
        return root

    def children(self, parent: Element) -> Iterator[Element]:
        """Yield the elements that ``parent`` consists of.

        Raises:
            ValueError: One is malformed, or there are too many.
        """
        position = parent.content
        while position < parent.end:
            child = self._element(position, parent.end)
            yield child
            position = child.after

    def whole(self, element: Element) -> bytes:
        """Return the bytes of ``element``, tag and length included."""
        return self.data[element.start : element.after]

    def contents(self, element: Element) -> bytes:
        """Return the contents of ``element``."""
        return self.data[element.content : element.end]

    def _element(self, start: int, limit: int) -> Element:
        tag, content, length = self._header(start, limit)
        if length is not None:
            return Element(tag, start, content, content + length, content + length)
        end = self._end_of_contents(content, limit)
        return Element(tag, start, content, end, end + 2)

    def _header(self, start: int, limit: int) -> tuple[int, int, int | None]:
        """Return tag, start of the contents and their length; None: the length is indefinite."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("the structure has too many elements")
        if start + 2 > limit:
            raise ValueError("the structure ends within an element")
        tag, first = self.data[start], self.data[start + 1]
        if tag & _HIGH_TAG == _HIGH_TAG:
            raise ValueError("a tag of several octets")
        content = start + 2
        if first == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise ValueError("an indefinite length where none may be")
            return tag, content, None
        length = first
        if first > _INDEFINITE:
            octets = first - _INDEFINITE
            if octets > _MAX_LENGTH_OCTETS or content + octets > limit:
                raise ValueError("the length of an element is malformed")
            length = int.from_bytes(self.data[content : content + octets], "big")
            content += octets
        if content + length > limit:
            raise ValueError("an element is longer than what is there")
        return tag, content, length

    def _end_of_contents(self, position: int, limit: int) -> int:
        depth = 1
        while True:
            if self.data[position : position + 2] == b"\0\0":
                depth -= 1
                if depth == 0:
                    return position
                position += 2
                continue
            _, content, length = self._header(position, limit)
            if length is None:
                depth += 1
                if depth > _MAX_DEPTH:
                    raise ValueError("the structure is nested too deeply")
                position = content
            else:
                position = content + length


def is_der_set(data: bytes) -> bool:
    """Tell whether ``data``, a set whatever its tag, is in DER throughout: the one encoding of what it says.

    Lengths are definite and minimal, and the members of each set are in ascending order (X.690, 10.1, 11.6).

    Raises:
        ValueError: It is malformed.
    """
    structure = Structure(data)
    root = structure.root()
    pending = [(root, True, 1)]
    while pending:
        element, is_set, depth = pending.pop()
        if depth > _MAX_DEPTH or not _has_der_length(element):
            return False
        if not element.tag & _CONSTRUCTED:
            continue
        children = list(structure.children(element))
        if is_set:
            encodings = [structure.whole(child) for child in children]
            if encodings != sorted(encodings):
                return False
        pending.extend((child, child.tag == SET, depth + 1) for child in children)
    return True


def _has_der_length(element: Element) -> bool:
    if element.after != element.end:
        return False
    length = element.end - element.content
    written = element.content - element.start - 1
    return written == (1 if length < _INDEFINITE else 1 + (length.bit_length() + 7) // 8)
