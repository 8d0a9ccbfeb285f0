# SPDX-License-Identifier: Apache-2.0
"""One request on one connection to one judged address: urllib3 with its conveniences off, its errors made ours."""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.errors import CoppiceError, TransferCutError, TransferStalledError, UnreachableError
from coppice.http.guard import Guard, Verdict
from coppice.http.location import Location, show

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

PIECE_BYTES = 256 * 1024
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
    def length_bytes(self) -> int | None:
        """Return the length that the server announces; None when it does not."""
        text = self.header("Content-Length")
        if text is None or not text.isascii() or not text.isdigit():
            return None
        # Python refuses to read numbers of thousands of digits; no length needs more than these.
        return int(text[:_MAX_LENGTH_DIGITS])

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            TransferCutError: The connection ended before the body did.
            TransferStalledError: It came too slowly, or not at all.
        """
        while True:
            with translated(self.location, self._guard):
                self._guard.wait_begins()
                piece = self._response.read1(PIECE_BYTES, decode_content=False)
                self._guard.wait_ends(len(piece))
            if not piece:
                return
            yield piece


@contextmanager
def exchange(
    location: Location, address: str, *, context: ssl.SSLContext | None, timeouts: Timeouts, guard: Guard
) -> Iterator[Answer]:
    """Ask ``address`` for ``location`` and yield the answer; the connection is closed with the block.

    Raises:
        UnreachableError: No connection could be made.
        TransferCutError: The connection ended before the head of the response did.
        TransferStalledError: The server was silent.
    """
    with guard:
        pool = _pool(location, address, context, timeouts, guard)
        headers = {
            "Host": location.authority,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "coppice",
        }
        if location.authorization is not None:
            headers["Authorization"] = location.authorization
        try:
            with translated(location, guard):
                response = pool.urlopen(
                    "GET",
                    location.target,
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


def _pool(
    location: Location, address: str, context: ssl.SSLContext | None, timeouts: Timeouts, guard: Guard
) -> HTTPConnectionPool:
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class WatchedConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            guard.watch(connection)
            return connection

    class WatchedTlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            guard.watch(connection)
            return connection

    common: dict[str, Any] = {
        "port": location.port,
        "timeout": urllib3.Timeout(connect=timeouts.connect_seconds, read=timeouts.read_seconds),
        "maxsize": 1,
        "retries": False,
    }
    if location.scheme == "http":
        plain = urllib3.HTTPConnectionPool(address, **common)
        plain.ConnectionCls = WatchedConnection
        return plain
    # The connection goes to the address; the certificate has to be the name's.
    secure = urllib3.HTTPSConnectionPool(address, ssl_context=context, server_hostname=location.host, **common)
    secure.ConnectionCls = WatchedTlsConnection
    return secure


@contextmanager
def translated(location: Location, guard: Guard) -> Iterator[None]:
    """Turn urllib3's errors into transfer errors that name the host; what the guard did goes before all else."""
    from urllib3 import exceptions

    try:
        yield
        if guard.verdict is not None:
            raise _stalled(location, guard.verdict)
    except CoppiceError:
        raise
    except (exceptions.HTTPError, OSError, ValueError) as problem:
        if guard.verdict is not None:
            raise _stalled(location, guard.verdict) from problem
        raise _translate(location, problem) from problem


def _translate(location: Location, problem: Exception) -> CoppiceError:
    from urllib3 import exceptions

    context = {"url": location.url, "host": location.host}
    if isinstance(problem, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return UnreachableError(
            f"{location.host} port {location.port} cannot be reached",
            details=str(problem),
            resolution="Check that the server runs and that this machine may connect to it.",
            context=context,
        )
    if isinstance(problem, exceptions.SSLError):
        return UnreachableError(
            f"no trusted TLS connection to {location.host} port {location.port}",
            details=str(problem),
            resolution="The server's certificate must be valid for that name and come from a trusted authority.",
            context={**context, "final": True},
        )
    if isinstance(problem, exceptions.TimeoutError | TimeoutError):
        return TransferStalledError(
            f"{location.host} was silent for too long while {show(location.url)} was fetched",
            details=str(problem),
            resolution="Run again later, or raise transfer.read_timeout_seconds.",
            context=context,
        )
    return TransferCutError(
        f"the connection to {location.host} broke while {show(location.url)} was fetched",
        details=str(problem),
        resolution="Run again; what was there before stays as it is.",
        context=context,
    )


def _stalled(location: Location, verdict: Verdict) -> TransferStalledError:
    what, setting = {
        Verdict.DEADLINE: ("took too long in all", "transfer.total_timeout_seconds"),
        Verdict.TOO_SLOW: ("came too slowly", "transfer.minimum_rate_bytes_per_second"),
    }[verdict]
    return TransferStalledError(
        f"{show(location.url)} from {location.host} {what} and was given up",
        resolution=f"Run again later, or change {setting}.",
        context={"url": location.url, "host": location.host},
    )
