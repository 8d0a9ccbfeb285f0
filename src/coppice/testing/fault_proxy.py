# SPDX-License-Identifier: Apache-2.0
"""A reverse proxy on loopback, in front of any HTTP server, that goes wrong where it is told to.

::

    with FaultProxy(port=server_port) as proxy:
        proxy.add(answers_before(503, times=2), method="POST", path=r"/v2/images$")
        proxy.add(answers_after(504), method="PUT", path=r"/file$", nth=2)

A fault acts on requests whose method and path fit, from the ``nth`` one on, and only ``times`` times. Requests to which
none applies reach the server as they are, and each is written down (`FaultProxy.asked`).
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_PIECE_BYTES = 256 * 1024
_HOP = frozenset({"connection", "transfer-encoding", "proxy-connection", "keep-alive", "te", "upgrade"})
_NO_BODY = frozenset({204, 304})
_UPSTREAM_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server answered, and what the client is told.

    Attributes:
        status: Of HTTP.
        headers: Without those that are about the connection.
        body: All of it.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a request; the functions below make one.

    Attributes:
        times: How many requests it acts on; None: on all from the first that it fits.
        before: The answer that is given while the server hears nothing of it; None: the server is asked.
        instead: What becomes of the server's answer once it did what it was asked; None: nothing.
        cut_before: The connection is closed before the server hears of the request.
        cut_after: The server does what it was asked; its answer is lost with the connection.
        cut_upload_after: The connections are cut when so many bytes of the body were passed on.
        cut_answer_after: The answer ends after so many bytes of its body, whatever length it announced.
        stall_seconds: The answer is held back so long, or until the proxy ends, after the server did what it was asked.
        stall_before: The request is held back instead, and does not reach the server.
        flood_bytes: So many bytes are sent as the answer.
        meanwhile: Called when the server has answered and the client does not know it yet.
    """

    times: int | None = 1
    before: Reply | None = None
    instead: Callable[[Reply], Reply] | None = None
    cut_before: bool = False
    cut_after: bool = False
    cut_upload_after: int | None = None
    cut_answer_after: int | None = None
    stall_seconds: float | None = None
    stall_before: bool = False
    flood_bytes: int | None = None
    meanwhile: Callable[[], None] | None = None


def answers_before(
    status: int, body: bytes = b"", *, times: int | None = 1, headers: tuple[tuple[str, str], ...] = ()
) -> Fault:
    """Return: the client is told ``status``, and the server hears nothing."""
    return Fault(times=times, before=Reply(status=status, body=body, headers=headers))


def answers_after(status: int, body: bytes = b"", *, times: int | None = 1) -> Fault:
    """Return: the server does what it was asked, and the client is told ``status``."""
    return Fault(times=times, instead=lambda _: Reply(status=status, body=body))


def cuts_before(*, times: int | None = 1) -> Fault:
    """Return: the connection is closed; the server hears nothing."""
    return Fault(times=times, cut_before=True)


def cuts_after(*, times: int | None = 1) -> Fault:
    """Return: the server does what it was asked, and the connection is closed without an answer."""
    return Fault(times=times, cut_after=True)


def cuts_upload(after_bytes: int, *, times: int | None = 1) -> Fault:
    """Return: the connection is cut in the middle of the body that is sent."""
    return Fault(times=times, cut_upload_after=after_bytes)


def cuts_answer(after_bytes: int, *, times: int | None = 1) -> Fault:
    """Return: the connection is cut in the middle of the answer."""
    return Fault(times=times, cut_answer_after=after_bytes)


def stalls(seconds: float, *, times: int | None = 1, before: bool = False) -> Fault:
    """Return: the answer comes late, or the request does (then never, for a client that waits less)."""
    return Fault(times=times, stall_seconds=seconds, stall_before=before)


def rewrites(change: Callable[[bytes], bytes], *, times: int | None = 1) -> Fault:
    """Return: the body of the answer is changed on its way (a page that ends early, another digest)."""

    def instead(reply: Reply) -> Reply:
        return Reply(status=reply.status, headers=reply.headers, body=change(reply.body))

    return Fault(times=times, instead=instead)


