# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback: one that misbehaves on demand (tests), and a plain one for files (tests and the demo)."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]


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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
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
        tls: For HTTPS (`throw_away_tls`).
    """

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[RecordedRequest] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                headers = dict(self.headers.items())
                outer.requests.append(RecordedRequest(method=self.command, path=self.path, headers=headers))
                behaviour = outer._behaviours.get(urlsplit(self.path).path, status(404, b"not here"))
                behaviour(Conversation(self, outer._stopping))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        super().__init__(Handler, port, tls, "127.0.0.1")

    def set(self, path: str, behaviour: Behaviour) -> str:
        """Behave so at ``path`` from now on; return its URL."""
        self._behaviours["/" + path.lstrip("/")] = behaviour
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
                    left = path.stat().st_size
                    self.send_response(200)
                    self.send_header("Content-Type", "application/octet-stream")
                    self.send_header("Content-Length", str(left))
                    self.end_headers()
                    while with_body and left and (piece := stream.read(min(left, _PIECE_BYTES))):
                        self.wfile.write(piece)
                        left -= len(piece)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        super().__init__(Handler, port, tls, "127.0.0.1")


def _file_below(root: Path, request_path: str) -> Path | None:
    words = [word for word in unquote(urlsplit(request_path).path).split("/") if word]
    if any(word.startswith(".") or "\0" in word for word in words):
        return None
    with contextlib.suppress(OSError, ValueError):
        path = root.joinpath(*words).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
    return None


def throw_away_tls(directory: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Make a self-signed certificate for loopback and ``names``; return the server's context and the file to trust."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away")])
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in ("localhost", *names)]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    trusted, private = directory / "server.pem", directory / "server.key"
    trusted.write_bytes(certificate.public_bytes(pem))
    private.touch(mode=0o600)
    private.write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


if TYPE_CHECKING:
    Behaviour = Callable[[Conversation], object]
