# SPDX-License-Identifier: Apache-2.0
"""Tar archives that carry an appliance, read strictly: regular files with plain names, and nothing beside them.

Headers are those of POSIX (IEEE Std 1003.1, pax: "ustar Interchange Format" and "pax Extended Header"), and of GNU tar
as far as they say the name and the length of a regular file. Nothing is ever extracted: a member is a stretch of the
archive. What two readers could take for two different archives is refused.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from coppice.errors import ArchiveError, CorruptImageError
from coppice.formats.refusal import refusal
from coppice.formats.tar_header import (
    BLOCK_BYTES,
    REGULAR,
    TarHeader,
    header_checksum_is_right,
    name_problem,
    read_header,
)
from coppice.formats.tar_pax import GLOBAL_KEYS, pax_problem, read_records

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]

MAX_EXTENSION_BYTES = 64 * 1024
"""Longest extended header: names and numbers only."""
MAX_PADDING_BYTES = 1024 * 1024
"""Most zeros after the last member: the longest record that a tar writes (``--blocking-factor=2048``)."""
_LARGEST_OCTAL = 0o77777777777
_NAME_FIELD_BYTES = 100
_STEP_BYTES = 64 * 1024
_KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a character device",
    "4": "a block device",
    "5": "a directory",
    "6": "a FIFO",
    "7": "a contiguous file",
    "D": "a directory of a GNU incremental archive",
    "K": "a long link name of GNU tar",
    "M": "the continuation of another volume",
    "N": "an old long name of GNU tar",
    "S": "a sparse file of GNU tar",
    "V": "a volume label",
    "X": "an extended header of Solaris",
}
_WHY_REGULAR = "an appliance has regular files only, and whoever unpacks anything else is led elsewhere"
_WHY_ONE_READING = "programs would read different archives out of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One regular file of an archive.

    Attributes:
        name: As it is written there; it leads nowhere.
        header_offset: Where its first header begins, in bytes.
        offset: Where its content begins.
        size_bytes: Its length.
    """

    name: str
    header_offset: int
    offset: int
    size_bytes: int


def is_tar(head: bytes) -> bool:
    """Tell whether what begins so calls itself a tar archive, be it a broken one.

    Args:
        head: The first 512 bytes, or more.
    """
    block = head[:BLOCK_BYTES]
    if len(block) < BLOCK_BYTES:
        return False
    # The checksum tells the oldest archives, which bear no mark. A disk has it by chance once in a million millions.
    return block[257:262] == b"ustar" or (block[0] != 0 and header_checksum_is_right(block))


def read_members(read: Read, size_bytes: int, *, maximum_members: int, name: str) -> tuple[TarMember, ...]:
    """Return the files of an archive, in the order in which they stand.

    Args:
        read: Returns bytes of it: from where, and how many.
        size_bytes: Its length.
        maximum_members: Most files.
        name: Of the archive, for messages.

    Raises:
        ArchiveError: A member is no regular file, or has a name that leads elsewhere or is there twice; there are too
            many; or programs would read different archives out of the file.
        CorruptImageError: The archive is cut off, or a header is damaged.
    """
    return _Reading(read, size_bytes, maximum_members, name).members()


