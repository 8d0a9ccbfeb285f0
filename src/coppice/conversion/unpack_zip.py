# SPDX-License-Identifier: Apache-2.0
"""A zip file with one member (APPNOTE.TXT 6.3.10, the format's specification): where that lies, and how it is packed.

What the directory at the end says is held against the header before the member, and every byte of the file has to be
accounted for: a program that goes by the one then sees what a program that goes by the other does.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from coppice.conversion.refusal import refusal
from coppice.errors import (
    ArchiveError,
    CorruptImageError,
    DiskCountError,
    EncryptedImageError,
    UnsupportedImageError,
)
from coppice.formats.tar_header import name_problem

if TYPE_CHECKING:
    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError

_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_MAGIC = b"PK\x01\x02"
_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_MAGIC = b"PK\x06\x06"
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_MOST_COMMENT_BYTES = 0xFFFF
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_EXTRA = 1
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_SIZES_FOLLOW = 0x0008
_KNOWN_FLAGS = 0x0006 | _SIZES_FOLLOW | 0x0800
"""How hard the packer tried; whether the sizes come after the content; that the name is UTF-8."""
_STORED, _DEFLATED = 0, 8
_UNIX = 3
_MANY_READINGS = "programs would read different files out of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """The one file in a zip.

    Attributes:
        name: As the zip has it; it leads nowhere.
        offset: Where its content begins.
        packed_bytes: Length of its content in the zip.
        size_bytes: Its length when unpacked.
        crc32: Of its bytes, unpacked.
        is_stored: Whether it lies there as it is.
    """

    name: str
    offset: int
    packed_bytes: int
    size_bytes: int
    crc32: int
    is_stored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Directory:
    """What the record at the end says of the directory."""

    offset: int
    size_bytes: int
    entries: int
    end: int
    """Where the directory has to end: where the first record after it begins."""


def read_zip(window: Window, name: str) -> ZipMember:
    """Return the one member of a zip file.

    Raises:
        DiskCountError: It has none, or several.
        EncryptedImageError: It is encrypted.
        UnsupportedImageError: It is packed otherwise than by deflate, or lies in several files.
        ArchiveError: Its name leads elsewhere, it is no regular file, or two readings differ.
        CorruptImageError: Its records do not fit one another, or the file.
    """
    return _Zip(window, name).member()


class _Zip:
    """One pass over the records of a zip file, from its end to its beginning."""

    def __init__(self, window: Window, name: str) -> None:
        self._window = window
        self._name = name

    def member(self) -> ZipMember:
        directory = self._directory()
        if directory.entries != 1:
            self._refuse(f"it has {directory.entries} members", "one is expected", directory.offset, DiskCountError)
        if directory.offset + directory.size_bytes != directory.end:
            self._refuse("its directory does not end where the next record begins", _MANY_READINGS, directory.offset)
        entry = self._exactly(directory.offset, directory.size_bytes, _CENTRAL.size + 3 * _FULL_16)
        if len(entry) < _CENTRAL.size or not entry.startswith(_CENTRAL_MAGIC):
            self._refuse("there is no directory entry", "what it states is not there", directory.offset)
        fields = _CENTRAL.unpack_from(entry)
        _, made_by, _, flags, method, _, _, crc, packed, size, names, extras, comments, disk, _, mode, local = fields
        if _CENTRAL.size + names + extras + comments != len(entry):
            self._refuse("its directory has another length than its one entry", _MANY_READINGS, directory.offset)
        raw_name = entry[_CENTRAL.size : _CENTRAL.size + names]
        extra = entry[_CENTRAL.size + names : _CENTRAL.size + names + extras]
        size, packed, local, disk = self._widened(extra, (size, packed, local, disk), directory.offset)
        self._check_kind(flags, method, disk, directory.offset)
        shown = self._check_name(raw_name, flags, directory.offset)
        if made_by >> 8 == _UNIX and stat.S_IFMT(mode >> 16) not in {0, stat.S_IFREG}:
            self._refuse(f"the member {shown} is no regular file", "it leads elsewhere", directory.offset, ArchiveError)
        if local:
            self._refuse("something stands before its first member", _MANY_READINGS, 0, ArchiveError)
        if method == _STORED and packed != size:
            self._refuse("its member is stored, with two different lengths", _MANY_READINGS, directory.offset)
        begin = self._local(raw_name, (flags, method, crc, packed, size))
        self._check_end(begin + packed, directory.offset, (flags, crc, packed, size))
        return ZipMember(
            name=shown,
            offset=begin,
            packed_bytes=packed,
            size_bytes=size,
            crc32=crc,
            is_stored=method == _STORED,
        )

    def _directory(self) -> _Directory:
        at, end = self._end_record()
        _, disk, start_disk, here, entries, size, offset, _ = _END.unpack(end)
        limit = at
        if _FULL_16 in {disk, start_disk, here, entries} or _FULL_32 in {size, offset}:
            limit, wide = self._end_record_64(at)
            _, length, _, _, disk, start_disk, here, entries, size, offset = wide
            if length + 12 != at - _LOCATOR.size - limit:
                self._refuse("its zip64 record has another length than its place", _MANY_READINGS, limit)
        if disk or start_disk or here != entries:
            self._refuse("it is one part of several", "the others are elsewhere", at, UnsupportedImageError)
        return _Directory(offset=offset, size_bytes=size, entries=entries, end=limit)

    def _end_record(self) -> tuple[int, bytes]:
        length = self._window.size_bytes
        start = max(0, length - _END.size - _MOST_COMMENT_BYTES)
        tail = self._window.read(start, length - start)
        places = []
        at = tail.find(_END_MAGIC)
        while at >= 0:
            # The comment after the record has to end where the file does.
            if at + _END.size <= len(tail) and at + _END.size + int.from_bytes(
                tail[at + 20 : at + 22], "little"
            ) == len(tail):
                places.append(at)
            at = tail.find(_END_MAGIC, at + 1)
        if not places:
            self._refuse("it has no directory at its end", "it is cut, or something follows it", length)
        if len(places) > 1:
            self._refuse("it has several directories", _MANY_READINGS, start + places[0], ArchiveError)
        return start + places[0], tail[places[0] : places[0] + _END.size]

    def _end_record_64(self, at: int) -> tuple[int, tuple[int, ...]]:
        locator = self._window.read(max(0, at - _LOCATOR.size), _LOCATOR.size)
        if len(locator) < _LOCATOR.size or not locator.startswith(_LOCATOR_MAGIC):
            self._refuse("its zip64 record is missing", "its lengths do not fit the plain one", at)
        _, _, place, _ = _LOCATOR.unpack(locator)
        record = self._window.read(place, _END64.size) if place < at else b""
        if len(record) < _END64.size or not record.startswith(_END64_MAGIC):
            self._refuse("its zip64 record is not where it is said to be", "its lengths are not known", at)
        return place, _END64.unpack(record)

    def _widened(self, extra: bytes, values: tuple[int, int, int, int], at: int) -> tuple[int, int, int, int]:
        """Return sizes, place and disk, those that need it out of the zip64 field (APPNOTE 4.5.3)."""
        wide = self._zip64_field(extra, at)
        found = []
        for value, full, length in zip(values, (_FULL_32, _FULL_32, _FULL_32, _FULL_16), (8, 8, 8, 4), strict=True):
            if value != full:
                found.append(value)
                continue
            if wide is None or len(wide) < length:
                self._refuse("a length that needs a zip64 field has none", "its lengths are not known", at)
            found.append(int.from_bytes(wide[:length], "little"))
            wide = wide[length:]
        size, packed, local, disk = found
        return size, packed, local, disk

    def _zip64_field(self, extra: bytes, at: int) -> bytes | None:
        found = None
        place = 0
        while place + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, place)
            if kind == _ZIP64_EXTRA:
                if found is not None:
                    self._refuse("it has two zip64 fields for one member", _MANY_READINGS, at, ArchiveError)
                found = extra[place + 4 : place + 4 + length]
            place += 4 + length
        return found

    def _check_kind(self, flags: int, method: int, disk: int, at: int) -> None:
        if flags & _ENCRYPTED:
            self._refuse("its member is encrypted", "no guest could use it", at, EncryptedImageError)
        if flags & ~_KNOWN_FLAGS or disk:
            self._refuse(f"its member has the flags {flags:#06x}", "it is no plain one", at, UnsupportedImageError)
        if method not in {_STORED, _DEFLATED}:
            self._refuse(
                f"its member is packed by the method {method}",
                "only what is stored or deflated is taken",
                at,
                UnsupportedImageError,
            )
        if method == _STORED and flags & _SIZES_FOLLOW:
            # What is stored does not say where it ends: who reads from the beginning on takes for the end whatever in
            # it looks like one.
            self._refuse("its member is stored, and its length stands behind it", _MANY_READINGS, at, ArchiveError)

    def _check_name(self, raw: bytes, flags: int, at: int) -> str:
        try:
            # Without the flag it is in some old code page: ASCII is the same in all of them.
            text = raw.decode("utf-8" if flags & 0x0800 else "ascii")
        except UnicodeDecodeError:
            self._refuse("the name of its member is in an unknown encoding", _MANY_READINGS, at, ArchiveError)
        problem = name_problem(text)
        if problem is not None:
            self._refuse(
                f"its member has a name that {problem} ({text[:80]!a})",
                "whoever unpacks it writes where nobody looks",
                at,
                ArchiveError,
            )
        return text

    def _local(self, raw_name: bytes, expected: tuple[int, int, int, int, int]) -> int:
        """Return where the content begins; the header before it has to say what the directory does."""
        header = self._exactly(0, _LOCAL.size, _LOCAL.size)
        if not header.startswith(_LOCAL_MAGIC):
            self._refuse("there is no header before its member", "what the directory states is not there", 0)
        _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(header)
        rest = self._exactly(_LOCAL.size, names + extras, 2 * _FULL_16)
        size, packed, _, _ = self._widened(rest[names:], (size, packed, 0, 0), 0)
        of_directory = expected
        if flags & _SIZES_FOLLOW:
            # They come after the content: zeros here, or already what they are.
            crc, packed, size = (told or known for told, known in zip((crc, packed, size), expected[2:], strict=True))
        if rest[:names] != raw_name or (flags, method, crc, packed, size) != of_directory:
            self._refuse(
                "the header before its member says something else than the directory at its end", _MANY_READINGS, 0
            )
        return _LOCAL.size + int(names) + int(extras)

    def _check_end(self, end: int, directory: int, expected: tuple[int, int, int, int]) -> None:
        """See to it that nothing but the sizes, where they follow, lies between the content and the directory."""
        flags, *values = expected
        between = directory - end
        if not flags & _SIZES_FOLLOW:
            right = between == 0
        else:
            content = self._window.read(end, between) if between in {12, 16, 20, 24} else b""
            plain = content.removeprefix(_DESCRIPTOR_MAGIC) if between in {16, 24} else content
            form = {12: "<3I", 20: "<I2Q"}.get(len(plain))
            right = form is not None and list(struct.unpack(form, plain)) == values
        if not right:
            self._refuse("its member does not end where the directory begins", _MANY_READINGS, max(0, end))

    def _exactly(self, start: int, length: int, most: int) -> bytes:
        found = self._window.read(start, length) if length <= most and start <= self._window.size_bytes else b""
        if len(found) != length:
            self._refuse("a record of the zip is not inside of the file", "it is cut, or made to mislead", start)
        return found

    def _refuse(self, found: str, why: str, offset: int, kind: type[ImageRefusedError] = CorruptImageError) -> NoReturn:
        raise refusal(kind, self._name, found, why=why, offset=offset)
