# SPDX-License-Identifier: Apache-2.0
"""The descriptor in a VMDK: lines of text that say of which extents a disk is (Virtual Disk Format 5.0, page 3).

QEMU finds ``parentFileNameHint`` anywhere in the text, a comment included; other programs ignore case, or read on
behind the first NUL. So words that lead to another file are looked for everywhere, before the lines are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, EncryptedImageError, OutsideReferenceError, UnsupportedImageError

if TYPE_CHECKING:
    from coppice.errors import ImageRefusedError

MOST_DESCRIPTOR_BYTES = 64 * 1024
QEMU_DESCRIPTOR_BYTES = 20 * 512
"""As much of it QEMU reads, whatever the header says."""
_MOST_LINE_CHARACTERS = 1024
_NO_PARENT = "ffffffff"
_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]{1,16})(?:\s+"([^"]*)")?(?:\s+(.*))?', re.IGNORECASE)
_SETTING = re.compile(r'([A-Za-z][\w.:\-]*)\s*=\s*(?:"([^"]*)"|([^"]*))')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CONTENT_ID = re.compile(r"[0-9A-Fa-f]{1,8}")
_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,255}")
_WORDS: tuple[tuple[bytes, type[ImageRefusedError], str, str], ...] = (
    (b"parentfilenamehint", OutsideReferenceError, "names a parent image", "content would come from another file"),
    (b"nativeparent", OutsideReferenceError, "names a parent image", "content would come from another file"),
    (b"changetrackpath", OutsideReferenceError, "names a file of changes", "a program would open another file"),
    (b"digestfilename", OutsideReferenceError, "names a file of digests", "a program would open another file"),
    (b"ddb.sidecars", OutsideReferenceError, "names files beside it", "a program would open other files"),
    (b"encryption.", EncryptedImageError, "says that it is encrypted", "no guest could use it without the key"),
    (b"vmwarevmcrypt", EncryptedImageError, "says that it is encrypted", "no guest could use it without the key"),
)
_ACCESS = frozenset({"RW", "RDONLY"})
_OUTSIDE = frozenset({"FLAT", "VMFS", "VMFSSPARSE", "VMFSRDM", "VMFSRAW", "SESPARSE"})
_REQUIRED = ("version", "cid", "parentcid", "createtype")
_ONE_FILE = frozenset({"monolithicsparse", "streamoptimized"})
_MISLEADING = "programs would read it differently"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmdkDescriptor:
    """What counts of a descriptor.

    Attributes:
        create_type: Which kind of disk, as it is written.
        extent_sectors: Length of its one extent.
    """

    create_type: str
    extent_sectors: int


def read_descriptor(content: bytes, beyond: bytes, offset: int, name: str) -> VmdkDescriptor:
    """Return what a descriptor says.

    Args:
        content: Its bytes, with the NULs that fill its room.
        beyond: What lies behind its room, as far as QEMU reads on where no NUL ends the text.
        offset: Where it is in the file.
        name: Of the file, for refusals.

    Raises:
        ImageRefusedError: It leads to another file; it is not of a disk in one sparse extent, which is the file itself;
            or it is malformed.
    """
    lowered = (content if b"\0" in content else content + beyond).lower()
    for word, kind, words, why in _WORDS:
        found = lowered.find(word)
        if found >= 0:
            raise refusal(kind, name, f"its descriptor {words}", offset=offset + found, why=why)
    text = content.split(b"\0", 1)[0].decode("latin-1")
    if _CONTROL.search(text):
        raise _malformed(name, "has control characters", offset)
    settings: dict[str, str] = {}
    extents: list[tuple[str, ...]] = []
    for line in re.split(r"\r\n|\n|\r", text):
        if len(line) > _MOST_LINE_CHARACTERS:
            raise _malformed(name, f"has a line of {len(line)} characters", offset)
        _take_line(line.strip(" \t"), settings, extents, offset, name)
    return _judged(settings, extents, offset, name)


def _take_line(line: str, settings: dict[str, str], extents: list[tuple[str, ...]], offset: int, name: str) -> None:
    if not line or line.startswith("#"):
        return
    if (extent := _EXTENT.fullmatch(line)) is not None:
        extents.append(tuple(each or "" for each in extent.groups()))
        return
    setting = _SETTING.fullmatch(line)
    if setting is None:
        raise _malformed(name, f"has the line {line[:80]!r}", offset)
    key = setting[1].lower()
    if key in settings:
        raise _malformed(name, f"says {setting[1]} twice", offset)
    settings[key] = (setting[2] if setting[2] is not None else setting[3]).strip()


def _judged(settings: dict[str, str], extents: list[tuple[str, ...]], offset: int, name: str) -> VmdkDescriptor:
    for key in _REQUIRED:
        if key not in settings:
            raise _malformed(name, f"does not say {key}", offset)
    if not _CONTENT_ID.fullmatch(settings["cid"]):
        raise _malformed(name, f"has the content identifier {settings['cid'][:40]!r}", offset)
    create_type = settings["createtype"]
    if create_type.lower() not in _ONE_FILE:
        raise refusal(
            OutsideReferenceError,
            name,
            f"its descriptor is of the kind {create_type[:40]!r}",
            offset=offset,
            why="such an image has its content in other files",
        )
    if settings["parentcid"].lower() != _NO_PARENT:
        raise refusal(
            OutsideReferenceError,
            name,
            f"its descriptor has the parent {settings['parentcid'][:16]!r}",
            offset=offset,
            why="a part of its content would come from another file",
        )
    if len(extents) != 1:
        raise refusal(
            OutsideReferenceError if extents else CorruptImageError,
            name,
            f"its descriptor has {len(extents)} extents",
            offset=offset,
            why="a disk in one file has one",
        )
    return VmdkDescriptor(create_type=create_type, extent_sectors=_own_extent(extents[0], offset, name))


def _own_extent(extent: tuple[str, ...], offset: int, name: str) -> int:
    """Return the length of an extent that is the file itself: by what it is, for the file may have been renamed."""
    access, sectors, kind, file, rest = extent
    if access.upper() not in _ACCESS or kind.upper() != "SPARSE" or rest:
        raise refusal(
            OutsideReferenceError if kind.upper() in _OUTSIDE else UnsupportedImageError,
            name,
            f"its descriptor has the extent {access} {kind}",
            offset=offset,
            why="only a sparse extent can be the file itself",
        )
    if not _NAME.fullmatch(file) or file in {".", ".."}:
        raise refusal(
            OutsideReferenceError,
            name,
            f"its descriptor has the extent {file[:80]!r}",
            offset=offset,
            why="that is not the name of the file itself, so that content would come from another place",
        )
    return int(sectors)


def _malformed(name: str, found: str, offset: int) -> ImageRefusedError:
    return refusal(CorruptImageError, name, f"its descriptor {found}", offset=offset, why=_MISLEADING)
