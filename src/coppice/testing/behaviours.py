# SPDX-License-Identifier: Apache-2.0
"""What a server on loopback can be told to do with a request: to answer well, badly, slowly, or for ever."""

from __future__ import annotations

import gzip
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.server import BaseHTTPRequestHandler

_PIECE_BYTES = 256 * 1024


@dataclass
class Conversation:
    """What a behaviour answers through."""

    handler: BaseHTTPRequestHandler
    stopping: threading.Event = field(default_factory=threading.Event)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def whole(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        """Send a whole response."""
        self.head(status, headers)
        self.body(data)

    def body(self, data: bytes) -> None:
        """Send bytes of the body."""
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def pause(self, seconds: float) -> bool:
        """Wait; False when the server is being stopped."""
        return not self.stopping.wait(seconds)

    def reset(self) -> None:
        """End the connection with a reset instead of an orderly close."""
        linger = struct.pack("ii", 1, 0)
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def _length(data: bytes) -> dict[str, str]:
    return {"Content-Length": str(len(data))}


def serve(data: bytes) -> Behaviour:
    """Answer 200 with ``data``."""
    return lambda talk: talk.whole(200, _length(data), data)


def status(code: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer with a status."""
    return lambda talk: talk.whole(code, {**_length(body), **(headers or {})}, body)


def redirect(target: str, code: int = 302) -> Behaviour:
    """Redirect to ``target``."""
    return status(code, headers={"Location": target})


def cut(data: bytes, after: int, *, reset: bool = False) -> Behaviour:
    """Announce all of ``data`` and end the connection after some bytes of it."""

    def behave(talk: Conversation) -> None:
        talk.head(200, _length(data))
        talk.body(data[:after])
        if reset:
            talk.reset()

    return behave


def without_length(data: bytes) -> Behaviour:
    """Send ``data`` without saying how long it is."""
    return lambda talk: talk.whole(200, {}, data)


def chunked(data: bytes, *, cut_after: int | None = None) -> Behaviour:
    """Send ``data`` in chunks; with ``cut_after``, end in the middle of the last one."""

    def behave(talk: Conversation) -> None:
        talk.head(200, {"Transfer-Encoding": "chunked"})
        sent = data if cut_after is None else data[:cut_after]
        for start in range(0, len(sent), _PIECE_BYTES):
            piece = sent[start : start + _PIECE_BYTES]
            talk.body(b"%x\r\n%s\r\n" % (len(piece), piece))
        talk.body(b"0\r\n\r\n" if cut_after is None else b"ffff\r\nhalf")

    return behave


def stall(data: bytes, after: int, seconds: float = 3600) -> Behaviour:
    """Send some bytes of ``data``, then nothing for a long time."""

    def behave(talk: Conversation) -> None:
        talk.head(200, _length(data))
        talk.body(data[:after])
        talk.pause(seconds)

    return behave


def drip(data: bytes, interval_seconds: float) -> Behaviour:
    """Send ``data`` byte by byte."""

    def behave(talk: Conversation) -> None:
        talk.head(200, _length(data))
        for position in range(len(data)):
            talk.body(data[position : position + 1])
            if not talk.pause(interval_seconds):
                return

    return behave


def drip_head(interval_seconds: float) -> Behaviour:
    """Never end the headers."""

    def behave(talk: Conversation) -> None:
        talk.body(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while talk.pause(interval_seconds):
            talk.body(b"x")

    return behave


def endless(piece: bytes = b"\0" * 65536) -> Behaviour:
    """Send for ever, without saying how much."""

    def behave(talk: Conversation) -> None:
        talk.head(200, {})
        while not talk.stopping.is_set():
            talk.body(piece)

    return behave


def raw(data: bytes) -> Behaviour:
    """Send ``data`` as it is, head and all."""
    return lambda talk: talk.body(data)


def conditional(data: bytes, *, etag: str | None = None, last_modified: str | None = None) -> Behaviour:
    """Answer 304 to a request whose condition says that it knows ``data``, 200 to others."""
    named = {name: value for name, value in (("ETag", etag), ("Last-Modified", last_modified)) if value is not None}

    def behave(talk: Conversation) -> None:
        asked = talk.handler.headers
        known = asked.get("If-None-Match")
        if known is not None:
            is_known = etag is not None and known.removeprefix("W/") == etag.removeprefix("W/")
        else:
            is_known = last_modified is not None and asked.get("If-Modified-Since") == last_modified
        if is_known:
            talk.head(304, named)
        else:
            talk.whole(200, {**_length(data), **named}, data)

    return behave


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """A web server's file, of which it gives parts, with a fault if one is named.

    Attributes:
        data: The file.
        etag: What it calls its state; None: nothing.
        cut_after: It ends the connection after so many bytes of each answer; None: never.
        stall_after: It falls silent after so many bytes of each answer; None: never.
        bytes_per_second: How fast each connection is; None: as fast as it goes.
        lie: ``ignored``: a part is answered with the whole; ``shifted``: with a part one byte further on, which it
            says; ``unsaid``: without saying which; ``other-total``: as of a longer file; ``refused``: with 416;
            ``longer``: with more than was asked for; ``no-if-range``: the condition is not looked at.
    """

    data: bytes
    etag: str | None = '"one"'
    cut_after: int | None = None
    stall_after: int | None = None
    bytes_per_second: int | None = None
    lie: str = ""

    def __call__(self, talk: Conversation) -> None:
        """Answer."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", talk.handler.headers.get("Range") or "")
        condition = talk.handler.headers.get("If-Range")
        named = {"Accept-Ranges": "bytes", **({} if self.etag is None else {"ETag": self.etag})}
        holds = condition is None or condition == self.etag or self.lie == "no-if-range"
        if asked is None or self.lie == "ignored" or not holds:
            talk.head(200, {**named, "Content-Length": str(len(self.data))})
            self._send(talk, self.data)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(self.data)) + 1, len(self.data))
        if start >= len(self.data) or self.lie == "refused":
            talk.whole(416, {"Content-Range": f"bytes */{len(self.data)}", "Content-Length": "0"}, b"")
            return
        if self.lie == "shifted":
            start = min(start + 1, len(self.data) - 1)
        total = len(self.data) + (self.lie == "other-total")
        part = self.data[start:end] + (bytes(5_000_000) if self.lie == "longer" else b"")
        said = {} if self.lie == "unsaid" else {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        talk.head(206, {**named, **said, "Content-Length": str(len(part))})
        self._send(talk, part)

    def _send(self, talk: Conversation, data: bytes) -> None:
        stop = min(each for each in (self.cut_after, self.stall_after, len(data)) if each is not None)
        piece = _PIECE_BYTES if self.bytes_per_second is None else max(1, self.bytes_per_second // 50)
        for start in range(0, stop, piece):
            talk.body(data[start : min(start + piece, stop)])
            if self.bytes_per_second is not None and not talk.pause(piece / self.bytes_per_second):
                return
        if self.stall_after is not None and stop < len(data):
            talk.pause(3600)


def guarded(authorization: str, then: Behaviour, challenge: str = 'Basic realm="lists"') -> Behaviour:
    """Answer 401 unless the request has just this Authorization header."""
    refused = status(401, b"not you", {"WWW-Authenticate": challenge})
    return lambda talk: (then if talk.handler.headers.get("Authorization") == authorization else refused)(talk)


def gzip_encoded(data: bytes, *, compress: bool = True) -> Behaviour:
    """Claim ``Content-Encoding: gzip``, unasked."""
    sent = gzip.compress(data) if compress else data
    return lambda talk: talk.whole(200, {**_length(sent), "Content-Encoding": "gzip"}, sent)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Behave in another way at each request; the last one stays."""
    left = list(behaviours)

    def behave(talk: Conversation) -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        now(talk)

    return behave


if TYPE_CHECKING:
    Behaviour = Callable[[Conversation], object]
