# SPDX-License-Identifier: Apache-2.0
"""Where the disk of an archive lies, and what the archive's descriptor says of the machine: nothing is unpacked.

An OVA is a tar archive with an OVF descriptor, which names every file in it; a manifest and its signature are checked
where there are any. A tar archive without a descriptor has one disk, and short texts at most beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from coppice.conversion.model import Archive, Compression
from coppice.conversion.ova_files import ArchiveFiles
from coppice.conversion.ova_manifest import (
    CERTIFICATE,
    MANIFEST,
    CheckedManifest,
    checked_manifest,
    require_covered,
    require_digest,
)
from coppice.conversion.unpack_streams import compression_of
from coppice.errors import ArchiveError, DiskCountError, OvfError, UnsupportedImageError
from coppice.formats.ovf import read_ovf
from coppice.formats.ovf_xml import MAX_DESCRIPTOR_BYTES
from coppice.formats.tar import read_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.conversion.model import ConversionLimits, Detection
    from coppice.conversion.window import Window
    from coppice.formats.ovf import OvfDescriptor, OvfFile
    from coppice.formats.ovf_manifest import ManifestEntry
    from coppice.formats.tar import TarMember
    from coppice.model.requirements import Requirements
    from coppice.monitor import Task

DESCRIPTOR = ".ovf"
_STEP_BYTES = 1024 * 1024
_WHY_NAMED = "a descriptor names all files of its appliance, and nobody knows what this one is for"


@dataclass(frozen=True, slots=True, kw_only=True)
class OvaLayout:
    """Where things lie in an archive.

    Attributes:
        name: Of the archive, for messages.
        archive: With a descriptor, or without one.
        member: Name of the disk.
        offset: Where its bytes begin in the archive.
        size_bytes: How many there are.
        compression: What they are compressed with, by their content.
        hardware: What the machine needs, by the descriptor.
        descriptor: All that it says.
        members: All files, in their order.
        manifest: Their digests, by name; empty: there is no manifest.
        signer: Whose signature the manifest bears; None: nobody's.
        notes: What is worth saying, and no reason to refuse it.
    """

    name: str
    archive: Archive
    member: str
    offset: int
    size_bytes: int
    compression: Compression | None
    hardware: Requirements | None
    descriptor: OvfDescriptor | None
    members: tuple[TarMember, ...]
    manifest: Mapping[str, ManifestEntry]
    signer: str | None
    notes: tuple[str, ...]

    def differences(self, disk: Detection) -> tuple[str, ...]:
        """Return where the descriptor says something else of the disk than its bytes do."""
        if self.descriptor is None:
            return ()
        told: list[str] = []
        stated, size = self.descriptor.capacity_bytes, disk.virtual_size_bytes
        if stated is not None and stated < size:
            told.append(f"the descriptor says that the disk has {stated} bytes; it has {size}")
        kind = self.descriptor.disk_format
        if kind is not None and kind is not disk.format:
            told.append(f"the descriptor says that the disk is {kind}; it is {disk.format}")
        return tuple(told)

    @property
    def bytes_to_verify(self) -> int:
        """How many bytes `verify_manifest` reads."""
        return sum(member.size_bytes for member, _ in _to_verify(self))


def ova_layout(window: Window, limits: ConversionLimits, name: str) -> OvaLayout:
    """Return where the one disk of a tar archive lies.

    Args:
        window: The archive.
        limits: How many members it may have.
        name: Of the archive, for messages.

    Raises:
        ArchiveError: A member is what no appliance has.
        CorruptImageError: The archive is cut off or damaged.
        DiskCountError: It has no disk, or several.
        OvfError: The descriptor is malformed or dangerous, or does not fit the archive.
        ManifestError: The manifest does not fit the archive or the descriptor, or its signature is wrong. The other
            files are held against it by `verify_manifest`.
        ImageRefusedError: Another of its subclasses, see `read_ovf`.
    """
    members = read_members(window.read, window.size_bytes, maximum_members=limits.maximum_archive_members, name=name)
    files = ArchiveFiles(window, members, name)
    return _Appliance(files).layout() if files.ending(DESCRIPTOR) else _plain(files)


def verify_manifest(layout: OvaLayout, window: Window, task: Task) -> None:
    """Hold the files of an archive against its manifest; may run beside a conversion, the disk is read once.

    Args:
        layout: Of the archive.
        window: The archive.
        task: Told of the bytes that were read.

    Raises:
        ManifestError: A file is not the one that the manifest means.
    """
    for member, entry in _to_verify(layout):
        digest = hashlib.new(entry.algorithm, usedforsecurity=False)
        at, end = member.offset, member.offset + member.size_bytes
        while at < end and (piece := window.read(at, min(_STEP_BYTES, end - at))):
            digest.update(piece)
            at += len(piece)
            task.advance(len(piece))
        require_digest(layout.name, member, entry, digest.hexdigest())


def _to_verify(layout: OvaLayout) -> Iterator[tuple[TarMember, ManifestEntry]]:
    for member in layout.members:
        entry = layout.manifest.get(member.name)
        # The descriptor was held against it before anything in it was believed.
        if entry is not None and not member.name.lower().endswith(DESCRIPTOR):
            yield member, entry


def _plain(files: ArchiveFiles) -> OvaLayout:
    """Return the layout of an archive without a descriptor."""
    for left in (*files.ending(MANIFEST), *files.ending(CERTIFICATE)):
        files.refuse(
            OvfError,
            f"the archive has {left.name[:80]!r} and no descriptor",
            why="it is an OVA of which something is missing",
            offset=left.header_offset,
        )
    disks = [member for member in files.members if not files.is_companion(member)]
    if len(files.members) == 1:
        disks = list(files.members)
    if len(disks) != 1:
        names = ", ".join(ascii(member.name[:60]) for member in disks[:4])
        files.refuse(
            DiskCountError,
            f"the archive has {len(disks)} files that may be disks ({names})" if disks else "the archive has no disk",
            why="an image is one disk, and only a descriptor could say which",
            offset=disks[1].header_offset if disks else 0,
        )
    return _layout(files, disks[0], Archive.TAR)


def _layout(
    files: ArchiveFiles,
    disk: TarMember,
    archive: Archive,
    *,
    descriptor: OvfDescriptor | None = None,
    manifest: CheckedManifest | None = None,
    notes: tuple[str, ...] = (),
) -> OvaLayout:
    manifest = manifest or CheckedManifest()
    return OvaLayout(
        name=files.name,
        archive=archive,
        member=disk.name,
        offset=disk.offset,
        size_bytes=disk.size_bytes,
        compression=compression_of(files.head(disk)),
        hardware=None if descriptor is None else descriptor.requirements,
        descriptor=descriptor,
        members=files.members,
        manifest=manifest.entries,
        signer=manifest.signer,
        notes=(*notes, *manifest.notes),
    )


class _Appliance:
    """An archive with a descriptor."""

    def __init__(self, files: ArchiveFiles) -> None:
        self._files = files
        self._notes: list[str] = []

    def layout(self) -> OvaLayout:
        files = self._files
        ovf = files.only(DESCRIPTOR)
        for member in files.members:
            if "/" in member.name:
                files.refuse(
                    ArchiveError,
                    f"the member {member.name[:80]!r} lies in a directory",
                    why="an OVA has its files side by side",
                    offset=member.header_offset,
                )
        if files.members[0] is not ovf:
            self._notes.append("the descriptor is not the first file of the archive; some programs want it there")
        content = files.content(ovf, MAX_DESCRIPTOR_BYTES, OvfError, "descriptor")
        manifest = checked_manifest(files, ovf, content)
        descriptor = read_ovf(content, name=files.name, offset=ovf.offset)
        referred = [(file, self._member_of(file)) for file in descriptor.files]
        self._require_named(referred)
        if manifest.entries:
            require_covered(files, manifest.entries, (member for _, member in referred))
        disk = next(member for file, member in referred if file is descriptor.disk)
        self._check_compression(descriptor.disk, disk)
        notes = (*self._notes, *descriptor.notes)
        return _layout(files, disk, Archive.OVA, descriptor=descriptor, manifest=manifest, notes=notes)

    def _member_of(self, file: OvfFile) -> TarMember:
        """Return the member that a reference means: by its name, or by the name in it as addresses write it."""
        found = {
            member.name: member
            for name in (file.href, unquote(file.href, errors="replace"))
            if (member := self._files.named(name)) is not None
        }
        if len(found) != 1:
            words = "two files of the archive" if found else "no file of the archive"
            self._files.refuse(
                OvfError,
                f"the descriptor refers to {file.href[:80]!r}, which is {words}",
                why="whoever follows it finds another file, or none",
                offset=file.offset,
            )
        member = next(iter(found.values()))
        if file.size_bytes is not None and file.size_bytes != member.size_bytes:
            self._files.refuse(
                OvfError,
                f"{member.name[:80]!r} has {member.size_bytes} bytes; the descriptor says {file.size_bytes}",
                why="it is not the file that was described",
                offset=file.offset,
            )
        return member

    def _require_named(self, referred: list[tuple[OvfFile, TarMember]]) -> None:
        known = {member.name for _, member in referred}
        if len(known) != len(referred):
            self._files.refuse(OvfError, "the descriptor means one file twice", why="nobody knows as what", offset=0)
        for member in self._files.members:
            is_known = member.name in known
            is_part = member.name.lower().endswith((DESCRIPTOR, MANIFEST, CERTIFICATE))
            if is_known and is_part:
                self._files.refuse(
                    OvfError,
                    f"the descriptor refers to {member.name[:80]!r}",
                    why="that is a part of the package, and no file of the machine",
                    offset=member.header_offset,
                )
            if not is_known and not is_part and not self._files.is_companion(member):
                self._files.refuse(
                    ArchiveError,
                    f"the descriptor does not name the member {member.name[:80]!r}",
                    why=_WHY_NAMED,
                    offset=member.header_offset,
                )

    def _check_compression(self, file: OvfFile, disk: TarMember) -> None:
        found = compression_of(self._files.head(disk))
        said = "" if file.compression in {"identity", "none"} else file.compression
        if said and said not in set(Compression):
            self._files.refuse(
                UnsupportedImageError,
                f"the disk is compressed by {said[:40]!r}",
                why="that is not read here",
                offset=file.offset,
            )
        if said and found != said:
            self._files.refuse(
                OvfError,
                f"the disk is said to be compressed by {said}, and is " + (str(found) if found else "not compressed"),
                why="programs that go by the descriptor read something else",
                offset=disk.offset,
            )
        if found and not said:
            self._notes.append(f"the descriptor does not say that the disk is compressed ({found})")
