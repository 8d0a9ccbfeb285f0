# SPDX-License-Identifier: Apache-2.0
"""`CachedImage`: the published file of a listed image, held locally, its signed checksum and size verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedImage:
    """Verified bytes. Only `coppice.cache` makes one.

    Attributes:
        key: Which image of which list.
        version: Its version.
        path: The file; read-only, shared by all that have the same bytes.
        checksum: Of the published file, as signed.
        size_bytes: Of the published file.
        declared_format: What the list says it is; a hint for messages only.
        reused: True when the bytes were in the cache already.
        fingerprint: State of the file (device, inode, size, times in ns) when this process verified its bytes; whoever
            uses the file later verifies again when the state differs, and always when this is empty.
    """

    key: ImageKey
    version: str
    path: Path
    checksum: Checksum
    size_bytes: int
    declared_format: str | None
    reused: bool
    fingerprint: tuple[int, ...] = ()
