# SPDX-License-Identifier: Apache-2.0
"""Versions of RPM packages, in RPM's order (rpm-version(7)): ``[epoch:]version[-release]``.

A part is runs of digits and runs of letters; all other signs only part them. ``~`` sorts before the end, ``^`` after
it and before all that goes on; letters sort before digits.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 1024
_WHOLE = re.compile(r"(?:([0-9]{1,10}):)?([^\s:-]+)(?:-([^\s:-]+))?", re.ASCII)
_LARGEST_EPOCH = 2**32 - 1
_PIECE = re.compile(r"[~^]|[A-Za-z]+|[0-9]+", re.ASCII)
_TILDE, _END, _CARET, _LETTERS, _DIGITS = range(5)
_Part = tuple[tuple[Any, ...], ...]


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class RpmVersion:
    """A version of an RPM package.

    Attributes:
        text: As it was written.

    Raises:
        ValueError: The text is no such version.
    """

    text: str

    def __post_init__(self) -> None:
        """Refuse what has not the form of one."""
        split_rpm_version(self.text)

    def __eq__(self, other: object) -> bool:
        """Tell whether RPM takes both for the same version."""
        return _key(self.text) == _key(other.text) if isinstance(other, RpmVersion) else NotImplemented

    def __lt__(self, other: RpmVersion) -> bool:
        """Tell whether RPM takes this for the older version."""
        return _key(self.text) < _key(other.text)

    def __hash__(self) -> int:
        """Return the same for versions that are equal."""
        return hash(_key(self.text))

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    @property
    def has_release(self) -> bool:
        """Whether it says a release; what a package obsoletes is often said without one."""
        return bool(split_rpm_version(self.text)[2])

    @property
    def without_release(self) -> RpmVersion:
        """The same without its release."""
        epoch, version, _ = split_rpm_version(self.text)
        return RpmVersion(f"{epoch}:{version}")


def split_rpm_version(text: str) -> tuple[int, str, str]:
    """Return epoch, version and release; what is not written is 0 or empty.

    Raises:
        ValueError: The text is no version of an RPM package.
    """
    found = _WHOLE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None or int(found[1] or 0) > _LARGEST_EPOCH:
        message = f"no version of an RPM package: {text[:80]!r}"
        raise ValueError(message)
    return int(found[1] or 0), found[2], found[3] or ""


@functools.lru_cache(maxsize=16384)
def _key(text: str) -> tuple[int, _Part, _Part]:
    epoch, version, release = split_rpm_version(text)
    return epoch, _part(version), _part(release)


def _part(text: str) -> _Part:
    return (*(_weighed(piece) for piece in _PIECE.findall(text)), (_END,))


def _weighed(piece: str) -> tuple[Any, ...]:
    if piece in "~^":
        return (_TILDE if piece == "~" else _CARET,)
    if piece[0].isdigit():
        digits = piece.lstrip("0")
        return (_DIGITS, len(digits), digits)
    return (_LETTERS, piece)
