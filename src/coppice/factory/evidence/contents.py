# SPDX-License-Identifier: Apache-2.0
"""Digests of the contents of an image's files, and those that are known from the image that it is built upon.

Every byte of an image is read for its audit. Evidence wants three digests of it, some of them slow; what an image has
from its parent is known by one that is fast, and the others with it. A file of them lies beside each build.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from coppice.atomic import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

FILE_NAME = "contents.bin"
_MAGIC = b"coppice contents 1\n"
_ROW = struct.Struct("32s32s16s20s")
_SUM_BYTES = 32
_FEWEST_BYTES = 4096
"""Of what is shorter, looking it up takes as long as hashing it."""
_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Digests of a file's content.

    Attributes:
        sha256: Of all evidence.
        md5: Which packages have of their files; empty where it was not asked for.
        sha1: Which one form of bills of materials demands; empty where it was not asked for.
    """

    sha256: str
    md5: str = ""
    sha1: str = ""

    def has(self, *, md5: bool, sha1: bool) -> bool:
        """Tell whether those that are asked for are there."""
        return (not md5 or bool(self.md5)) and (not sha1 or bool(self.sha1))

    def with_those_of(self, other: Digests | None) -> Digests:
        """Return these, and what ``other`` has beside them of the same content."""
        if other is None:
            return self
        return Digests(sha256=self.sha256, md5=self.md5 or other.md5, sha1=self.sha1 or other.sha1)


class Contents:
    """Contents by their BLAKE3: those that are known from before, and those that were met.

    Args:
        known: From before.
    """

    def __init__(self, known: Mapping[bytes, Digests] | None = None) -> None:
        self._known = dict(known or {})
        self._met: dict[bytes, Digests] = {}

    def digests_of(self, size_bytes: int, pieces: Callable[[], Iterable[bytes]], *, md5: bool, sha1: bool) -> Digests:
        """Return the digests of a content: those that are asked for, and maybe others.

        Args:
            size_bytes: Its length.
            pieces: Gives it in pieces, and once more when it is called again.
            md5: Whether its MD5 is asked for.
            sha1: Whether its SHA-1 is.
        """
        if size_bytes < _FEWEST_BYTES:
            return hashed(pieces(), md5=md5, sha1=sha1)
        name = blake3()
        found = None
        if self._known:
            for piece in pieces():
                name.update(piece)
            found = self._met.get(name.digest()) or self._known.get(name.digest())
        if found is None or not found.has(md5=md5, sha1=sha1):
            made = hashed(pieces(), md5=md5, sha1=sha1, also=None if self._known else name)
            found = made.with_those_of(found or self._met.get(name.digest()))
        self._met[name.digest()] = found
        return found

    def write(self, path: Path) -> None:
        """Write what was met to ``path``.

        Raises:
            StorageError: It cannot be written.
        """
        rows = b"".join(
            _ROW.pack(key, *(bytes.fromhex(each) for each in (found.sha256, found.md5, found.sha1)))
            for key, found in sorted(self._met.items())
        )
        with storage_errors("writing", path):
            path.write_bytes(_MAGIC + rows + blake3(rows).digest())


def read_contents(directory: Path) -> Contents:
    """Return the contents that are known from the build in ``directory``: none, where nothing sound can be read."""
    path = directory / FILE_NAME
    try:
        if path.stat().st_size > _MOST_BYTES:
            return Contents()
        data = path.read_bytes()
    except OSError:
        # It may be replaced just now. Without it, everything is hashed.
        return Contents()
    rows, kept = data[len(_MAGIC) : -_SUM_BYTES], data[-_SUM_BYTES:]
    if not data.startswith(_MAGIC) or len(rows) % _ROW.size or blake3(rows).digest() != kept:
        return Contents()
    return Contents(
        {
            key: Digests(sha256=sha256.hex(), md5=_text(md5), sha1=_text(sha1))
            for key, sha256, md5, sha1 in _ROW.iter_unpack(rows)
        }
    )


def _text(digest: bytes) -> str:
    # All zeros: it was not asked for.
    return digest.hex() if any(digest) else ""


def hashed(pieces: Iterable[bytes], *, md5: bool = False, sha1: bool = False, also: blake3 | None = None) -> Digests:
    """Return the digests of a content that comes in pieces.

    Args:
        pieces: The content.
        md5: Whether its MD5 is asked for.
        sha1: Whether its SHA-1 is.
        also: Is told of all pieces.
    """
    sha256 = hashlib.sha256()
    others = {
        name: hashlib.new(name, usedforsecurity=False) for name, wanted in (("md5", md5), ("sha1", sha1)) if wanted
    }
    updates = [each.update for each in (sha256, *others.values(), *(() if also is None else (also,)))]
    for piece in pieces:
        for update in updates:
            update(piece)
    return Digests(sha256=sha256.hexdigest(), **{name: each.hexdigest() for name, each in others.items()})
