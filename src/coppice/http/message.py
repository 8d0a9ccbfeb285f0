# SPDX-License-Identifier: Apache-2.0
"""What goes into a request and what comes out of an answer; nothing in here can break a header."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self

from coppice.errors import InputError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.http.credential import Credential

PIECE_BYTES = 256 * 1024
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "MKCOL", "MOVE", "COPY", "PROPFIND", "OPTIONS"})
SAFE_METHODS = frozenset({"GET", "HEAD", "PROPFIND", "OPTIONS"})
"""Change nothing on the server (RFC 9110, 9.2.1; RFC 4918, 9.1): may be asked again."""

_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,512}"')
_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_HEADER_LIMIT = 16 * 1024
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""What the client says itself, or never says."""
_FIRM_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What a server called the state of a resource when it was read: sent back, it makes a request conditional.

    A value that does not have the form of RFC 9110 (8.8.2, 8.8.3), or is too long, is taken for none: such values come
    from servers and out of databases, and go into headers.

    Attributes:
        etag: Entity tag, with its quotes, weak or strong.
        last_modified: Date, as the server wrote it.
    """

    etag: str | None = None
    last_modified: str | None = None

    def __post_init__(self) -> None:
        if self.etag is not None and not _ETAG.fullmatch(self.etag):
            object.__setattr__(self, "etag", None)
        if self.last_modified is not None and not _DATE.fullmatch(self.last_modified):
            object.__setattr__(self, "last_modified", None)

    def __bool__(self) -> bool:
        return self.etag is not None or self.last_modified is not None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return what ``headers`` (names in lower case) say, if what they speak of was firm when the answer was made.

        Within the second of its date the resource could have changed once more, with the same date (RFC 9110,
        8.8.2.2); and with the same tag, which servers of files make of date and size. A tag that no date stands beside
        is taken at its word. Where a date cannot be read, or the server does not say when it answered, nobody knows.
        """
        found = cls.seen(headers)
        if "last-modified" in headers:
            changed, answered = _date(headers["last-modified"]), _date(headers.get("date", ""))
            if changed is None or answered is None or (answered - changed).total_seconds() < _FIRM_SECONDS:
                return cls()
        return found

    @classmethod
    def seen(cls, headers: Mapping[str, str]) -> Self:
        """Return what ``headers`` (names in lower case) say, firm or not: to be compared, not to be relied on."""
        return cls(etag=headers.get("etag"), last_modified=headers.get("last-modified"))

    @property
    def is_strong(self) -> bool:
        """Whether there is an entity tag that changes with every byte (RFC 9110, 8.8.3)."""
        return self.etag is not None and not self.etag.startswith("W/")

    def contradicts(self, other: Validators) -> bool:
        """Whether both speak of the state, and do not mean the same one."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return any(one is not None and two is not None and one != two for one, two in pairs)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that make a request conditional."""
        found = {}
        if self.etag is not None:
            found["If-None-Match"] = self.etag
        if self.last_modified is not None:
            found["If-Modified-Since"] = self.last_modified
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a conditional request gave.

    Attributes:
        body: What is there; None: the same as when ``validators`` were given.
        validators: For the next request; they hold for the URL that was asked for, and for no other.
    """

    body: bytes | None
    validators: Validators


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        status: HTTP status.
        headers: Names in lower case; what came several times is joined by commas.
        body: As the server sent it, never decoded.
        url: What answered, without user information.
        was_redirected: Whether that is another URL than the one that was asked for.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str
    was_redirected: bool = False

    def header(self, name: str) -> str | None:
        """Return a header, whatever the case of its name."""
        return self.headers.get(name.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFile:
    """A file, or a part of one, that is sent as a body without being held in memory.

    Attributes:
        path: The file; it is opened anew for each attempt.
        size_bytes: How much of it is sent, exactly.
        offset_bytes: Where the part begins.
    """

    path: Path
    size_bytes: int
    offset_bytes: int = 0

    def pieces(self) -> Iterator[bytes]:
        """Yield what is sent.

        Raises:
            UnreadableFileError: It cannot be read, or ends before its size.
        """
        left = self.size_bytes
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb", buffering=0) as stream:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise UnreadableFileError(f"{self.path} is no regular file", context={"path": str(self.path)})
                stream.seek(self.offset_bytes)
                while left and (piece := stream.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                    yield piece
        except OSError as problem:
            raise UnreadableFileError(
                f"{self.path} cannot be read: {problem.strerror}", context={"path": str(self.path)}
            ) from problem
        if left:
            raise UnreadableFileError(
                f"{self.path} is {left} bytes shorter than it was",
                resolution="Something else changes the file; run again when it is finished.",
                context={"path": str(self.path)},
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked at a location.

    Attributes:
        method: One of `METHODS`.
        headers: Beside those that the client says itself.
        body: What is sent.
        credential: Shown to the server that was asked first, and to no other.
        validators: Sent to the URL that was asked for, and to no other.
        server_anchors: Authorities that the server's certificate may come from, beside the machine's.
        accepted: Status codes that are an answer; all others are errors.
    """

    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | BodyFile | None = field(default=None, repr=False)
    credential: Credential | None = None
    validators: Validators | None = None
    server_anchors: Path | None = None
    accepted: frozenset[int] = frozenset({200})

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"{self.method[:40]!r} is no method that can be asked for")
        for name, value in self.headers.items():
            _check_header(name, value)

    @property
    def is_safe(self) -> bool:
        """Whether it changes nothing on the server, and may be asked again."""
        return self.method in SAFE_METHODS


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
        raise InputError(f"{name[:80]!r} is no header that can be set")
    if len(value) > _HEADER_LIMIT or not _HEADER_VALUE.fullmatch(value):
        raise InputError(
            f"the header {name} would have a value that cannot be sent",
            resolution="Use printable ASCII characters, on one line, without spaces at the ends.",
        )


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None
