# SPDX-License-Identifier: Apache-2.0
"""Digests that are computed piece by piece, by any algorithm that a `Checksum` names."""

from __future__ import annotations

import hashlib
from typing import Protocol


class Digest(Protocol):
    """A digest that is being computed, as `hashlib` has them."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of what came so far, in lower-case hexadecimal."""
        ...


def new_digest(algorithm: str) -> Digest:
    """Begin a digest of any algorithm that a `Checksum` can have, or that `hashlib` knows.

    Raises:
        ValueError: There is no such algorithm.
    """
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    return hashlib.new(algorithm, usedforsecurity=algorithm not in {"md5", "sha1"})
