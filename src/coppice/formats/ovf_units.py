# SPDX-License-Identifier: Apache-2.0
"""Numbers and units of OVF descriptors (DMTF DSP0004, "Programmatic Units", and the words that older tools wrote)."""

from __future__ import annotations

import re

_MAX_DIGITS = 19
LARGEST = 2**63 - 1
"""The largest number that is believed."""
_PROGRAMMATIC = re.compile(r"bytes?(?: ?\* ?(2|10) ?\^ ?([0-9]{1,2}))?")
_MAX_EXPONENT = {2: 60, 10: 18}
_WORDS = {
    1: ("b",),
    2**10: ("kb", "kib", "kilobyte", "kilobytes", "kibibyte", "kibibytes"),
    2**20: ("mb", "mib", "megabyte", "megabytes", "mebibyte", "mebibytes"),
    2**30: ("gb", "gib", "gigabyte", "gigabytes", "gibibyte", "gibibytes"),
    2**40: ("tb", "tib", "terabyte", "terabytes", "tebibyte", "tebibytes"),
}
_FACTORS = {word: factor for factor, words in _WORDS.items() for word in words}


def whole_number(text: str) -> int | None:
    """Return the number that decimal digits write, below 2**63; None: they write none."""
    digits = text.strip(" \t\r\n")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS):
        return None
    number = int(digits)
    return number if number <= LARGEST else None


def bytes_per_unit(unit: str) -> int | None:
    """Return how many bytes a unit has: ``byte * 2^20``, ``MegaBytes``; None: it is not known."""
    words = " ".join(unit.lower().split())
    found = _PROGRAMMATIC.fullmatch(words)
    if found is None:
        return _FACTORS.get(words)
    if found[1] is None:
        return 1
    base, exponent = int(found[1]), int(found[2])
    return base**exponent if exponent <= _MAX_EXPONENT[base] else None