class _Reading:
    """One pass over the headers of an archive."""

    def __init__(self, read: Read, size_bytes: int, maximum_members: int, name: str) -> None:
        self._read, self._size, self._name = read, size_bytes, name
        self._maximum = maximum_members
        self._at = 0
        self._seen: dict[str, str] = {}
        self._members: list[TarMember] = []
        self._globals = 0

    def members(self) -> tuple[TarMember, ...]:
        while (header := self._next_header()) is not None:
            self._take(header)
        self._require_only_zeros()
        return tuple(self._members)

    def _next_header(self) -> TarHeader | None:
        """Return the header at the place, which is moved behind it; None for the zeros at the end."""
        block = self._read(self._at, BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            if not self._members and not self._at:
                self._corrupt("it has not even one header")
            self._corrupt("the archive ends without its end mark, a block of zeros", why="files may be missing")
        if not any(block):
            return None
        try:
            header = read_header(block)
        except ValueError as problem:
            self._corrupt(f"the header is damaged: {problem}")
        if header.kind not in REGULAR and header.kind not in "xgL":
            kind = _KINDS.get(header.kind, f"something of the unknown type {header.kind!r}")
            self._refuse(f"the member {_shown(header.name)} is {kind}", why=_WHY_REGULAR)
        self._at += BLOCK_BYTES
        if header.size_bytes > self._size - self._at:
            self._at -= BLOCK_BYTES
            self._corrupt(
                f"the member {_shown(header.name)} would have {header.size_bytes} bytes, and "
                f"{self._size - self._at - BLOCK_BYTES} are left in the archive"
            )
        return header

    def _take(self, header: TarHeader) -> None:
        start = self._at - BLOCK_BYTES
        records: dict[str, str] = {}
        long_name: str | None = None
        while header.kind not in REGULAR:
            if header.kind == "L":
                if long_name is not None or records:
                    self._refuse("a name is given twice", why=_WHY_ONE_READING, offset=start)
                long_name = self._long_name(header)
            else:
                found = self._records(header)
                if header.kind == "x":
                    if records or long_name is not None:
                        self._refuse("a file has two extended headers", why=_WHY_ONE_READING, offset=start)
                    records = found or {"comment": ""}
            following = self._next_header()
            if following is None:
                self._corrupt("an extended header has no file", offset=start)
            header = following
        self._add(header, start, records, long_name)

    def _add(self, header: TarHeader, start: int, records: dict[str, str], long_name: str | None) -> None:
        if len(self._members) >= self._maximum:
            self._refuse(
                f"it has more than {self._maximum} members", why="an appliance has a handful of files", offset=start
            )
        size = self._size_of(header, records, start)
        name = self._name_of(header, records, long_name, start)
        self._claim(name, start)
        self._members.append(TarMember(name=name, header_offset=start, offset=self._at, size_bytes=size))
        self._at += size + -size % BLOCK_BYTES

    def _claim(self, name: str, start: int) -> None:
        problem = name_problem(name)
        if problem is not None:
            self._refuse(
                f"the member {_shown(name)} has a name that {problem}",
                why="whoever unpacks it writes where nobody looks, or runs what the name says",
                offset=start,
            )
        # A file system may take two such names for the same file: the one is checked, and the other one is used.
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        folded = folded.removeprefix("./")
        if folded in self._seen:
            self._refuse(
                f"the members {_shown(self._seen[folded])} and {_shown(name)} have the same name",
                why="one program reads the first, another one the last",
                offset=start,
            )
        self._seen[folded] = name

    def _size_of(self, header: TarHeader, records: dict[str, str], start: int) -> int:
        if "size" not in records:
            return header.size_bytes
        text = records["size"]
        size = int(text) if len(text) <= 19 and text.isascii() and text.isdecimal() else -1  # noqa: PLR2004 - 2**63
        plain = header.size_bytes
        needed = size > _LARGEST_OCTAL and plain in {0, _LARGEST_OCTAL, size}
        if size != plain and not needed:
            self._refuse(
                f"an extended header says that a member has {text[:24]!r} bytes, its header says {plain}",
                why=_WHY_ONE_READING,
                offset=start,
            )
        if size > self._size - self._at:
            self._corrupt(
                f"a member would have {size} bytes, and {self._size - self._at} are left in the archive", offset=start
            )
        return size

    def _name_of(self, header: TarHeader, records: dict[str, str], long_name: str | None, start: int) -> str:
        plain = header.name
        other = records.get("path", long_name)
        if other is None:
            if isinstance(plain, bytes):
                self._refuse(
                    f"the member {_shown(plain)} has a name that is no UTF-8",
                    why="each program would read another name",
                    offset=start,
                )
            return plain
        told = header.name_bytes
        whole = other.encode()
        if long_name is not None:
            fits = len(whole) >= _NAME_FIELD_BYTES - 1 and len(told) >= _NAME_FIELD_BYTES - 1 and whole.startswith(told)
        else:
            # Only what a plain header cannot hold has another one's name: a long one, or one that is not ASCII.
            fits = not other.isascii() or len(whole) > _NAME_FIELD_BYTES
        if told != whole and not fits:
            self._refuse(
                f"an extended header calls a member {_shown(other)}, its header {_shown(plain)}",
                why=_WHY_ONE_READING,
                offset=start,
            )
        if told != whole and long_name is None:
            # A program that knows no extended headers goes by this name.
            self._claim(told.decode("utf-8", "replace").replace("\ufffd", "?").rstrip("/ "), start)
        return other

    def _records(self, header: TarHeader) -> dict[str, str]:
        start = self._at - BLOCK_BYTES
        if header.kind == "g":
            self._globals += 1
            if self._globals > self._maximum:
                self._refuse("it has too many global headers", why="an appliance needs none", offset=start)
        try:
            found = read_records(self._extension(header))
        except ValueError as problem:
            self._corrupt(f"an extended header is damaged: {problem}", offset=start)
        for key in sorted(found):
            reason = pax_problem(key, found[key])
            if reason is None and header.kind == "g" and key not in GLOBAL_KEYS:
                reason = "is set for all members at once"
            if reason is not None:
                self._refuse(
                    f"an extended header says {key[:40]!r}, which {reason}", why=_WHY_ONE_READING, offset=start
                )
        return found

    def _long_name(self, header: TarHeader) -> str:
        start = self._at - BLOCK_BYTES
        content = self._extension(header).rstrip(b"\0")
        try:
            return content.decode()
        except UnicodeDecodeError:
            self._refuse("a long name is no UTF-8", why="each program would read another name", offset=start)

    def _extension(self, header: TarHeader) -> bytes:
        size = header.size_bytes
        if size > MAX_EXTENSION_BYTES:
            self._at -= BLOCK_BYTES
            self._refuse(
                f"an extended header has {size} bytes; at most {MAX_EXTENSION_BYTES} are taken",
                why="names and numbers need no more",
            )
        whole = self._read(self._at, size + -size % BLOCK_BYTES)
        if any(whole[size:]):
            # There are programs that read on to the end of the block.
            self._refuse("something follows an extended header in its block", why=_WHY_ONE_READING)
        self._at += size + -size % BLOCK_BYTES
        return whole[:size]

    def _require_only_zeros(self) -> None:
        left = self._size - self._at
        if left > MAX_PADDING_BYTES:
            self._refuse(f"{left} bytes follow after the end of the archive", why=_WHY_ONE_READING)
        while self._at < self._size:
            piece = self._read(self._at, min(_STEP_BYTES, self._size - self._at))
            if not piece:
                self._corrupt("the file ended while it was read")
            if any(piece):
                self._at += next(place for place, byte in enumerate(piece) if byte)
                self._refuse("something follows after the end of the archive", why=_WHY_ONE_READING)
            self._at += len(piece)

    def _refuse(self, found: str, *, why: str, offset: int | None = None) -> NoReturn:
        raise refusal(ArchiveError, self._name, found, why=why, offset=self._at if offset is None else offset)

    def _corrupt(self, found: str, *, why: str = "what it says is not there", offset: int | None = None) -> NoReturn:
        raise refusal(CorruptImageError, self._name, found, why=why, offset=self._at if offset is None else offset)


def _shown(name: str | bytes) -> str:
    return ascii(name[:80])
