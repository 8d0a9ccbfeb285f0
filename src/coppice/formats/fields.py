# SPDX-License-Identifier: Apache-2.0
"""A JSON object's fields, taken one by one with their type; what was not taken can be kept."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from coppice.formats.strict_json import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTEGER = re.compile(r"\d{1,19}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)")
_MAX_INTEGER = 2**63 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Fields:
    """The fields of one object, with the place where it stands.

    Args:
        members: The object.
        path: Where it stands in the document.
        what: Names the document in errors.
    """

    def __init__(self, members: Mapping[str, object], path: str, what: str) -> None:
        self.path = path
        self._members = members
        self._what = what
        self._taken: set[str] = set()

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Say that the field ``key`` is wrong.

        Raises:
            DocumentError: Always.
        """
        refuse(f"{self.path}.{key}", reason, what=self._what)

    def take(self, key: str) -> object:
        """Return the field ``key`` whatever it is; None where there is none."""
        self._taken.add(key)
        return self._members.get(key)

    def text(self, key: str, *, limit_bytes: int | None = None, empty: bool = True) -> str:
        """Return the text ``key``.

        Raises:
            DocumentError: It is missing, no text, too long, or empty although it must not be.
        """
        value = self.take(key)
        if value is None:
            self.refuse(key, "it is missing")
        if not isinstance(value, str):
            self.refuse(key, f"a text is needed, not {_kind(value)}")
        if limit_bytes is not None and len(value.encode()) > limit_bytes:
            self.refuse(key, f"a text longer than {limit_bytes} bytes")
        if not empty and not value.strip():
            self.refuse(key, "it is empty")
        return value

    def word(self, key: str, *, limit_bytes: int = 4096) -> str:
        """Return the text ``key``, which has no control characters and is not empty; a whole number will do.

        Raises:
            DocumentError: It is not that.
        """
        value = self.take(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        text = self.text(key, limit_bytes=limit_bytes, empty=False).strip()
        if _CONTROL.search(text):
            self.refuse(key, "it contains control characters")
        return text

    def optional_text(self, key: str) -> str | None:
        """Return the text ``key``; None where it is missing, null or empty.

        Raises:
            DocumentError: It is no text.
        """
        if self.take(key) is None:
            return None
        return self.text(key) or None

    def integer(self, key: str, *, least: int = 0) -> int:
        """Return the whole number ``key``, written as a number or as a text of digits.

        Raises:
            DocumentError: It is missing or not that.
        """
        value = self.take(key)
        if value is None:
            self.refuse(key, "it is missing")
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) and value.isascii():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            shown = f"not {value[:40]!r}" if isinstance(value, str) else f"not {_kind(value)}"
            self.refuse(key, f"a whole number is needed, {shown}")
        if not least <= value <= _MAX_INTEGER:
            self.refuse(key, f"the number is not between {least} and {_MAX_INTEGER}")
        return value

    def optional_integer(self, key: str) -> int | None:
        """Return the whole number ``key``; None where it is missing, null or an empty text.

        Raises:
            DocumentError: It is something else.
        """
        return None if self._is_blank(key) else self.integer(key)

    def instant(self, key: str) -> datetime:
        """Return the date and time ``key`` in UTC; fractions of a second and offsets are understood.

        Raises:
            DocumentError: It is missing, is no date, or has no time zone.
        """
        text = self.text(key).strip()
        if _INSTANT.fullmatch(text):
            with contextlib.suppress(ValueError, OverflowError):
                return datetime.fromisoformat(text.upper()).astimezone(UTC)
        return self.refuse(key, f"a date such as 2026-11-24T10:00:00Z is needed, not {text[:40]!r}")

    def optional_instant(self, key: str) -> datetime | None:
        """Return the date and time ``key``; None where it is missing, null or an empty text.

        Raises:
            DocumentError: It is something else.
        """
        return None if self._is_blank(key) else self.instant(key)

    def _is_blank(self, key: str) -> bool:
        value = self.take(key)
        # Not by membership of a set: a list or an object has no hash.
        return value is None or value == ""

    def group(self, key: str) -> Fields:
        """Return the fields of the object ``key``.

        Raises:
            DocumentError: It is missing or no object.
        """
        value = self.take(key)
        if not isinstance(value, dict):
            self.refuse(key, "it is missing" if value is None else f"an object is needed, not {_kind(value)}")
        return Fields(value, f"{self.path}.{key}", self._what)

    def array(self, key: str) -> list[object]:
        """Return the array ``key``.

        Raises:
            DocumentError: It is missing or no array.
        """
        value = self.take(key)
        if not isinstance(value, list):
            self.refuse(key, "it is missing" if value is None else f"an array is needed, not {_kind(value)}")
        return value

    def rest(self) -> dict[str, object]:
        """Return the fields that were not taken, as they were written."""
        return {key: value for key, value in self._members.items() if key not in self._taken}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
