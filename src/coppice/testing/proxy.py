# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy on loopback that writes down what it is asked for; it forwards to loopback only."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_PIECE_BYTES = 256 * 1024
_HOP = frozenset({"connection", "transfer-encoding", "proxy-connection", "keep-alive"})


class LoopbackProxy:
    """Forwards requests in clear, and makes tunnels.

    Args:
        refuses: Status with which it answers every request; None: it does its work.
        port_of: Names that only it can resolve → the port on loopback that is meant.
    """

    def __init__(self, *, refuses: int | None = None, port_of: dict[str, int] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        names = port_of or {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_CONNECT(self) -> None:
                host, _, port = self.path.rpartition(":")
                outer.note(self)
                self.close_connection = True
                if refuses is not None:
                    self.send_error(refuses)
                    return
                with socket.create_connection(("127.0.0.1", names.get(host, int(port)))) as there:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=_pump, args=(there, self.connection))
                    back.start()
                    _pump(self.connection, there)
                    back.join()

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.note(self)
                self.close_connection = True
                if refuses is not None:
                    self.send_error(refuses)
                    return
                there = HTTPConnection("127.0.0.1", names.get(parts.hostname or "", parts.port or 80), timeout=10)
                passed = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                there.request(self.command, parts._replace(scheme="", netloc="").geturl(), headers=passed)
                _pass_on(there, self)

            do_HEAD = do_GET  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What to write into the settings."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def note(self, handler: BaseHTTPRequestHandler) -> None:
        """Write down what was asked for."""
        self.asked.append((handler.command, handler.path))
        self.headers.append(dict(handler.headers.items()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pass_on(there: HTTPConnection, handler: BaseHTTPRequestHandler) -> None:
    answer = there.getresponse()
    handler.send_response(answer.status)
    for name, value in answer.getheaders():
        if name.lower() not in _HOP | {"date", "server"}:
            handler.send_header(name, value)
    handler.end_headers()
    while piece := answer.read(_PIECE_BYTES):
        handler.wfile.write(piece)
    there.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
