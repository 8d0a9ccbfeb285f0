# SPDX-License-Identifier: Apache-2.0
"""The manifest of an archive and its signature, held against what lies in the archive; the long files come later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.conversion.refusal import refusal
from coppice.errors import ManifestError
from coppice.formats.ovf_manifest import MAX_MANIFEST_BYTES, check_signature, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coppice.conversion.ova_files import ArchiveFiles
    from coppice.formats.ovf_manifest import ManifestEntry
    from coppice.formats.tar import TarMember

MANIFEST, CERTIFICATE = ".mf", ".cert"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedManifest:
    """A manifest that fits its archive.

    Attributes:
        entries: Digests by file; empty: there is no manifest.
        signer: Whose signature it bears; None: nobody's.
        notes: What is worth saying.
    """

    entries: Mapping[str, ManifestEntry] = field(default_factory=dict)
    signer: str | None = None
    notes: tuple[str, ...] = ()


def checked_manifest(files: ArchiveFiles, descriptor: TarMember, content: bytes) -> CheckedManifest:
    """Return the manifest of an archive, once the descriptor and the signature fit it.

    Args:
        files: Of the archive.
        descriptor: The descriptor.
        content: Its bytes.

    Raises:
        ManifestError: They do not, it names what is not there, or there is a signature of nothing.
        ArchiveError: There are several.
    """
    if not files.ending(MANIFEST):
        if files.ending(CERTIFICATE):
            files.refuse(
                ManifestError,
                "the archive has a signature and no manifest",
                why="what was signed is not there",
                offset=files.only(CERTIFICATE).header_offset,
            )
        return CheckedManifest()
    member = files.only(MANIFEST)
    text = files.content(member, MAX_MANIFEST_BYTES, ManifestError, "manifest")
    entries = read_manifest(text, name=files.name, offset=member.offset)
    for file in entries:
        if files.named(file) is None or file == member.name:
            files.refuse(
                ManifestError,
                f"the manifest names {file[:80]!r}, which is not in the archive",
                why="something is missing, or was renamed",
                offset=member.offset,
            )
    signer = _signer(files, member, text)
    require_covered(files, entries, [descriptor])
    entry = entries[descriptor.name]
    digest = hashlib.new(entry.algorithm, content, usedforsecurity=False).hexdigest()
    require_digest(files.name, descriptor, entry, digest)
    notes = []
    if signer is not None:
        notes.append(
            f"the manifest is signed by {signer}; whether that certificate is to be trusted was not asked: "
            "the image list is what is believed"
        )
    if any(entry.algorithm == "sha1" for entry in entries.values()):
        notes.append("the manifest has SHA-1 digests, which do not withstand whoever means harm")
    return CheckedManifest(entries=entries, signer=signer, notes=tuple(notes))


def require_covered(files: ArchiveFiles, entries: Mapping[str, ManifestEntry], members: Iterable[TarMember]) -> None:
    """Refuse an archive whose manifest leaves one of some files out.

    Raises:
        ManifestError: It does.
    """
    for member in members:
        if member.name not in entries:
            files.refuse(
                ManifestError,
                f"the manifest does not name {member.name[:80]!r}",
                why="a manifest has the digests of all files of the appliance, or anybody could exchange one",
                offset=member.header_offset,
            )


def require_digest(name: str, member: TarMember, entry: ManifestEntry, hexdigest: str) -> None:
    """Refuse a file that is not the one that its manifest means.

    Args:
        name: Of the archive.
        member: The file.
        entry: What the manifest says.
        hexdigest: What it is.

    Raises:
        ManifestError: They differ.
    """
    if not entry.fits(hexdigest):
        raise refusal(
            ManifestError,
            name,
            f"the member {member.name!r} has the {entry.algorithm} digest {hexdigest}, the manifest says "
            f"{entry.hexdigest}",
            why="it is not the file that was packed",
            offset=member.offset,
        )


def _signer(files: ArchiveFiles, manifest: TarMember, text: bytes) -> str | None:
    if not files.ending(CERTIFICATE):
        return None
    certificate = files.only(CERTIFICATE)
    content = files.content(certificate, MAX_MANIFEST_BYTES, ManifestError, "signature")
    return check_signature(content, text, manifest.name, name=files.name, offset=certificate.offset)
