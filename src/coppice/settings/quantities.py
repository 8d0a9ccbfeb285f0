# SPDX-License-Identifier: Apache-2.0
"""Sizes and durations as people write them (``8 GiB``, ``30 d``), and back."""

from __future__ import annotations

import math
import re

SIZE_UNITS = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST_DURATION_SECONDS = 100 * 366 * 86400.0
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([A-Za-z]*)")


def parse_size(value: object) -> int:
    """Return a number of bytes: a whole number, or text such as ``8 GiB``.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[2] or "B") not in SIZE_UNITS:
        raise ValueError(_expected('a size such as 1048576 or "8 GiB"', value))
    size = (
        float(match[1]) * SIZE_UNITS[match[2] or "B"]
        if "." in match[1]
        else int(match[1]) * SIZE_UNITS[match[2] or "B"]
    )
    if size != int(size):
        raise ValueError(_expected("a whole number of bytes", value))
    return int(size)


def parse_duration(value: object, *, bare_unit: str = "s") -> float:
    """Return a number of ``bare_unit``: a number of them, or text such as ``30 d``, ``90 min``.

    Raises:
        ValueError: It is neither, is negative, is not finite, or is longer than a hundred years.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(_bearable(value, bare_unit, value))
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[2] or bare_unit) not in DURATION_UNITS:
        unit = {"s": "seconds", "d": "days"}.get(bare_unit, bare_unit)
        raise ValueError(_expected(f'a duration such as 10 ({unit}) or "30 min", "6 h", "7 d"', value))
    count = float(match[1]) * DURATION_UNITS[match[2] or bare_unit] / DURATION_UNITS[bare_unit]
    return _bearable(count, bare_unit, value)


def _bearable(count: float, unit: str, value: object) -> float:
    # From any instant that is met, so long a time ends before the last year that a date can have.
    if count > LONGEST_DURATION_SECONDS / DURATION_UNITS[unit]:
        raise ValueError(_expected("a duration of at most a hundred years", value))
    return count


def format_size(size_bytes: int) -> str:
    """Return a size for people, to three figures, in binary units."""
    if size_bytes < SIZE_UNITS["KiB"]:
        return f"{size_bytes} B"
    value, unit = float(size_bytes), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit that the loop stops at is the one that fits
        value /= 1024
        if value < 1024:  # noqa: PLR2004 - the next unit starts here
            break
    digits = 0 if value == int(value) or value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004 - three figures
    return f"{value:.{digits}f} {unit}"


def format_duration(seconds: float) -> str:
    """Return a duration for people: its two largest units."""
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    if rest < 10:  # noqa: PLR2004 - below ten seconds the tenth counts
        return f"{sign}{rest:.1f} s".replace(".0 s", " s")
    whole = round(rest)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return sign + " ".join(parts[:2])


def shown(value: object) -> str:
    """Return what was found, for a message: its kind, and its text when that is short and plain."""
    kind = {bool: "true/false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a table"}
    name = kind.get(type(value), type(value).__name__)
    return f"{name} {value!r}"[:100] if isinstance(value, (bool, int, float, str)) else name


def _expected(what: str, value: object) -> str:
    return f"expected {what}, found {shown(value)}"
