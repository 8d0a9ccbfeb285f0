# SPDX-License-Identifier: Apache-2.0
"""On which line of a TOML file each of its keys and values stands.

`tomllib` tells what a file says, not where. This only finds places, in a file that `tomllib` has taken: what it would
refuse needs no care here, and no value is made.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

KeyPath = tuple[str | int, ...]
"""Keys and positions that lead to a value: ``("file", 0, "mode")``."""

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?""""{0,2}', re.DOTALL),
    re.compile(r"'''.*?''''{0,2}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_QUOTES = ('"""', "'''", '"', "'")
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line (the first is 1) of each key, table and element of the TOML document ``text``.

    Args:
        text: A document that `tomllib.loads` takes.

    Raises:
        ValueError: It is none.
        RecursionError: It is nested too deeply.
    """
    return _Finder(text).find()


class _Finder:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._breaks = [match.start() for match in re.finditer("\n", self._text)]
        self._at = 0
        self._found: dict[KeyPath, int] = {}
        self._last: dict[KeyPath, int] = {}

    def find(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self._text):
            start = self._at
            if self._take("[["):
                key = self._key()
                self._expect("]]")
                table = self._enter_element(key, start)
            elif self._take("["):
                key = self._key()
                self._expect("]")
                table = self._enter(key, start)
            else:
                self._pair(table)
        return self._found

    def _enter(self, key: list[str], start: int) -> KeyPath:
        path: KeyPath = ()
        for part in key:
            path = (*path, part)
            self._note(path, start)
            # Within an array of tables, a header means its last element.
            if path in self._last:
                path = (*path, self._last[path])
        return path

    def _enter_element(self, key: list[str], start: int) -> KeyPath:
        path = (*self._enter(key[:-1], start), key[-1])
        self._note(path, start)
        self._last[path] = self._last.get(path, -1) + 1
        path = (*path, self._last[path])
        self._note(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            position = 0
            while not self._closed("]"):
                self._note((*path, position), self._at)
                self._value((*path, position))
                position += 1
                self._skip(_BLANK)
                self._take(",")
        elif self._take("{"):
            while not self._closed("}"):
                self._pair(path)
                self._skip(_BLANK)
                self._take(",")
        elif not self._string():
            self._match(_SCALAR)

    def _closed(self, bracket: str) -> bool:
        self._skip(_BLANK)
        return self._take(bracket)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            quoted = self._string()
            parts.append(str(tomllib.loads(f"k={quoted}")["k"]) if quoted else self._match(_BARE_KEY))
            self._skip(_SPACE)
            if not self._take("."):
                return parts

    def _string(self) -> str:
        for quote, pattern in zip(_QUOTES, _STRINGS, strict=True):
            if self._text.startswith(quote, self._at):
                return self._match(pattern)
        return ""

    def _note(self, path: KeyPath, start: int) -> None:
        self._found.setdefault(path, bisect_left(self._breaks, start) + 1)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            message = f"not TOML at character {self._at}"
            raise ValueError(message)
        self._at = found.end()
        return found[0]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            message = f"not TOML at character {self._at}"
            raise ValueError(message)
