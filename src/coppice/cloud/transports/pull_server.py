# SPDX-License-Identifier: Apache-2.0
"""A web server that hands out single files to whoever knows their address, for as long as they are offered.

It answers GET and HEAD, with one range of bytes where one is asked for (RFC 9110, 14), and nothing else. It knows no
directory: an address is a secret of 256 bits, and names an open file. Clients may be slow, break off and come again;
how many there are at once, how long a silent one is waited for and how long a request may be, is bounded.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from coppice.cloud.transports.content import Content

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PIECE_BYTES = 512 * 1024
_SILENCE_SECONDS = 30.0
_CLIENTS = 64
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_FOUND, _PART, _NOT_THERE, _NO_RANGE, _BUSY = 200, 206, 404, 416, 503


@dataclass(slots=True)
class _File:
    handle: int
    size_bytes: int
    tag: str
    name: str
    connections: set[socket.socket] = field(default_factory=set)
    is_over: bool = False


class PullServer:
    """Listens while it is entered.

    Args:
        host: Address to listen at.
        port: 0: any free one.
        only_from: Clients from elsewhere get no answer; empty: from everywhere.
        tls: For HTTPS.
    """

    def __init__(
        self, host: str, port: int, *, only_from: Sequence[Network] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(_Handler):
            server_of_files = outer

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = _Server((host, port), Handler, family, only_from, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="pull", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def offered(self, content: Content, name: str) -> Any:
        """Hand out a file as long as the context is open; yield the path of its address.

        Args:
            content: Of the file; compared already.
            name: The last part of the address.
        """
        token = secrets.token_hex(32)
        tag = next(iter(content.checksums.values()))
        file = _File(handle=content.handle, size_bytes=content.size_bytes, tag=tag, name=name)
        with self._lock:
            self._files[token] = file
        try:
            yield f"/{token}/{name}"
        finally:
            with self._lock:
                del self._files[token]
                file.is_over = True
                for connection in file.connections:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def take(self, path: str, connection: socket.socket) -> tuple[_File, int] | None:
        """Return the file at ``path`` and a handle of one's own, noting who fetches it; None: there is none."""
        parts = path.split("/")
        with self._lock:
            for token, file in self._files.items():
                if len(parts) == 3 and hmac.compare_digest(parts[1].encode(), token.encode()) and parts[2] == file.name:  # noqa: PLR2004 - "", token, name
                    file.connections.add(connection)
                    return file, os.dup(file.handle)
        return None

    def let_go(self, file: _File, handle: int, connection: socket.socket) -> None:
        """Take back what `take` gave."""
        with self._lock:
            file.connections.discard(connection)
        os.close(handle)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        family: socket.AddressFamily,
        only_from: Sequence[Network],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.address_family = family
        self._only_from = only_from
        self._tls = tls
        self._places = threading.BoundedSemaphore(_CLIENTS)
        self._unheard: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind; the class above would ask the name service who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        connection, peer = super().get_request()
        connection.settimeout(_SILENCE_SECONDS)
        if self._tls is not None:
            # The handshake happens in the connection's own thread: a silent client stops nobody.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._unheard[connection] = time.monotonic()
        return connection, peer

    def heard(self, connection: socket.socket) -> None:
        """Note that a client has said all that it asks for."""
        self._unheard.pop(connection, None)

    def service_actions(self) -> None:
        """End connections whose clients take too long to say what they want, letter by letter or not at all."""
        for connection, since in list(self._unheard.items()):
            if time.monotonic() - since > _SILENCE_SECONDS:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.heard(request)
        super().shutdown_request(request)

    def verify_request(self, request: object, client_address: Any) -> bool:
        """Refuse clients from where nobody should ask, and those beyond the bound."""
        address = ipaddress.ip_address(str(client_address[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if self._only_from and not any(address in network for network in self._only_from):
            return False
        return self._places.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve one client."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            # No thread could be started, so that none gives the place back.
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one client, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a client that leaves early comes again, or the cloud says that it failed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "coppice", ""
    server_of_files: PullServer
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # A client that sends a body has no business here; what it sends is not read.
        self.close_connection = True
        self.server.heard(self.connection)
        taken = self.server_of_files.take(self.path, self.connection)
        if taken is None:
            self._head(_NOT_THERE, 0)
            return
        file, handle = taken
        try:
            span = self._span(file)
            if span is None:
                self._head(_NO_RANGE, 0, {"Content-Range": f"bytes */{file.size_bytes}"})
                return
            first, length = span
            headers = {"Accept-Ranges": "bytes", "ETag": f'"{file.tag}"'}
            is_part = length != file.size_bytes
            if is_part:
                headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{file.size_bytes}"
            self._head(_PART if is_part else _FOUND, length, headers)
            if with_body:
                self._send(handle, file, first, length)
        finally:
            self.server_of_files.let_go(file, handle, self.connection)

    def _span(self, file: _File) -> tuple[int, int] | None:
        whole = (0, file.size_bytes)
        asked = self.headers.get("Range")
        # A condition that does not hold, and a range that is none of ours, mean the whole (RFC 9110, 13.1.5 and 14.2).
        if asked is None or self.headers.get("If-Range", f'"{file.tag}"') != f'"{file.tag}"':
            return whole
        match = _RANGE.fullmatch(asked.strip())
        if match is None or match.group(1) == match.group(2) == "":
            return whole
        if match.group(1) == "":
            length = min(int(match.group(2)), file.size_bytes)
            return (file.size_bytes - length, length) if length else None
        first = int(match.group(1))
        last = min(int(match.group(2) or file.size_bytes - 1), file.size_bytes - 1)
        if first >= file.size_bytes:
            return None
        return whole if last < first else (first, last - first + 1)

    def _send(self, handle: int, file: _File, at: int, left: int) -> None:
        while left and not file.is_over:
            piece = os.pread(handle, min(left, _PIECE_BYTES), at)
            if not piece:
                # The file became shorter: what was announced cannot be kept, and the client must see that.
                return
            self.wfile.write(piece)
            at += len(piece)
            left -= len(piece)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Keep no log: the addresses are secrets."""
