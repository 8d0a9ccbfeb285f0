# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback: one that misbehaves on demand (tests), and a plain one for files (tests and the demo)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from coppice.testing.behaviours import (
    Conversation,
    Ranged,
    chunked,
    conditional,
    cut,
    drip,
    drip_head,
    endless,
    guarded,
    gzip_encoded,
    in_turn,
    raw,
    redirect,
    serve,
    stall,
    status,
    without_length,
)
from coppice.testing.tls import throw_away_tls

__all__ = [
    "Conversation",
    "LoopbackServer",
    "Ranged",
    "RecordedRequest",
    "StaticServer",
    "chunked",
    "conditional",
    "cut",
    "drip",
    "drip_head",
    "endless",
    "guarded",
    "gzip_encoded",
    "in_turn",
    "raw",
    "redirect",
    "serve",
    "stall",
    "status",
    "throw_away_tls",
    "without_length",
]

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from coppice.testing.behaviours import Behaviour

_PIECE_BYTES = 256 * 1024
_KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """A request that came.

    Attributes:
        method: As it was written.
        path: With its query.
        headers: As they were written.
        size_bytes: Of the body that came.
        sha256: Of that body, in hexadecimal.
        body: The body, unless it is larger than a mebibyte.
        client: Common name of the client's certificate; None: it showed none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    size_bytes: int = 0
    sha256: str = ""
    body: bytes | None = None
    client: str | None = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        connection.settimeout(60)
        if self.tls is not None:
            # The handshake happens in the connection's own thread, so that a silent client stops nobody.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, peer

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that leave early are what these servers are for."""


class _Loopback:
    """Starts and stops a server in a thread."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int, tls: ssl.SSLContext | None, host: str) -> None:
        self._server = _Server((host, port), handler)
        self._server.tls = tls
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port on loopback."""
        return int(self._server.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return the URL of ``path``."""
        return f"{self._scheme}://{host}:{self.port}/{path.lstrip('/')}"

    def start(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End all that is going on; returns when nothing is left."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class LoopbackServer(_Loopback):
    """Does at each path what it is told.

    Args:
        port: 0: any free one.
        tls: For HTTPS (`coppice.testing.tls`).
        latency_seconds: How long it thinks before each answer.
    """

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None, latency_seconds: float = 0.0) -> None:
        self.requests: list[RecordedRequest] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._hasty: set[str] = set()
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                path = urlsplit(self.path).path
                outer.requests.append(_recorded(self, with_body=path not in outer._hasty))
                if latency_seconds:
                    outer._stopping.wait(latency_seconds)
                behaviour = outer._behaviours.get(path, status(404, b"not here"))
                behaviour(Conversation(self, outer._stopping))

            do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - the library's names
            do_MKCOL = do_MOVE = do_COPY = do_PROPFIND = do_GET  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        super().__init__(Handler, port, tls, "127.0.0.1")

    def set(self, path: str, behaviour: Behaviour, *, reads_body: bool = True) -> str:
        """Behave so at ``path`` from now on, after a request's body was read or before; return its URL."""
        path = "/" + path.lstrip("/")
        self._behaviours[path] = behaviour
        (self._hasty.discard if reads_body else self._hasty.add)(path)
        return self.url(path)

    def stop(self) -> None:
        """End all that is going on; returns when nothing is left."""
        self._stopping.set()
        super().stop()


class StaticServer(_Loopback):
    """Serves the files of a directory on loopback, and nothing else: no listings, no links that lead out, no dot files.

    Args:
        directory: What to serve.
        port: 0: any free one.
        tls: For HTTPS.
    """

    def __init__(self, directory: Path, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        root = directory.resolve()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def _answer(self, *, with_body: bool) -> None:
                path = _file_below(root, self.path)
                if path is None:
                    self.send_error(404)
                    return
                with path.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    left = found.st_size
                    etag = f'"{found.st_ino:x}-{left:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"'
                    is_known = self.headers.get("If-None-Match") == etag
                    self.send_response(304 if is_known else 200)
                    self.send_header("ETag", etag)
                    if is_known:
                        self.end_headers()
                        return
                    self.send_header("Content-Type", "application/octet-stream")
                    self.send_header("Content-Length", str(left))
                    self.end_headers()
                    while with_body and left and (piece := stream.read(min(left, _PIECE_BYTES))):
                        self.wfile.write(piece)
                        left -= len(piece)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        super().__init__(Handler, port, tls, "127.0.0.1")


def _recorded(handler: BaseHTTPRequestHandler, *, with_body: bool) -> RecordedRequest:
    left = int(handler.headers.get("Content-Length") or 0) if with_body else 0
    size, digest, kept = 0, hashlib.sha256(), bytearray()
    while left and (piece := handler.rfile.read(min(left, _PIECE_BYTES))):
        left -= len(piece)
        size += len(piece)
        digest.update(piece)
        if size <= _KEPT_BYTES:
            kept += piece
    connection = handler.connection
    shown = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    subject: dict[str, str] = dict(pair[0] for pair in (shown or {}).get("subject", ()))  # type: ignore[misc]
    return RecordedRequest(
        method=handler.command,
        path=handler.path,
        headers=dict(handler.headers.items()),
        size_bytes=size,
        sha256=digest.hexdigest(),
        body=bytes(kept) if size <= _KEPT_BYTES else None,
        client=subject.get("commonName"),
    )


def _file_below(root: Path, request_path: str) -> Path | None:
    words = [word for word in unquote(urlsplit(request_path).path).split("/") if word]
    if any(word.startswith(".") or "\0" in word for word in words):
        return None
    with contextlib.suppress(OSError, ValueError):
        path = root.joinpath(*words).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
    return None
