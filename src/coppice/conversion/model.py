# SPDX-License-Identifier: Apache-2.0
"""`ConvertedImage`: a cached image in a format that a cloud takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.cache.model import Held

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey
    from coppice.model.image import DiskFormat, Image
    from coppice.model.requirements import Requirements

ALWAYS_CREDIBLE_BYTES = 1024**3
"""A disk of this length is believed of any file: there are empty ones."""


class Compression(StrEnum):
    """How a file is compressed as a whole."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"


class Archive(StrEnum):
    """What a disk lies in: an archive with a descriptor, or one without."""

    OVA = "ova"
    TAR = "tar"


class PartitionTable(StrEnum):
    """How a raw disk says what its parts are."""

    GPT = "gpt"
    MBR = "mbr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaging:
    """What a disk is wrapped in.

    Attributes:
        compression: Of the file as a whole, or of the disk inside its archive.
        archive: What the disk lies in.
        member: Its name there.
        hardware: What the archive's descriptor says of the machine.
    """

    compression: Compression | None = None
    archive: Archive | None = None
    member: str | None = None
    hardware: Requirements | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a disk is, by its content.

    Attributes:
        format: Its one format; never `DiskFormat.OVA`.
        variant: Which kind of that format, in its own words: ``v3``, ``streamOptimized``, ``dynamic``; may be empty.
        virtual_size_bytes: Length of the disk that a guest sees.
        allocated_bytes: How many of them the file holds; None: not known.
        partition_table: Of a raw disk.
        notes: What is worth saying, and no reason to refuse it.
        must_be_rewritten: The file holds more than the disk (snapshots), or is of a kind that clouds refuse
            (extended qcow2 entries, a fixed VHD): it is converted even where its format is the wanted one.
    """

    format: DiskFormat
    virtual_size_bytes: int
    variant: str = ""
    allocated_bytes: int | None = None
    partition_table: PartitionTable | None = None
    notes: tuple[str, ...] = ()
    must_be_rewritten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an image file is, by its content.

    Attributes:
        format: The format in which a cloud that takes the file as it is would take it: `DiskFormat.OVA` where it is an
            archive with a descriptor; the disk's own where it is a bare disk. What is compressed has the disk's.
        size_bytes: Length of the file.
        virtual_size_bytes: Length of the disk that a guest sees.
        disk: The disk itself.
        packaging: What it is wrapped in; None: nothing.
    """

    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    disk: Detection
    packaging: Packaging | None = None

    @property
    def is_usable_as_it_is(self) -> bool:
        """Whether a cloud can take the file itself: a bare disk, or an archive with a descriptor."""
        if self.disk.must_be_rewritten:
            return False
        return self.packaging is None or (self.packaging.archive is Archive.OVA and self.packaging.compression is None)


class FileSystemKind(StrEnum):
    """What lies in a partition; also what is no file system, and takes the place of one."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    FAT = "fat"
    ISO9660 = "iso9660"
    SQUASHFS = "squashfs"
    SWAP = "swap"
    LVM = "lvm"
    LUKS = "luks"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """A file system, as its first bytes have it.

    Attributes:
        kind: Which.
        label: Its name; may be empty.
        uuid: Its identifier, as the guest's ``/etc/fstab`` writes it; may be empty.
    """

    kind: FileSystemKind
    label: str = ""
    uuid: str = ""


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
        converter: What converted it (``qemu-img 7.2.22``), ``unpacked`` when it was only taken out of its wrapping, or
            ``none`` when it is what the cache holds.
        reused: True when it was there already.
        hardware: What the archive that it came in says of the machine; None: it came in none.
        differs: How it is not what its list says, for people; None: it is, or the list says nothing.
    """

    key: ImageKey
    version: str
    path: Path
    image: Image
    source_checksum: Checksum
    converter: str
    reused: bool
    hardware: Requirements | None = None
    differs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionLimits:
    """Bounds on what is inspected and converted.

    Attributes:
        maximum_virtual_size_bytes: Of the disk that a guest sees.
        memory_bytes: Of the converter.
        cpu_seconds: Of the converter.
        timeout_seconds: Of one conversion.
        maximum_expansion: Bytes of a disk, or of what is unpacked, that one byte of a file may stand for.
        maximum_archive_members: Of an archive.
    """

    maximum_virtual_size_bytes: int = 1024**4
    memory_bytes: int = 2 * 1024**3
    cpu_seconds: int = 4 * 3600
    timeout_seconds: float = 4 * 3600
    maximum_expansion: int = 1000
    maximum_archive_members: int = 100

    def most_bytes_of(self, file_size_bytes: int) -> int:
        """Return how large a disk, or what is unpacked, may be that comes from a file of that length."""
        credible = max(ALWAYS_CREDIBLE_BYTES, self.maximum_expansion * file_size_bytes)
        return min(self.maximum_virtual_size_bytes, credible)


Formats = tuple["DiskFormat", ...]
"""Formats that a cloud takes, most wanted first."""
