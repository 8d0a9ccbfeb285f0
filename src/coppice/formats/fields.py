# SPDX-License-Identifier: Apache-2.0
"""A JSON object's fields, taken one by one with their type; what was not taken can be kept."""

from __future__ import annotations

import contextlib
import functools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from coppice.formats.strict_json import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_DIGITS = 19
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_MAX_INTEGER = 2**63 - 1
_MAX_INSTANT_LENGTH = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_WORD_BYTES = 4096


class Fields:
    """The fields of one object, with the place where it stands.

    Args:
        members: The object.
        path: Where it stands in the document: in words, or as the object that holds it and the step from there. It
            is put into words when it is asked for.
        what: Names the document in errors.
    """

    __slots__ = ("_left", "_place", "_what")

    def __init__(self, members: Mapping[str, object], path: str | tuple[Fields, str], what: str) -> None:
        self._left = dict(members)
        self._place = path
        self._what = what

    @property
    def path(self) -> str:
        """Where the object stands in the document."""
        if isinstance(self._place, str):
            return self._place
        holder, step = self._place
        return f"{holder.path}.{step}"

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Say that the field ``key`` is wrong.

        Raises:
            DocumentError: Always.
        """
        refuse(f"{self.path}.{key}", reason, what=self._what)

    def lacks(self, key: str) -> bool:
        """Tell whether the field ``key`` is missing or null."""
        return self._left.get(key) is None

    def is_blank(self, key: str) -> bool:
        """Tell whether the field ``key`` is missing, null or an empty text."""
        value = self._left.get(key)
        # Not by membership of a set: a list or an object has no hash.
        return value is None or value == ""

    def is_array(self, key: str) -> bool:
        """Tell whether the field ``key`` is an array."""
        return isinstance(self._left.get(key), list)

    def peek(self, key: str) -> object:
        """Return the field ``key`` whatever it is, without taking it; None where there is none."""
        return self._left.get(key)

    def take(self, key: str) -> object:
        """Take the field ``key`` whatever it is; None where there is none. A field can be taken once."""
        return self._left.pop(key, None)

    def text(self, key: str, *, limit_bytes: int | None = None) -> str:
        """Take the text ``key``, which may be empty.

        Raises:
            DocumentError: It is missing, no text, or too long.
        """
        value = self._left.pop(key, None)
        if not isinstance(value, str):
            self._refuse_kind(key, value, "a text")
        if limit_bytes is not None and _is_longer(value, limit_bytes):
            self.refuse(key, f"a text longer than {limit_bytes} bytes")
        return value

    def text_or_empty(self, key: str, *, limit_bytes: int | None = None) -> str:
        """Take the text ``key``; the empty text where it is missing or null.

        Raises:
            DocumentError: It is no text, or too long.
        """
        value = self._left.pop(key, None)
        if value is None:
            return ""
        if not isinstance(value, str):
            self._refuse_kind(key, value, "a text")
        if limit_bytes is not None and _is_longer(value, limit_bytes):
            self.refuse(key, f"a text longer than {limit_bytes} bytes")
        return value

    def optional_text(self, key: str) -> str | None:
        """Take the text ``key``; None where it is missing, null or empty.

        Raises:
            DocumentError: It is no text.
        """
        value = self._left.pop(key, None)
        if isinstance(value, str):
            return value or None
        if value is None:
            return None
        return self._refuse_kind(key, value, "a text")

    def optional_label(self, key: str) -> str | None:
        """Take the text ``key``, or the whole number that stands for one; None where it is missing, null or empty.

        Raises:
            DocumentError: It is something else.
        """
        value = self._left.pop(key, None)
        if isinstance(value, str):
            return value or None
        if value is None:
            return None
        return str(value) if _is_whole(value) else self._refuse_kind(key, value, "a text")

    def word(self, key: str, *, limit_bytes: int = MAX_WORD_BYTES) -> str:
        """Take the text ``key``, which has no control characters and is not empty; a whole number will do.

        Raises:
            DocumentError: It is not that.
        """
        value = self._left.pop(key, None)
        if not isinstance(value, str):
            return str(value) if _is_whole(value) else self._refuse_kind(key, value, "a text")
        if _is_longer(value, limit_bytes):
            self.refuse(key, f"a text longer than {limit_bytes} bytes")
        text = value.strip()
        if not text:
            self.refuse(key, "it is empty")
        # The one question is quickly answered, and few texts need the other.
        if not text.isprintable() and _CONTROL.search(text):
            self.refuse(key, "it contains control characters")
        return text

    def integer(self, key: str, *, least: int = 0) -> int:
        """Take the whole number ``key``, written as a number or as a text of digits.

        Raises:
            DocumentError: It is missing or not that.
        """
        value = self._left.pop(key, None)
        number = _whole_number(value)
        if number is None:
            self._refuse_kind(key, value, "a whole number")
        if not least <= number <= _MAX_INTEGER:
            self.refuse(key, f"the number is not between {least} and {_MAX_INTEGER}")
        return number

    def optional_integer(self, key: str) -> int | None:
        """Take the whole number ``key``; None where it is missing, null or an empty text.

        Raises:
            DocumentError: It is something else.
        """
        value = self._left.pop(key, None)
        if value is None or value == "":
            return None
        number = _whole_number(value)
        if number is None:
            self._refuse_kind(key, value, "a whole number")
        if not 0 <= number <= _MAX_INTEGER:
            self.refuse(key, f"the number is not between 0 and {_MAX_INTEGER}")
        return number

    def integer_if_readable(self, key: str) -> int | None:
        """Take the whole number ``key``; None where it is none, and then it is not taken."""
        number = _whole_number(self._left.get(key))
        if number is None or not 0 <= number <= _MAX_INTEGER:
            return None
        del self._left[key]
        return number

    def instant(self, key: str) -> datetime:
        """Take the date and time ``key`` in UTC; fractions of a second and offsets are understood.

        Raises:
            DocumentError: It is missing, is no date, or has no time zone.
        """
        text = self.text(key)
        instant = read_instant(text) if len(text) <= _MAX_INSTANT_LENGTH else None
        if instant is None:
            self.refuse(key, f"a date such as 2026-11-24T10:00:00Z is needed, not {text.strip()[:40]!r}")
        return instant

    def optional_instant(self, key: str) -> datetime | None:
        """Take the date and time ``key``; None where it is missing, null or an empty text.

        Raises:
            DocumentError: It is something else.
        """
        if self.is_blank(key):
            self._left.pop(key, None)
            return None
        return self.instant(key)

    def group(self, key: str) -> Fields:
        """Take the fields of the object ``key``.

        Raises:
            DocumentError: It is missing or no object.
        """
        value = self.take(key)
        if not isinstance(value, dict):
            self._refuse_kind(key, value, "an object")
        return Fields(value, (self, key), self._what)

    def element(self, key: str, index: int, value: object) -> Fields:
        """Return the fields of ``value``, which is number ``index`` of the array ``key``.

        Raises:
            DocumentError: It is no object.
        """
        step = f"{key}[{index}]"
        if not isinstance(value, dict):
            self._refuse_kind(step, value, "an object")
        return Fields(value, (self, step), self._what)

    def array(self, key: str) -> list[object]:
        """Take the array ``key``.

        Raises:
            DocumentError: It is missing or no array.
        """
        value = self.take(key)
        if not isinstance(value, list):
            self._refuse_kind(key, value, "an array")
        return value

    def rest(self) -> dict[str, object]:
        """Return the fields that were not taken, as they were written."""
        # A new one: what was taken left its place behind.
        return dict(self._left) if self._left else {}

    def _refuse_kind(self, key: str, value: object, needed: str) -> NoReturn:
        if value is None:
            self.refuse(key, "it is missing")
        shown = repr(value[:40]) if isinstance(value, str) else kind_of(value)
        self.refuse(key, f"{needed} is needed, not {shown}")


@functools.lru_cache(maxsize=1024)
def read_instant(text: str) -> datetime | None:
    """Return the instant that ``text`` names, in UTC; None where it names none or has no time zone.

    The images of a list share few dates: what was read is remembered.
    """
    stripped = text.strip()
    if _INSTANT.fullmatch(stripped):
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.fromisoformat(stripped.upper()).astimezone(UTC)
    return None


def _is_longer(text: str, limit_bytes: int) -> bool:
    # No character takes more than four bytes.
    return len(text) * 4 > limit_bytes and len(text.encode()) > limit_bytes


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_number(value: object) -> int | None:
    """Return the whole number that ``value`` is, or is written as; None where it is none."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if len(digits) <= _MAX_DIGITS and digits.isdecimal() and digits.isascii() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def kind_of(value: object) -> str:
    """Return what kind of JSON value ``value`` is, in words."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
