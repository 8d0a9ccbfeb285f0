# SPDX-License-Identifier: Apache-2.0
"""Versions of Debian's packages, in dpkg's order (deb-version(7)): ``[epoch:]upstream[-revision]``.

It is another order than that of `coppice.model.version.Version`: ``~`` sorts before everything, even before the end,
and letters sort before all other signs.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

_EPOCH = re.compile(r"[0-9]{1,10}", re.ASCII)
_UPSTREAM = re.compile(r"[0-9A-Za-z.+~:-]+", re.ASCII)
_REVISION = re.compile(r"[0-9A-Za-z.+~]+", re.ASCII)
_MAX_LENGTH = 1024
_LARGEST_EPOCH = 2**31 - 1
_RUN = re.compile(r"([^0-9]*)([0-9]*)", re.ASCII)
# After the last sign of a run of non-digits comes the end, which sorts between ``~`` and letters.
_END = 0
_Run = tuple[tuple[int, ...], int]
_NOTHING: _Run = ((_END,), 0)


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class DebVersion:
    """A version of a Debian package.

    Attributes:
        text: As it was written.

    Raises:
        ValueError: The text is no such version.
    """

    text: str

    def __post_init__(self) -> None:
        """Refuse what dpkg would refuse."""
        split_deb_version(self.text)

    def __eq__(self, other: object) -> bool:
        """Tell whether dpkg takes both for the same version."""
        return _key(self.text) == _key(other.text) if isinstance(other, DebVersion) else NotImplemented

    def __lt__(self, other: DebVersion) -> bool:
        """Tell whether dpkg takes this for the older version."""
        (epoch, *parts), (other_epoch, *other_parts) = _key(self.text), _key(other.text)
        if epoch != other_epoch:
            return epoch < other_epoch
        for own, foreign in zip(parts, other_parts, strict=True):
            for one, two in itertools.zip_longest(own, foreign, fillvalue=_NOTHING):
                if one != two:
                    return one < two
        return False

    def __hash__(self) -> int:
        """Return the same for versions that are equal."""
        return hash(_key(self.text))

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text


def split_deb_version(text: str) -> tuple[int, str, str]:
    """Return epoch, upstream version and revision; what is not written is 0 or empty.

    Raises:
        ValueError: The text is no version of a Debian package.
    """
    said, colon, rest = text[: _MAX_LENGTH + 1].partition(":")
    said, rest = (said, rest) if colon else ("0", said)
    epoch = int(said) if _EPOCH.fullmatch(said) else _LARGEST_EPOCH + 1
    upstream, dash, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    is_whole = len(text) <= _MAX_LENGTH and epoch <= _LARGEST_EPOCH and (not dash or _REVISION.fullmatch(revision))
    if not is_whole or not _UPSTREAM.fullmatch(upstream):
        message = f"no version of a Debian package: {text[:80]!r}"
        raise ValueError(message)
    return epoch, upstream, revision


@functools.lru_cache(maxsize=16384)
def _key(text: str) -> tuple[int, tuple[_Run, ...], tuple[_Run, ...]]:
    epoch, upstream, revision = split_deb_version(text)
    return (epoch, _part(upstream), _part(revision))


def _part(text: str) -> tuple[_Run, ...]:
    # In turns: a run of other signs, a run of digits. A part that has ended goes on as nothing and zeros.
    runs = [
        ((*tuple(map(_weight, signs)), _END), int(digits or 0))
        for signs, digits in _RUN.findall(text)
        if signs or digits
    ]
    while runs and runs[-1] == _NOTHING:
        runs.pop()
    return tuple(runs)


def _weight(sign: str) -> int:
    if sign == "~":
        return -1
    return ord(sign) if sign.isalpha() else ord(sign) + 256
