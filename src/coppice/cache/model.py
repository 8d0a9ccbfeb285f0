# SPDX-License-Identifier: Apache-2.0
"""`CachedImage`: the bytes of a listed image, held locally, verified by a checksum that its list signed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey


class Held(StrEnum):
    """Which bytes of an image are held."""

    PUBLISHED = "published"
    """The file that was published."""
    GUEST = "guest"
    """The disk as the guest sees it, put together from a delta; the list signed its checksum as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedImage:
    """Verified bytes. Only `coppice.cache` makes one.

    Attributes:
        key: Which image of which list.
        version: Its version.
        path: The file; read-only, shared by all that have the same bytes.
        checksum: Of what is held, by the algorithm that the cache keys by (sha512).
        listed_checksum: Of the published file, as its list says it.
        size_bytes: Of what is held.
        declared_format: What the list says it is; a hint for messages only.
        reused: True when the bytes were in the cache already.
        held: Which bytes these are.
        fingerprint: State of the file (device, inode, size, times in ns) when this process verified its bytes; whoever
            uses the file later verifies again when the state differs, and always when this is empty.
        method: How the bytes came in this run: ``whole``, ``patch`` or ``blocks``; None: they were here already.
        fetched_bytes: That came over the network for it in this run.
        fallback: Why a delta did not serve and the whole file was fetched; None: none was tried, or it served.
    """

    key: ImageKey
    version: str
    path: Path
    checksum: Checksum
    listed_checksum: Checksum
    size_bytes: int
    declared_format: str | None
    reused: bool
    held: Held = Held.PUBLISHED
    fingerprint: tuple[int, ...] = ()
    method: str | None = None
    fetched_bytes: int = 0
    fallback: str | None = None
