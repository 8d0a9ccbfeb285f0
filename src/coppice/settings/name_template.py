# SPDX-License-Identifier: Apache-2.0
"""Templates of the names that images have in a cloud: fixed keys in braces, filled in as they are.

::

    {title} {version} [{vo}]

What is filled in is never read as a template, whatever it says; ``{{`` and ``}}`` stand for a brace.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ("title", "version", "os_distribution", "os_version", "architecture", "list", "image", "vo", "site")
"""What can be filled in."""
MAX_TEMPLATE_LENGTH = 500
_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<key>[^{}]*)\}|(?P<text>[^{}]+)|(?P<stray>[{}])")


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A template that was read.

    Attributes:
        pieces: Texts and keys in turn: (True, key) or (False, text).
    """

    pieces: tuple[tuple[bool, str], ...]

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with ``values`` in place of the keys; a key without a value is left out."""
        return "".join(values.get(text, "") if is_key else text for is_key, text in self.pieces)


def parse_template(text: str) -> NameTemplate:
    """Return the template that ``text`` is.

    Raises:
        ValueError: A key is unknown, a brace stands alone, there is no key at all, or it is too long.
    """
    if len(text) > MAX_TEMPLATE_LENGTH:
        message = f"a template of {len(text)} characters; {MAX_TEMPLATE_LENGTH} are the most"
        raise ValueError(message)
    pieces: list[tuple[bool, str]] = []
    for match in _PIECE.finditer(text):
        if match["stray"] is not None:
            message = f"{match['stray']!r} at character {match.start() + 1} stands alone; write it twice to mean itself"
            raise ValueError(message)
        if match["key"] is not None:
            pieces.append((True, _known(match["key"])))
        else:
            pieces.append((False, match["text"] if match["brace"] is None else match["brace"][0]))
    if not any(is_key for is_key, _ in pieces):
        message = f"{text[:80]!r} gives every image the same name; fill in {_listed()}"
        raise ValueError(message)
    return NameTemplate(tuple(pieces))


def _known(key: str) -> str:
    if key in KEYS:
        return key
    near = difflib.get_close_matches(key, KEYS, n=1)
    meant = f"; did you mean {{{near[0]}}}?" if near else f"; there are {_listed()}"
    message = f"there is no {{{key[:40]}}}{meant}"
    raise ValueError(message)


def _listed() -> str:
    return ", ".join(f"{{{key}}}" for key in KEYS)
