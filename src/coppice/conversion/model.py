# SPDX-License-Identifier: Apache-2.0
"""`ConvertedImage`: a cached image in a format that a cloud takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cache.model import Held

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey
    from coppice.model.image import DiskFormat, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an image file is, by its content.

    Attributes:
        format: Its one format.
        size_bytes: Length of the file.
        virtual_size_bytes: Length of the disk that a guest sees.
    """

    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that is held, as it is converted.

    Attributes:
        path: The file.
        checksum: Of its bytes; what is made of it is kept by this.
        size_bytes: Its length.
        name: What it is, for messages.
        held: The file that was published, or the disk as a guest sees it.
        fingerprint: State of the file when its bytes were verified; empty: they are verified again.
    """

    path: Path
    checksum: Checksum
    size_bytes: int
    name: str
    held: Held = Held.PUBLISHED
    fingerprint: tuple[int, ...] = ()

    @classmethod
    def of(cls, cached: CachedImage) -> Source:
        """Return the file of a cached image."""
        return cls(
            path=cached.path,
            checksum=cached.checksum,
            size_bytes=cached.size_bytes,
            name=str(cached.key),
            held=cached.held,
            fingerprint=cached.fingerprint,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestBytes:
    """A disk as a guest sees it, in a file (raw).

    Attributes:
        path: The file.
        checksum: sha512 of its bytes.
        size_bytes: Its length.
    """

    path: Path
    checksum: Checksum
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedImage:
    """An image as a cloud takes it. Only `coppice.conversion` makes one.

    Attributes:
        key: Which image of which list.
        version: Its version.
        path: The file.
        image: Facts about it.
        source_checksum: Of the published file, as its list has it: what it is known by, whatever it was made from.
        converter: What converted it (``qemu-img 7.2.22``), or ``none`` when it is what the cache holds.
        reused: True when it was there already.
    """

    key: ImageKey
    version: str
    path: Path
    image: Image
    source_checksum: Checksum
    converter: str
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionLimits:
    """Bounds on what is inspected and converted.

    Attributes:
        maximum_virtual_size_bytes: Of the disk that a guest sees.
        memory_bytes: Of the converter.
        cpu_seconds: Of the converter.
        timeout_seconds: Of one conversion.
    """

    maximum_virtual_size_bytes: int = 1024**4
    memory_bytes: int = 2 * 1024**3
    cpu_seconds: int = 4 * 3600
    timeout_seconds: float = 4 * 3600


Formats = tuple["DiskFormat", ...]
"""Formats that a cloud takes, most wanted first."""
