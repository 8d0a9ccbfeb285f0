# SPDX-License-Identifier: Apache-2.0
"""Where the disk of an archive lies, and what the archive's descriptor says of the machine: nothing is unpacked.

An OVA is a tar archive with an OVF descriptor, which names every file in it; a manifest and its signature are checked
where there are any. A tar archive without a descriptor has one disk, and short texts at most beside it.
"""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote

from coppice.conversion.model import Archive, Compression
from coppice.conversion.refusal import refusal
from coppice.conversion.unpack_streams import compression_of
from coppice.errors import ArchiveError, DiskCountError, ManifestError, OvfError, UnsupportedImageError
from coppice.formats.ovf import read_ovf
from coppice.formats.ovf_manifest import MAX_MANIFEST_BYTES, check_signature, read_manifest
from coppice.formats.ovf_xml import MAX_DESCRIPTOR_BYTES
from coppice.formats.tar import read_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError
    from coppice.formats.ovf import OvfDescriptor, OvfFile
    from coppice.formats.ovf_manifest import ManifestEntry
    from coppice.formats.tar import TarMember
    from coppice.model.requirements import Requirements
    from coppice.monitor import Task

DESCRIPTOR, MANIFEST, CERTIFICATE = ".ovf", ".mf", ".cert"
MAX_COMPANION_BYTES = 64 * 1024
"""Longest text that may lie beside a disk without anybody naming it."""
_HEAD_BYTES = 512
_STEP_BYTES = 1024 * 1024
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")
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
    archive = _Archive(window, members, name)
    return archive.appliance() if archive.ending(DESCRIPTOR) else archive.plain()


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
        _require_digest(layout.name, member, entry, digest.hexdigest())


def _to_verify(layout: OvaLayout) -> Iterator[tuple[TarMember, ManifestEntry]]:
    for member in layout.members:
        entry = layout.manifest.get(member.name)
        # The descriptor was held against it before anything in it was believed.
        if entry is not None and not member.name.lower().endswith(DESCRIPTOR):
            yield member, entry


def _require_digest(name: str, member: TarMember, entry: ManifestEntry, hexdigest: str) -> None:
    if not entry.fits(hexdigest):
        raise refusal(
            ManifestError,
            name,
            f"the member {member.name!r} has the {entry.algorithm} digest {hexdigest}, the manifest says "
            f"{entry.hexdigest}",
            why="it is not the file that was packed",
            offset=member.offset,
        )


