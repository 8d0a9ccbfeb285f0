# SPDX-License-Identifier: Apache-2.0
"""The total order of version strings.

A version is split into runs of digits and runs of letters; anything else separates. Digits compare as numbers,
letters as text; ``~``, ``alpha``, ``beta`` and ``rc`` sort before the end of a version, letters otherwise after it
and before digits. So 1.9 < 1.10, 2.0~rc1 = 2.0-rc1 < 2.0 < 2.0.1, and 1.0 = 1-0 (separators do not count).
"""

from __future__ import annotations

import re
from functools import total_ordering

_RUNS = re.compile(r"\d+|[A-Za-z]+|~")
_DIGIT_OR_LETTER = re.compile(r"[\dA-Za-z]")
_BEFORE_END = {"~": 0, "alpha": 1, "beta": 2, "rc": 3}
_NAMED_MARKS = _BEFORE_END.keys() - {"~"}
# Kinds of run, in their order: a pre-release mark, the end of the version, letters, digits.
_PRE_RELEASE, _END, _LETTERS, _DIGITS = range(4)
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)", re.DOTALL)
MAX_VERSION_LENGTH = 256


@total_ordering
class Version:
    """A version string with its place in the order; equal order means equal version."""

    __slots__ = ("_key", "text")

    def __init__(self, text: str) -> None:
        """Read ``text``.

        Raises:
            ValueError: It is empty, longer than `MAX_VERSION_LENGTH`, or has neither digit nor letter.
        """
        runs = _RUNS.findall(text) if len(text) <= MAX_VERSION_LENGTH else []
        if not any(run != "~" for run in runs):
            message = f"not a version (1 to {MAX_VERSION_LENGTH} characters, with a digit or a letter): {text[:80]!r}"
            raise ValueError(message)
        self.text = text
        keys = [_run_key(run) for run in _without_doubled_marks(runs)]
        self._key = (*keys, (_END, 0, ""))

    @staticmethod
    def is_version(text: str) -> bool:
        """Tell whether ``text`` has a place in the order."""
        return 0 < len(text) <= MAX_VERSION_LENGTH and _DIGIT_OR_LETTER.search(text) is not None

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same place in the order."""
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        """Tell whether this version comes before ``other``."""
        return self._key < other._key

    def __hash__(self) -> int:
        """Hash by the place in the order."""
        return hash(self._key)

    def __str__(self) -> str:
        """Return the text as it was written."""
        return self.text

    def __repr__(self) -> str:
        """Return an expression that makes this version."""
        return f"Version({self.text!r})"


def _without_doubled_marks(runs: list[str]) -> list[str]:
    # "~rc1" and "-rc1" are the same pre-release: a tilde right before a named mark says nothing more.
    return [
        run
        for position, run in enumerate(runs)
        if not (run == "~" and position + 1 < len(runs) and runs[position + 1].lower() in _NAMED_MARKS)
    ]


def _run_key(run: str) -> tuple[int, int, str]:
    lowered = run.lower()
    if lowered in _BEFORE_END:
        return (_PRE_RELEASE, _BEFORE_END[lowered], "")
    if run.isdigit():
        return (_DIGITS, int(run), "")
    return (_LETTERS, 0, lowered)


def next_version(last: str | None) -> str:
    """Return the version that follows ``last`` of what is counted: its last number plus one, ``1`` without one before.

    The result comes after ``last`` in the order of versions. Of a version of the greatest length it may be no version.
    """
    if last is None:
        return "1"
    match = _LAST_NUMBER.search(last)
    if match is None:
        return f"{last}.1"
    return f"{last[: match.start()]}{int(match.group()) + 1:0{len(match.group())}d}{last[match.end() :]}"
