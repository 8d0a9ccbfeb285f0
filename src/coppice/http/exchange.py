# SPDX-License-Identifier: Apache-2.0
"""One request on one connection to one judged address: urllib3 with its conveniences off, its errors made ours.

A connection serves one exchange and is closed: what a server sends beyond its answer is nobody's, and can never be
taken for the answer to the next request. What that costs is measured in ``benchmarks/``.
"""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.errors import CoppiceError
from coppice.http import failures
from coppice.http.message import PIECE_BYTES, BodyFile

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from coppice.http.guard import Guard
    from coppice.http.location import Location
    from coppice.http.route import Route

_MAX_LENGTH_DIGITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one exchange waits.

    Attributes:
        connect_seconds: For a connection.
        read_seconds: Without a byte.
    """

    connect_seconds: float
    read_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What goes over the connection.

    Attributes:
        method: As it is written.
        headers: All but those of the connection itself.
        body: What is sent; None: nothing.
        on_sent: Told how many bytes of the body went out so far.
    """

    method: str
    headers: Mapping[str, str]
    body: bytes | BodyFile | None = None
    on_sent: Callable[[int], object] | None = None

    @property
    def length_bytes(self) -> int | None:
        """Length of the body; None when there is none."""
        if self.body is None:
            return None
        return self.body.size_bytes if isinstance(self.body, BodyFile) else len(self.body)

    def pieces(self, guard: Guard) -> Iterator[bytes]:
        """Yield the body, and count what went out: a server that takes nothing is as slow as one that gives nothing."""
        sent = 0
        for piece in _split(self.body):
            guard.wait_begins()
            yield piece
            guard.wait_ends(len(piece))
            sent += len(piece)
            if self.on_sent is not None:
                self.on_sent(sent)
        guard.body_sent()


class Answer:
    """A response whose head was read; its body comes in pieces as the server sent it, never decoded."""

    def __init__(self, location: Location, response: BaseHTTPResponse, guard: Guard) -> None:
        self.location = location
        self.status = response.status
        self._response = response
        self._guard = guard

    def header(self, name: str) -> str | None:
        """Return a header of the response."""
        return self._response.headers.get(name)

    @property
    def headers(self) -> dict[str, str]:
        """All headers; names in lower case, what came several times joined by commas."""
        return {name.lower(): value for name, value in self._response.headers.itermerged()}

    @property
    def length_bytes(self) -> int | None:
        """Return the length that the server announces; None when it does not."""
        text = self.header("Content-Length")
        if text is None or not text.isascii() or not text.isdigit():
            return None
        # Python refuses to read numbers of thousands of digits; no length needs more than these.
        return int(text[:_MAX_LENGTH_DIGITS])

    def abort(self) -> None:
        """End the connection; another thread may call it while this one reads."""
        self._guard.abort()

    def pieces(self, limit_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield the body as it comes, at most ``limit_bytes`` at a time.

        Raises:
            TransferCutError: The connection ended before the body did.
            TransferStalledError: It came too slowly, or not at all.
        """
        while True:
            with translated(self.location, self._guard):
                self._guard.wait_begins()
                piece = self._response.read1(limit_bytes, decode_content=False)
                self._guard.wait_ends(len(piece))
            if not piece:
                return
            yield piece


@contextmanager
def exchange(
    location: Location,
    route: Route,
    wire: Wire,
    *,
    context: ssl.SSLContext | None,
    timeouts: Timeouts,
    guard: Guard,
) -> Iterator[Answer]:
    """Ask for ``location`` by ``route`` and yield the answer; the connection is closed with the block.

    Raises:
        UnreachableError: No connection could be made.
        TransferCutError: The connection ended before the head of the response did.
        TransferStalledError: The server was silent.
        UnreadableFileError: The body cannot be read.
    """
    with guard:
        pool = _pool(location, route, context, timeouts, guard)
        in_clear = route.proxy is not None and location.scheme == "http"
        headers = {
            **wire.headers,
            "Host": location.authority,
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "coppice",
        }
        if wire.length_bytes is not None:
            headers["Content-Length"] = str(wire.length_bytes)
        try:
            with translated(location, guard, route.proxy):
                response = pool.urlopen(
                    wire.method,
                    location.url if in_clear else location.target,
                    body=None if wire.body is None else wire.pieces(guard),
                    headers=headers,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
                guard.wait_ends(0)
            try:
                yield Answer(location, response, guard)
            finally:
                # What is left of the body is nobody's: the connection is closed, not drained.
                with contextlib.suppress(OSError):
                    response.close()
        finally:
            pool.close()


def _split(body: bytes | BodyFile | None) -> Iterator[bytes]:
    if isinstance(body, BodyFile):
        yield from body.pieces()
    elif body is not None:
        yield from (body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES))


def _pool(
    location: Location, route: Route, context: ssl.SSLContext | None, timeouts: Timeouts, guard: Guard
) -> HTTPConnectionPool:
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class WatchedConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            guard.watch(connection)
            return connection

        def connect(self) -> None:
            super().connect()
            _connected(self.sock, timeouts, guard)

    class WatchedTlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            guard.watch(connection)
            return connection

        def connect(self) -> None:
            if route.proxy is not None:
                destination = route.destination
                self.set_tunnel(f"[{destination}]" if ":" in destination else destination, location.port)
            super().connect()
            _connected(self.sock, timeouts, guard)

    common: dict[str, Any] = {
        "port": route.port,
        "timeout": urllib3.Timeout(connect=timeouts.connect_seconds, read=timeouts.read_seconds),
        "maxsize": 1,
        "retries": False,
    }
    if location.scheme == "http":
        plain = urllib3.HTTPConnectionPool(route.address, **common)
        plain.ConnectionCls = WatchedConnection
        return plain
    # The connection goes to the address; the certificate has to be the name's.
    secure = urllib3.HTTPSConnectionPool(route.address, ssl_context=context, server_hostname=location.host, **common)
    secure.ConnectionCls = WatchedTlsConnection
    return secure


def _connected(connection: socket.socket, timeouts: Timeouts, guard: Guard) -> None:
    guard.is_connected = True
    # To send a large piece may take longer than to connect.
    connection.settimeout(timeouts.read_seconds)


@contextmanager
def translated(location: Location, guard: Guard, proxy: Location | None = None) -> Iterator[None]:
    """Turn urllib3's errors into transfer errors that name the host; what the guard did goes before all else."""
    from urllib3 import exceptions

    try:
        yield
        if guard.verdict is not None:
            raise failures.stalled(location, guard.verdict)
    except CoppiceError:
        raise
    except (exceptions.HTTPError, OSError, ValueError) as problem:
        if guard.verdict is not None:
            raise failures.stalled(location, guard.verdict) from problem
        raise failures.translate(location, problem, was_connected=guard.is_connected, proxy=proxy) from problem