class _Archive:
    """The files of one archive."""

    def __init__(self, window: Window, members: tuple[TarMember, ...], name: str) -> None:
        self._window, self._members, self._name = window, members, name
        self._named = {member.name: member for member in members}
        self._notes: list[str] = []
        self._signer: str | None = None

    def ending(self, suffix: str) -> list[TarMember]:
        """Return the members whose names end so."""
        return [member for member in self._members if member.name.lower().endswith(suffix)]

    def plain(self) -> OvaLayout:
        """Return the layout of an archive without a descriptor."""
        for left in (*self.ending(MANIFEST), *self.ending(CERTIFICATE)):
            self._refuse(
                OvfError,
                f"the archive has {left.name[:80]!r} and no descriptor",
                why="it is an OVA of which something is missing",
                offset=left.header_offset,
            )
        disks = [member for member in self._members if not self._is_companion(member)]
        if len(self._members) == 1:
            disks = list(self._members)
        if len(disks) != 1:
            names = ", ".join(ascii(member.name[:60]) for member in disks[:4])
            self._refuse(
                DiskCountError,
                f"the archive has {len(disks)} files that may be disks ({names})"
                if disks
                else "the archive has no disk",
                why="an image is one disk, and only a descriptor could say which",
                offset=disks[1].header_offset if disks else 0,
            )
        return self._layout(disks[0], Archive.TAR, None)

    def appliance(self) -> OvaLayout:
        """Return the layout of an archive with a descriptor."""
        ovf = self._only(DESCRIPTOR)
        for member in self._members:
            if "/" in member.name:
                self._refuse(
                    ArchiveError,
                    f"the member {member.name[:80]!r} lies in a directory",
                    why="an OVA has its files side by side",
                    offset=member.header_offset,
                )
        if self._members[0] is not ovf:
            self._notes.append("the descriptor is not the first file of the archive; some programs want it there")
        content = self._content(ovf, MAX_DESCRIPTOR_BYTES, OvfError, "descriptor")
        manifest = self._manifest(ovf, content)
        descriptor = read_ovf(content, name=self._name, offset=ovf.offset)
        referred = [(file, self._member_of(file)) for file in descriptor.files]
        self._require_named(referred)
        if manifest:
            self._require_covered(manifest, [ovf, *(member for _, member in referred)])
        disk = next(member for file, member in referred if file is descriptor.disk)
        compression = self._compression(descriptor.disk, disk)
        self._notes.extend(descriptor.notes)
        return self._layout(disk, Archive.OVA, compression, descriptor=descriptor, manifest=manifest)

    def _layout(
        self,
        disk: TarMember,
        archive: Archive,
        compression: Compression | None,
        *,
        descriptor: OvfDescriptor | None = None,
        manifest: Mapping[str, ManifestEntry] | None = None,
    ) -> OvaLayout:
        if archive is Archive.TAR:
            compression = compression_of(self._window.read(disk.offset, min(_HEAD_BYTES, disk.size_bytes)))
        return OvaLayout(
            name=self._name,
            archive=archive,
            member=disk.name,
            offset=disk.offset,
            size_bytes=disk.size_bytes,
            compression=compression,
            hardware=None if descriptor is None else descriptor.requirements,
            descriptor=descriptor,
            members=self._members,
            manifest=manifest or {},
            signer=self._signer,
            notes=tuple(self._notes),
        )

    def _only(self, suffix: str) -> TarMember:
        found = self.ending(suffix)
        if len(found) > 1:
            self._refuse(
                ArchiveError,
                f"the archive has several files {suffix}: {found[0].name[:60]!r}, {found[1].name[:60]!r}",
                why="each program would go by another one",
                offset=found[1].header_offset,
            )
        return found[0]

    def _content(self, member: TarMember, most: int, kind: type[ImageRefusedError], what: str) -> bytes:
        if member.size_bytes > most:
            self._refuse(
                kind,
                f"the {what} {member.name[:80]!r} has {member.size_bytes} bytes; at most {most} are read",
                why=f"a {what} of one machine needs far less",
                offset=member.header_offset,
            )
        return self._window.read(member.offset, member.size_bytes)

    def _manifest(self, ovf: TarMember, content: bytes) -> Mapping[str, ManifestEntry]:
        if not self.ending(MANIFEST):
            if self.ending(CERTIFICATE):
                self._refuse(
                    ManifestError,
                    "the archive has a signature and no manifest",
                    why="what was signed is not there",
                    offset=self._only(CERTIFICATE).header_offset,
                )
            return {}
        member = self._only(MANIFEST)
        text = self._content(member, MAX_MANIFEST_BYTES, ManifestError, "manifest")
        entries = read_manifest(text, name=self._name, offset=member.offset)
        for file in entries:
            if file not in self._named or file == member.name:
                self._refuse(
                    ManifestError,
                    f"the manifest names {file[:80]!r}, which is not in the archive",
                    why="something is missing, or was renamed",
                    offset=member.offset,
                )
        if self.ending(CERTIFICATE):
            certificate = self._only(CERTIFICATE)
            self._signer = check_signature(
                self._content(certificate, MAX_MANIFEST_BYTES, ManifestError, "signature"),
                text,
                member.name,
                name=self._name,
                offset=certificate.offset,
            )
            self._notes.append(
                f"the manifest is signed by {self._signer}; whether that certificate is to be trusted was not asked: "
                "the image list is what is believed"
            )
        if any(entry.algorithm == "sha1" for entry in entries.values()):
            self._notes.append("the manifest has SHA-1 digests, which do not withstand whoever means harm")
        self._require_covered(entries, [ovf])
        entry = entries[ovf.name]
        digest = hashlib.new(entry.algorithm, content, usedforsecurity=False).hexdigest()
        _require_digest(self._name, ovf, entry, digest)
        return entries

    def _require_covered(self, manifest: Mapping[str, ManifestEntry], members: list[TarMember]) -> None:
        for member in members:
            if member.name not in manifest:
                self._refuse(
                    ManifestError,
                    f"the manifest does not name {member.name[:80]!r}",
                    why="a manifest has the digests of all files of the appliance, or anybody could exchange one",
                    offset=member.header_offset,
                )

    def _member_of(self, file: OvfFile) -> TarMember:
        """Return the member that a reference means: by its name, or by the name in it as addresses write it."""
        found = {
            member.name: member
            for name in (file.href, unquote(file.href, errors="replace"))
            if (member := self._named.get(name)) is not None
        }
        if len(found) != 1:
            words = "two files of the archive" if found else "no file of the archive"
            self._refuse(
                OvfError,
                f"the descriptor refers to {file.href[:80]!r}, which is {words}",
                why="whoever follows it finds another file, or none",
                offset=file.offset,
            )
        member = next(iter(found.values()))
        if file.size_bytes is not None and file.size_bytes != member.size_bytes:
            self._refuse(
                OvfError,
                f"{member.name[:80]!r} has {member.size_bytes} bytes; the descriptor says {file.size_bytes}",
                why="it is not the file that was described",
                offset=file.offset,
            )
        return member

    def _require_named(self, referred: list[tuple[OvfFile, TarMember]]) -> None:
        known = {member.name for _, member in referred}
        if len(known) != len(referred):
            self._refuse(OvfError, "the descriptor means one file twice", why="nobody knows as what", offset=0)
        for member in self._members:
            is_known = member.name in known
            is_part = member.name.lower().endswith((DESCRIPTOR, MANIFEST, CERTIFICATE))
            if is_known and is_part:
                self._refuse(
                    OvfError,
                    f"the descriptor refers to {member.name[:80]!r}",
                    why="that is a part of the package, and no file of the machine",
                    offset=member.header_offset,
                )
            if not is_known and not is_part and not self._is_companion(member):
                self._refuse(
                    ArchiveError,
                    f"the descriptor does not name the member {member.name[:80]!r}",
                    why=_WHY_NAMED,
                    offset=member.header_offset,
                )

    def _compression(self, file: OvfFile, disk: TarMember) -> Compression | None:
        found = compression_of(self._window.read(disk.offset, min(_HEAD_BYTES, disk.size_bytes)))
        said = "" if file.compression in {"identity", "none"} else file.compression
        if said and said not in set(Compression):
            self._refuse(
                UnsupportedImageError,
                f"the disk is compressed by {said[:40]!r}",
                why="that is not read here",
                offset=file.offset,
            )
        if said and found != said:
            self._refuse(
                OvfError,
                f"the disk is said to be compressed by {said}, and is " + (str(found) if found else "not compressed"),
                why="programs that go by the descriptor read something else",
                offset=disk.offset,
            )
        if found and not said:
            self._notes.append(f"the descriptor does not say that the disk is compressed ({found})")
        return found

    def _is_companion(self, member: TarMember) -> bool:
        """Tell whether a file is a short text, such as a licence, and no descriptor of a disk."""
        if member.size_bytes > MAX_COMPANION_BYTES:
            return False
        content = self._window.read(member.offset, member.size_bytes)
        try:
            codecs.decode(content, "utf-8")
        except UnicodeDecodeError:
            return False
        if any(byte < ord(" ") and byte not in _TEXT_CONTROLS for byte in content):
            return False
        return not content.lstrip().lower().startswith(b"# disk descriptorfile")

    def _refuse(self, kind: type[ImageRefusedError], found: str, *, why: str, offset: int) -> NoReturn:
        raise refusal(kind, self._name, found, why=why, offset=offset)
