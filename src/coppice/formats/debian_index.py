# SPDX-License-Identifier: Apache-2.0
"""What a Debian repository says of itself: ``Release`` (what ``InRelease`` signs) and ``Packages``. Pure.

Nothing here verifies anything. Whoever reads a ``Release`` has verified its signature; whoever reads ``Packages`` has
compared its bytes with what that ``Release`` says of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from coppice.clock import require_aware
from coppice.errors import DocumentError
from coppice.formats.deb_version import DebVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

RELEASE_LIMIT_BYTES = 4 * 1024 * 1024
MAX_PACKAGES = 500_000
PARAGRAPH_LIMIT_BYTES = 1024 * 1024
_MAX_FILES = 50_000
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63}):[ \t]*(.*)")
_FILE = re.compile(r"[ \t]+([0-9a-f]{64})[ \t]+([0-9]{1,15})[ \t]+(\S{1,400})[ \t]*")
_NAME = re.compile(rb"[a-z0-9][a-z0-9+.-]{0,127}")
_PACKAGE = re.compile(rb"^Package: *(.*?) *$", re.MULTILINE)
_VERSION = re.compile(rb"^Version: *(.*?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    """A file that a ``Release`` vouches for.

    Attributes:
        size_bytes: Its length.
        sha256: Of its bytes, in hexadecimal.
    """

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A ``Release`` file.

    Attributes:
        origin: Who made it; empty: it does not say.
        label: What it is called (``Debian-Security``); empty: likewise.
        suite: ``stable-security`` …; empty: likewise.
        codename: ``bookworm-security`` …; empty: likewise.
        date: When it was made.
        valid_until: After this it must not be believed any more; None: it does not say.
        by_hash: Whether each file can also be had by its digest, which no later state takes away.
        files: What it vouches for, by path relative to it.
    """

    origin: str
    label: str
    suite: str
    codename: str
    date: datetime
    valid_until: datetime | None
    by_hash: bool
    files: Mapping[str, IndexedFile]

    @property
    def is_security(self) -> bool:
        """Whether what it has are security updates."""
        names = (self.suite.lower(), self.codename.lower(), self.label.lower())
        return any(name.endswith(("-security", "/updates")) for name in names)


def read_release(text: bytes) -> Release:
    """Return what a ``Release`` says.

    Raises:
        DocumentError: It is none.
    """
    fields, files = _release_fields(text)
    if "date" not in fields:
        raise DocumentError("the Release has no date")
    until = fields.get("valid-until")
    return Release(
        origin=fields.get("origin", ""),
        label=fields.get("label", ""),
        suite=fields.get("suite", ""),
        codename=fields.get("codename", ""),
        date=_instant(fields["date"]),
        valid_until=None if until is None else _instant(until),
        by_hash=fields.get("acquire-by-hash", "").lower() == "yes",
        files=files,
    )


def read_packages(pieces: Iterable[bytes]) -> dict[str, str]:
    """Return the highest version of each package that a ``Packages`` file has, by name.

    Args:
        pieces: Its bytes, in order.

    Raises:
        DocumentError: It is no such file.
    """
    found: dict[str, str] = {}
    for paragraph in _paragraphs(pieces):
        name, version = _package(paragraph)
        known = found.get(name)
        if known is None:
            if len(found) >= MAX_PACKAGES:
                raise DocumentError(f"the Packages file names more than {MAX_PACKAGES} packages")
            found[name] = version
        elif DebVersion(version) > DebVersion(known):
            found[name] = version
    return found


def _release_fields(text: bytes) -> tuple[dict[str, str], dict[str, IndexedFile]]:
    if len(text) > RELEASE_LIMIT_BYTES:
        raise DocumentError(f"the Release is longer than {RELEASE_LIMIT_BYTES} bytes")
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError as problem:
        raise DocumentError("the Release is not text in UTF-8") from problem
    fields: dict[str, str] = {}
    files: dict[str, IndexedFile] = {}
    current = ""
    for line in lines:
        if not line.strip():
            continue
        if line[0] in " \t":
            if current == "sha256":
                _add_file(files, line)
            continue
        field = _FIELD.fullmatch(line)
        if field is None or field[1].lower() in fields:
            raise DocumentError(f"the Release has a line that has no place in it: {line[:80]!r}")
        current = field[1].lower()
        fields[current] = field[2].strip()
    if not files:
        raise DocumentError("the Release vouches for no file by SHA-256")
    return fields, files


def _add_file(files: dict[str, IndexedFile], line: str) -> None:
    entry = _FILE.fullmatch(line)
    if entry is None or len(files) >= _MAX_FILES:
        raise DocumentError(f"the Release has a file that cannot be read: {line[:120]!r}")
    known = IndexedFile(size_bytes=int(entry[2]), sha256=entry[1])
    if files.setdefault(entry[3], known) != known:
        raise DocumentError(f"the Release says two things of {entry[3][:80]!r}")


def _instant(text: str) -> datetime:
    # "Sat, 10 Jun 2023 08:53:33 UTC": nearly what mail has, which knows "UTC" as a zone that is not known.
    try:
        return require_aware(parsedate_to_datetime(re.sub(r" (?:UTC|GMT|Z)$", " +0000", text.strip())))
    except (ValueError, TypeError, IndexError) as problem:
        raise DocumentError(f"the Release has a date that is none: {text[:60]!r}") from problem


def _paragraphs(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        yield from (each for each in whole if each.strip())
        if len(rest) > PARAGRAPH_LIMIT_BYTES:
            raise DocumentError(f"the Packages file has an entry of more than {PARAGRAPH_LIMIT_BYTES} bytes")
    if rest.strip():
        yield rest


def _package(paragraph: bytes) -> tuple[str, str]:
    names, versions = _PACKAGE.findall(paragraph), _VERSION.findall(paragraph)
    if len(names) != 1 or len(versions) != 1 or not _NAME.fullmatch(names[0]):
        raise DocumentError(f"the Packages file has an entry that is no package: {paragraph[:80]!r}")
    try:
        version = versions[0].decode("ascii")
        DebVersion(version)
    except (UnicodeDecodeError, ValueError) as problem:
        raise DocumentError(f"the package {names[0].decode()} has a version that is none") from problem
    return names[0].decode(), version
