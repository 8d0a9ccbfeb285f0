# SPDX-License-Identifier: Apache-2.0
"""One header of a tar archive: 512 bytes, read and written (IEEE Std 1003.1, "ustar Interchange Format")."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_BYTES = 512
REGULAR = ("0", "\0")
"""Types of a regular file."""
MAX_NAME_BYTES = 255
_POSIX = b"ustar\x0000"
_POSIX_UNVERSIONED = b"ustar\x00\x00\x00"
_GNU = b"ustar  \x00"
_NAME, _PREFIX, _GNU_EXTRAS = slice(0, 100), slice(345, 500), slice(345, 512)
_CHECKSUM = slice(148, 156)
_NUMBERS = (slice(100, 108), slice(108, 116), slice(116, 124), slice(136, 148), slice(329, 337), slice(337, 345))
"""Mode, owner, group, date, and the numbers of a device."""
_LARGEST_OCTAL = 0o77777777777
_LARGEST = 2**63 - 1
_NAME_BYTES = 100
_BASE_256, _BASE_256_NEGATIVE = 0x80, 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class TarHeader:
    """What counts of a header.

    Attributes:
        name_bytes: The name, with its prefix.
        kind: The type, one character.
        size_bytes: Length of the content that follows.
    """

    name_bytes: bytes
    kind: str
    size_bytes: int

    @property
    def name(self) -> str | bytes:
        """The name as text; the bytes where they are no UTF-8."""
        try:
            return self.name_bytes.decode()
        except UnicodeDecodeError:
            return self.name_bytes


def header_checksum_is_right(block: bytes) -> bool:
    """Tell whether a block holds its own checksum."""
    digits = block[_CHECKSUM].rstrip(b" \0").lstrip(b" ")
    return _is_octal(digits) and int(digits, 8) == _sum(block)


def read_header(block: bytes) -> TarHeader:
    """Return what a header says.

    Args:
        block: Its 512 bytes.

    Raises:
        ValueError: It is damaged, or of no kind that is taken; the message says why.
    """
    if not header_checksum_is_right(block):
        message = "its checksum does not fit"
        raise ValueError(message)
    mark = block[257:265]
    if mark not in {_POSIX, _POSIX_UNVERSIONED, _GNU}:
        message = "it is neither ustar nor of GNU tar"
        raise ValueError(message)
    name, prefix = (block[place].partition(b"\0")[0] for place in (_NAME, _PREFIX))
    if mark == _GNU and any(block[_GNU_EXTRAS]):
        # There GNU tar keeps the times of incremental archives and the map of a sparse file; other programs read a part
        # of the name, or a map for a file that is none.
        message = "it has more than the name and the length of a file, as GNU tar's sparse and incremental archives do"
        raise ValueError(message)
    if not all(_is_number(block[place]) for place in _NUMBERS):
        # A program that takes them seriously ends its reading here, and does not see what follows.
        message = "its mode, owner, date or device is no number"
        raise ValueError(message)
    return TarHeader(
        name_bytes=prefix + b"/" + name if prefix else name,
        kind=chr(block[156]),
        size_bytes=_number(block[124:136]),
    )


def name_problem(name: str) -> str | None:
    """Return why a member must not be called so, in words; None: it may."""
    parts = name.removeprefix("./").split("/")
    reasons = (
        (not name, "is empty"),
        (len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES, f"is longer than {MAX_NAME_BYTES} bytes"),
        (name.startswith("/"), "is absolute"),
        (".." in parts, "leads upwards"),
        ("" in parts or "." in parts, "has an empty part, or ends in a slash"),
        (any(part.startswith("-") for part in parts), "begins with a dash, as an option does"),
        ("\\" in name, "has a backslash"),
        (not name.isprintable(), "has control characters"),
        (any(part != part.strip() for part in parts), "begins or ends with a space"),
    )
    return next((words for wrong, words in reasons if wrong), None)


def ustar_header(name: str, size_bytes: int) -> bytes:
    """Return the header of a regular file; the same bytes for the same file, whoever writes them and when.

    A length that eleven octal digits cannot hold (8 GiB) is written in base 256, as GNU tar does.

    Args:
        name: ASCII, at most 100 bytes.
        size_bytes: Length of the file.

    Raises:
        ValueError: The name does not fit, or the length.
    """
    encoded = name.encode("ascii")
    if name_problem(name) is not None or len(encoded) > _NAME_BYTES or not 0 <= size_bytes <= _LARGEST:
        message = f"a tar header cannot hold a file {name!r} of {size_bytes} bytes"
        raise ValueError(message)
    size = b"%011o\0" % size_bytes if size_bytes <= _LARGEST_OCTAL else b"\x80" + size_bytes.to_bytes(11, "big")
    fields = (
        encoded.ljust(_NAME_BYTES, b"\0"),
        b"0000644\0",
        b"0000000\0" * 2,
        size,
        b"00000000000\0",
        b" " * 8,
        b"0".ljust(101, b"\0"),
        _POSIX,
        b"root".ljust(32, b"\0") * 2,
        b"0000000\0" * 2,
    )
    block = bytearray(b"".join(fields).ljust(BLOCK_BYTES, b"\0"))
    block[_CHECKSUM] = b"%06o\0 " % _sum(bytes(block))
    return bytes(block)


def padding(size_bytes: int) -> bytes:
    """Return the zeros that fill the last block of a content of that length."""
    return bytes(-size_bytes % BLOCK_BYTES)


ARCHIVE_END = bytes(2 * BLOCK_BYTES)
"""What ends an archive."""


def _sum(block: bytes) -> int:
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:BLOCK_BYTES])


def _number(field: bytes) -> int:
    if field[0] == _BASE_256:
        number = int.from_bytes(field[1:], "big")
        if number > _LARGEST:
            message = "its length is beyond all bounds"
            raise ValueError(message)
        return number
    digits = field.partition(b"\0")[0].strip(b" ")
    if not _is_octal(digits):
        message = f"its length is no number: {field[:12]!r}"
        raise ValueError(message)
    return int(digits, 8)


def _is_number(field: bytes) -> bool:
    if field[0] in {_BASE_256, _BASE_256_NEGATIVE}:
        return True
    digits = field.partition(b"\0")[0].strip(b" ")
    return not digits or _is_octal(digits)


def _is_octal(digits: bytes) -> bool:
    return bool(digits) and all(ord("0") <= digit <= ord("7") for digit in digits)
