# SPDX-License-Identifier: Apache-2.0
"""JSON from elsewhere: read strictly, within limits, and say where something is wrong.

What the language allows and two readers take differently is refused: a key twice, ``NaN``, a lone surrogate, a byte
order mark, an encoding other than UTF-8, numbers and texts beyond any use.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import NoReturn

from coppice.errors import DocumentError

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 16
MAX_TEXT_BYTES = 64 * 1024
_MAX_DIGITS = 40


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
    payload: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES, max_depth: int = MAX_DEPTH
) -> dict[str, object]:
    """Return the JSON object that ``payload`` holds.

    Args:
        payload: UTF-8 text.
        what: Names the document in errors.
        max_bytes: Longest accepted payload.
        max_depth: Deepest accepted nesting.

    Raises:
        DocumentError: It is no JSON object, or one of those that are refused.
    """
    if len(payload) > max_bytes:
        refuse("$", f"it is longer than {max_bytes} bytes", what=what)
    if payload.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        refuse("$", "it starts with a byte order mark", what=what)
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
    _inspect(document, what, max_depth)
    return document


def _object(pairs: list[tuple[str, object]]) -> dict[str, object] | _Refused:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return _Refused(f"the key {doubled[:80]!a} stands there twice")
    return result


def _integer(text: str) -> int | _Refused:
    if len(text) > _MAX_DIGITS:
        return _Refused(f"a number of {len(text)} digits")
    return int(text)


def _fraction(text: str) -> float | _Refused:
    number = float(text)
    return number if math.isfinite(number) else _Refused("a number beyond every range")


def _inspect(document: dict[str, object], what: str, max_depth: int) -> None:
    pending: list[tuple[str, object, int]] = [("$", document, 1)]
    while pending:
        path, value, depth = pending.pop()
        if isinstance(value, str):
            _inspect_text(path, value, what)
        elif isinstance(value, _Refused):
            refuse(path, value.reason, what=what)
        elif isinstance(value, dict | list):
            if depth > max_depth:
                refuse(path[:200], f"it is nested deeper than {max_depth}", what=what)
            if isinstance(value, list):
                pending.extend((f"{path}[{index}]", member, depth + 1) for index, member in enumerate(value))
                continue
            for key, member in value.items():
                _inspect_text(path, key, what)
                pending.append((f"{path}.{key[:80]}", member, depth + 1))


def _inspect_text(path: str, text: str, what: str) -> None:
    if text.isascii():
        length = len(text)
    else:
        try:
            length = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            refuse(path.encode("ascii", "backslashreplace").decode(), "a text with half a character", what=what)
    if length > MAX_TEXT_BYTES:
        refuse(path, f"a text longer than {MAX_TEXT_BYTES} bytes", what=what)
