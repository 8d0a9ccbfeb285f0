# SPDX-License-Identifier: Apache-2.0
"""What a file may be that is no disk that is taken: documents, programs, packed data, formats of other tools.

A raw disk has no signature, so whatever is known to be something else has to be named here. The list holds what
published images were mistaken for, and each format that a prober of QEMU takes a file for (``block/*.c``,
``bdrv_probe``): a file that it would see as one of those must not go on as raw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import EncryptedImageError, NotAnImageError, OutsideReferenceError, UnsupportedImageError

if TYPE_CHECKING:
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

_HEAD_BYTES = 4096
_TEXT_BYTES = 512
_SHORTEST_TEXT_BYTES = 32
_SECTOR = 512
_NONE: type[ImageRefusedError] = NotAnImageError
_OTHER: type[ImageRefusedError] = UnsupportedImageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMark:
    """What a file bears the signature of, and is not taken as.

    Attributes:
        offset: Where the signature is.
        words: What that is.
        why: Why it is not taken.
        kind: The error of the refusal.
    """

    offset: int
    words: str
    why: str
    kind: type[ImageRefusedError]


_NO_DISK = "it is not a disk image"
_NOT_TAKEN = "images of that kind are not taken"
_PACKED = "what is compressed or archived is unpacked once, and this is not a disk yet"
_SIGNATURES: tuple[tuple[int, bytes, str, str, type[ImageRefusedError]], ...] = (
    (0, b"\x1f\x8b", "gzip-compressed data", _PACKED, _NONE),
    (0, b"\x1f\x9d", "data compressed by compress", _PACKED, _NONE),
    (0, b"BZh", "bzip2-compressed data", _PACKED, _NONE),
    (0, b"\xfd7zXZ\x00", "xz-compressed data", _PACKED, _NONE),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data", _PACKED, _NONE),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed data", _PACKED, _NONE),
    (0, b"LZIP", "lzip-compressed data", _PACKED, _NONE),
    (0, b"PK\x03\x04", "a zip archive", _PACKED, _NONE),
    (0, b"PK\x05\x06", "an empty zip archive", _PACKED, _NONE),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _PACKED, _NONE),
    (0, b"Rar!\x1a\x07", "a rar archive", _PACKED, _NONE),
    (0, b"MSCF\0\0\0\0", "a cabinet archive", _PACKED, _NONE),
    (0, b"MSWIM\0\0\0", "a Windows imaging file", _PACKED, _NONE),
    (0, b"!<arch>\n", "a Debian package or library", _PACKED, _NONE),
    (0, b"\xed\xab\xee\xdb", "an RPM package", _PACKED, _NONE),
    (0, b"070701", "a cpio archive", _PACKED, _NONE),
    (0, b"070702", "a cpio archive", _PACKED, _NONE),
    (0, b"070707", "a cpio archive", _PACKED, _NONE),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", _NOT_TAKEN, _OTHER),
    (0, b"partclone-image", "a partclone image", _NOT_TAKEN, _OTHER),
    (0, b"EVF\x09\x0d\x0a\xff\x00", "an EnCase image", _NOT_TAKEN, _OTHER),
    (257, b"ustar", "a tar archive (an OVA is one)", _PACKED, _NONE),
    (0, b"%PDF-", "a PDF document", _NO_DISK, _NONE),
    (0, b"\x7fELF", "a program (ELF)", _NO_DISK, _NONE),
    (0, b"\xca\xfe\xba\xbe", "a program (Java or Mach-O)", _NO_DISK, _NONE),
    (0, b"\xcf\xfa\xed\xfe", "a program (Mach-O)", _NO_DISK, _NONE),
    (514, b"HdrS", "a Linux kernel", _NO_DISK, _NONE),
    (0, b"\x89PNG\r\n\x1a\n", "a picture (PNG)", _NO_DISK, _NONE),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", _NO_DISK, _NONE),
    (0, b"GIF8", "a picture (GIF)", _NO_DISK, _NONE),
    (0, b"SQLite format 3\0", "a database", _NO_DISK, _NONE),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document", _NO_DISK, _NONE),
    (0, b"QED\x00", "a QED image", _NOT_TAKEN, _OTHER),
    (0, b"COWD", "an old VMDK extent (COWD)", _NOT_TAKEN, _OTHER),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "a VMDK of the kind SESparse", _NOT_TAKEN, _OTHER),
    (0, b"WithoutFreeSpace", "a Parallels image", _NOT_TAKEN, _OTHER),
    (0, b"WithouFreSpacExt", "a Parallels image", _NOT_TAKEN, _OTHER),
    (0, b"Bochs Virtual HD Image", "a Bochs image", _NOT_TAKEN, _OTHER),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "a cloop image", _NOT_TAKEN, _OTHER),
    (0, b"OOOM", "a user-mode Linux image", _NOT_TAKEN, _OTHER),
    (0, b"LUKS\xba\xbe", "a LUKS-encrypted disk", "no guest could use it without the key", EncryptedImageError),
    (3, b"-FVE-FS-", "a BitLocker-encrypted disk", "no guest could use it without the key", EncryptedImageError),
)
_AT_END: tuple[tuple[bytes, str], ...] = ((b"koly", "an Apple disk image (dmg)"),)
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<error", b"<svg")
_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL = re.compile(r"[^\t\n\r\f\x1b\x20-\x7e\u00a0-\U0010ffff]")


def foreign_mark(window: Window) -> ForeignMark | None:
    """Return what else than a disk that is taken the file bears the signature of; None: of nothing that is known."""
    head = window.read(0, _HEAD_BYTES)
    for offset, magic, words, why, kind in _SIGNATURES:
        if head.startswith(magic, offset):
            return ForeignMark(offset=offset, words=words, why=why, kind=kind)
    if is_vmdk_descriptor(head):
        return ForeignMark(
            offset=0,
            words="a VMDK descriptor, which names other files",
            why="the content would come from other files of this machine",
            kind=OutsideReferenceError,
        )
    end = max(0, window.size_bytes - _SECTOR)
    tail = window.read(end, _SECTOR)
    for magic, words in _AT_END:
        if tail.startswith(magic):
            return ForeignMark(offset=end, words=words, why=_NOT_TAKEN, kind=UnsupportedImageError)
    words_of_text = _text(head)
    if words_of_text is None and _is_windows_program(head):
        words_of_text = "a program (PE)"
    if words_of_text is None:
        return None
    return ForeignMark(offset=0, words=words_of_text, why=_NO_DISK, kind=NotAnImageError)


def is_vmdk_descriptor(head: bytes) -> bool:
    """Tell whether QEMU, or a looser reader, would see a VMDK descriptor at the beginning of a file.

    QEMU (``vmdk_probe``) skips comments and blank lines and wants ``version=`` then; VMware's own files begin with a
    comment that says so. An ISO has room for either in its first 32 KiB.
    """
    for line in head.split(b"\n"):
        text = line.strip(b" \t\r\0").lower()
        if not text or text.startswith(b"#"):
            if text.startswith((b"# disk descriptorfile", b"#disk descriptorfile")):
                return True
            continue
        return re.match(rb"version\s*=", text) is not None
    return False


def _text(head: bytes) -> str | None:
    start = head[:_TEXT_BYTES]
    if start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower().startswith(_MARKUP):
        return "an HTML or XML document (an error page?)"
    if start.lstrip(b" \t\r\n").startswith((b"-----BEGIN ", b"{\\rtf")):
        return "a text document"
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return "a text document" if _is_text(start, encoding) else None
    # What was written to a device, or filled up to whole blocks, ends with zeros.
    written = start.rstrip(b"\0")
    return "a text document" if len(written) >= _SHORTEST_TEXT_BYTES and _is_text(written, "utf-8") else None


def _is_text(start: bytes, encoding: str) -> bool:
    # The last character may be cut in two.
    for length in range(len(start), max(0, len(start) - 4), -1):
        try:
            text = start[:length].decode(encoding)
        except UnicodeDecodeError:
            continue
        return _CONTROL.search(text.removeprefix("\ufeff")) is None
    return False


def _is_windows_program(head: bytes) -> bool:
    # A boot sector may begin with the same two letters; it ends with a signature of its own.
    if not head.startswith(b"MZ") or head[510:512] == b"\x55\xaa":
        return False
    at = int.from_bytes(head[60:64], "little")
    return head[at : at + 4] == b"PE\0\0"