def floods(total_bytes: int, *, times: int | None = 1) -> Fault:
    """Return: the answer has so many bytes."""
    return Fault(times=times, flood_bytes=total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that came.

    Attributes:
        method: Of HTTP.
        path: With its query.
        faulty: Whether a fault acted on it.
    """

    method: str
    path: str
    faulty: bool


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str | None
    path: re.Pattern[str]
    nth: int
    seen: int = 0
    acted: int = 0

    def acts_on(self, method: str, path: str) -> bool:
        if (self.method is not None and self.method != method) or not self.path.search(path):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.fault.times is not None and self.acted >= self.fault.times):
            return False
        self.acted += 1
        return True


@dataclass(slots=True)
class FaultProxy:
    """The proxy; use it as a context.

    Args:
        port: Where the server is, on loopback.

    Attributes:
        asked: Every request that came, in order.
    """

    port: int
    asked: list[Asked] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer = field(init=False)
    _thread: threading.Thread = field(init=False)

    def add(self, fault: Fault, *, method: str | None = None, path: str = "", nth: int = 1) -> None:
        """Let ``fault`` act on what fits.

        Args:
            fault: What goes wrong.
            method: Of HTTP; None: any.
            path: A regular expression that is searched for in the path with its query.
            nth: The first of the fitting requests, counted from now, that it acts on.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, re.compile(path), nth))

    def clear(self) -> None:
        """Forget all faults and what was asked."""
        with self._lock:
            self._rules.clear()
            self.asked.clear()

    @property
    def own_port(self) -> int:
        """Where the proxy listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What to use instead of the server's own address."""
        return f"http://127.0.0.1:{self.own_port}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Write a request down; return what goes wrong with it."""
        with self._lock:
            # Each rule counts what fits it, also where another acts.
            acting = [rule.fault for rule in self._rules if rule.acts_on(method, path)]
            self.asked.append(Asked(method=method, path=path, faulty=bool(acting)))
            return acting[0] if acting else None

    def wait(self, seconds: float) -> None:
        """Hold a request or an answer back; the end of the proxy ends it too."""
        self._ended.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        self.close_connection = True
        fault = self.proxy.fault_for(self.command, self.path) or Fault()
        with contextlib.suppress(OSError):
            self._serve(fault)

    do_GET = handle_any  # noqa: N815 - the library's names
    do_HEAD = handle_any  # noqa: N815 - the library's names
    do_POST = handle_any  # noqa: N815 - the library's names
    do_PUT = handle_any  # noqa: N815 - the library's names
    do_PATCH = handle_any  # noqa: N815 - the library's names
    do_DELETE = handle_any  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        pass

    def _serve(self, fault: Fault) -> None:
        if fault.stall_before and fault.stall_seconds is not None:
            self.proxy.wait(fault.stall_seconds)
            return
        if fault.cut_before:
            _cut(self.connection)
            return
        if fault.flood_bytes is not None:
            self._drain()
            self._flood(fault.flood_bytes)
            return
        if fault.before is not None:
            self._drain()
            self._answer(fault.before)
            return
        reply = self._ask(fault.cut_upload_after)
        if fault.meanwhile is not None:
            fault.meanwhile()
        if fault.stall_seconds is not None:
            self.proxy.wait(fault.stall_seconds)
        if reply is None or fault.cut_after:
            _cut(self.connection)
            return
        self._answer(fault.instead(reply) if fault.instead else reply, cut_after=fault.cut_answer_after)

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (piece := self.rfile.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            yield piece

    def _drain(self) -> None:
        for _ in self._body():
            pass

    def _ask(self, cut_after: int | None) -> Reply | None:
        """Pass the request on; None: there is no answer."""
        there = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=_UPSTREAM_SECONDS)
        with contextlib.closing(there):
            there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    there.putheader(name, value)
            chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
            if chunked:
                there.putheader("Transfer-Encoding", "chunked")
            # What comes early is an answer like any other; the client may be sending still.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                there.endheaders()
                sent = 0
                for piece in self._body():
                    if cut_after is not None and sent + len(piece) > cut_after:
                        there.send(piece[: cut_after - sent])
                        return None
                    there.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if chunked else piece)
                    sent += len(piece)
                if chunked:
                    there.send(b"0\r\n\r\n")
            try:
                answer = there.getresponse()
                headers = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _HOP)
                return Reply(status=answer.status, headers=headers, body=answer.read())
            except (OSError, http.client.HTTPException):
                return None

    def _answer(self, reply: Reply, *, cut_after: int | None = None) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        if reply.status not in _NO_BODY:
            self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD" or reply.status in _NO_BODY:
            return
        self.wfile.write(reply.body[:cut_after])
        if cut_after is not None:
            _cut(self.connection)

    def _flood(self, total: int) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(total))
        self.send_header("Connection", "close")
        self.end_headers()
        piece = b" " * _PIECE_BYTES
        while total > 0:
            self.wfile.write(piece[:total])
            total -= len(piece)


def _cut(connection: socket.socket) -> None:
    """Close a connection so that the other side sees it at once."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
