# SPDX-License-Identifier: Apache-2.0
"""JSON from elsewhere: read strictly, within limits, and say where something is wrong.

What the language allows and two readers take differently is refused: a key twice, ``NaN``, a lone surrogate, a byte
order mark, an encoding other than UTF-8, numbers and texts beyond any use.

A document is first looked at as a whole, which is quick; only where that leaves a doubt is each text looked at.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import NoReturn

from coppice.errors import DocumentError

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 16
MAX_TEXT_BYTES = 64 * 1024
MAX_VALUES = 1_000_000
"""A value that is written in two bytes takes a hundred in memory."""
_MAX_DIGITS = 40
_MAX_SHOWN_KEY = 80
# A quote after a backslash may be inside a text; any other begins or ends one.
_END_OF_TEXT = re.compile(rb'(?<!\\)"')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SCALARS = frozenset({str, int, float, bool, type(None)})
_Trail = tuple["_Trail | None", "str | int"]
"""Where a value stands: its parent's place, and the key or number below it."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the parsed document where something is refused, so that its place can be told."""

    reason: str


def refuse(path: str, reason: str, *, what: str = "document") -> NoReturn:
    """Say that ``what`` is wrong at ``path``.

    Raises:
        DocumentError: Always.
    """
    raise DocumentError(f"the {what} is malformed at {path}: {reason}", context={"path": path})


def read_json(
    payload: bytes,
    *,
    what: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_depth: int = MAX_DEPTH,
    max_text_bytes: int = MAX_TEXT_BYTES,
    max_values: int = MAX_VALUES,
) -> dict[str, object]:
    """Return the JSON object that ``payload`` holds.

    Args:
        payload: UTF-8 text.
        what: Names the document in errors.
        max_bytes: Longest accepted payload.
        max_depth: Deepest accepted nesting.
        max_text_bytes: Longest accepted text or key, in UTF-8.
        max_values: Most values, of objects and arrays together; a comma or bracket in a text counts as one.

    Raises:
        DocumentError: It is no JSON object, or one of those that are refused.
    """
    if len(payload) > max_bytes:
        refuse("$", f"it is longer than {max_bytes} bytes", what=what)
    if payload.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        refuse("$", "it starts with a byte order mark", what=what)
    if sum(map(payload.count, (b",", b"[", b"{"))) > max_values:
        refuse("$", f"it has more than {max_values} values", what=what)
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as problem:
        refuse("$", f"it is not UTF-8 text (byte {problem.start})", what=what)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=lambda name: _Refused(f"{name} is no JSON number"),
        )
    except RecursionError:
        refuse("$", f"it is nested deeper than {max_depth}", what=what)
    except json.JSONDecodeError as problem:
        refuse("$", f"it is not JSON: {problem.msg} in line {problem.lineno}, column {problem.colno}", what=what)
    if isinstance(document, _Refused):
        refuse("$", document.reason, what=what)
    if not isinstance(document, dict):
        refuse("$", "it is not a JSON object", what=what)
    if not (_texts_are_plain(payload, max_text_bytes) and _shape_is_plain(document, max_depth)):
        _inspect(document, what, max_depth, max_text_bytes)
    return document


def _object(pairs: list[tuple[str, object]]) -> dict[str, object] | _Refused:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return _Refused(f"the key {doubled[:_MAX_SHOWN_KEY]!a} stands there twice")
    return result


def _integer(text: str) -> int | _Refused:
    if len(text) > _MAX_DIGITS:
        return _Refused(f"a number of {len(text)} digits")
    return int(text)


def _fraction(text: str) -> float | _Refused:
    number = float(text)
    return number if math.isfinite(number) else _Refused("a number beyond every range")


def _texts_are_plain(payload: bytes, max_text_bytes: int) -> bool:
    """Tell whether no text can be longer than allowed, or hold half a character; False: it must be looked for.

    A text is never longer than the bytes that it is written with, and a longer one than allowed would cover one whole
    of the pieces that are looked at here, in which no text ends.
    """
    piece = max_text_bytes // 2
    if piece == 0 or _SURROGATE.search(payload):
        return False
    return all(
        _END_OF_TEXT.search(payload, start, start + piece) for start in range(0, len(payload) - piece + 1, piece)
    )


def _shape_is_plain(document: dict[str, object], max_depth: int) -> bool:
    """Tell whether nothing is nested too deep and nothing is refused; False: its place must be looked for."""
    level: list[object] = [document]
    for _ in range(max_depth):
        below: list[object] = []
        for value in level:
            if not isinstance(value, dict | list):
                return False
            members = value.values() if isinstance(value, dict) else value
            if not _SCALARS.issuperset(map(type, members)):
                below.extend(member for member in members if type(member) not in _SCALARS)
        if not below:
            return True
        level = below
    return False


def _inspect(document: dict[str, object], what: str, max_depth: int, max_text_bytes: int) -> None:
    pending: list[tuple[dict[str, object] | list[object], int, _Trail | None]] = [(document, 1, None)]
    while pending:
        value, depth, trail = pending.pop()
        if depth > max_depth:
            refuse(_path(trail)[:200], f"it is nested deeper than {max_depth}", what=what)
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, member in steps:
            if isinstance(step, str):
                _inspect_text(step, (trail, step), what, max_text_bytes)
            if isinstance(member, str):
                _inspect_text(member, (trail, step), what, max_text_bytes)
            elif isinstance(member, dict | list):
                pending.append((member, depth + 1, (trail, step)))
            elif isinstance(member, _Refused):
                refuse(_path((trail, step)), member.reason, what=what)


def _path(trail: _Trail | None) -> str:
    steps: list[str] = []
    while trail is not None:
        trail, step = trail
        # A key may hold anything; what is told of it is shown on terminals.
        shown = f"[{step}]" if isinstance(step, int) else "." + step[:_MAX_SHOWN_KEY].encode("unicode_escape").decode()
        steps.append(shown)
    return "".join(["$", *reversed(steps)])


def _inspect_text(text: str, trail: _Trail, what: str, max_text_bytes: int) -> None:
    if text.isascii():
        length = len(text)
    else:
        try:
            length = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            refuse(_path(trail), "a text with half a character", what=what)
    if length > max_text_bytes:
        refuse(_path(trail), f"a text longer than {max_text_bytes} bytes", what=what)
