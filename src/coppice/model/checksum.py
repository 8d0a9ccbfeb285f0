# SPDX-License-Identifier: Apache-2.0
"""A checksum and what computed it."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

_HEX_LENGTHS = {"blake3": 64, "sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Checksum:
    """The digest of some bytes.

    Attributes:
        algorithm: ``sha256``, ``sha384``, ``sha512``; ``blake3`` for what only this site names so.
        hexdigest: Lower-case hexadecimal.

    Raises:
        ValueError: The algorithm is not one of these, or the digest has not its length.
    """

    algorithm: str
    hexdigest: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a digest of that algorithm."""
        length = _HEX_LENGTHS.get(self.algorithm)
        if length is None:
            message = f"unknown checksum algorithm {self.algorithm!r}: one of {', '.join(_HEX_LENGTHS)}"
            raise ValueError(message)
        if len(self.hexdigest) != length or not _HEX.fullmatch(self.hexdigest):
            message = (
                f"not a {self.algorithm} digest ({length} lower-case hexadecimal digits): {self.hexdigest[:140]!r}"
            )
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Return the checksum written as ``algorithm:hexdigest``."""
        algorithm, separator, hexdigest = text.partition(":")
        if not separator:
            message = f"not a checksum of the form algorithm:hexdigest: {text[:140]!r}"
            raise ValueError(message)
        return cls(algorithm, hexdigest.lower())

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha512") -> Checksum:
        """Return the checksum of ``data``, by an algorithm of the SHA family; `coppice.digests` knows them all."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def matches(self, other: Checksum) -> bool:
        """Tell whether both are the same digest of the same algorithm."""
        return self.algorithm == other.algorithm and hmac.compare_digest(self.hexdigest, other.hexdigest)

    def __str__(self) -> str:
        """Return ``algorithm:hexdigest``."""
        return f"{self.algorithm}:{self.hexdigest}"
