# SPDX-License-Identifier: Apache-2.0
"""HTTP within bounds: how long an answer may be and take, and whither it may lead; of every service of a cloud.

Keystone's answers and those of discovery are read by the libraries themselves, by the same session.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from keystoneauth1.session import TCPKeepAliveAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_UNAUTHORIZED = 401


class UnusableAnswerError(requests.RequestException):
    """An answer is longer than any that makes sense, or leads elsewhere."""


class _Watch:
    """Ends a connection whose answer does not end.

    A time-out of a socket is for one piece: an answer that comes letter by letter never runs into it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self._timer: threading.Timer | None = None
        self._handle: socket.socket | None = None

    def begin_tls(self, connection: socket.socket) -> None:
        """Count from now on, until TLS is agreed upon: who begins with that takes the connection out of its hands."""
        handle = connection.dup()
        self.begin(handle, None)
        self._handle = handle

    def begin(self, connection: socket.socket, timeout: float | None) -> None:
        """Count from now on; ``timeout`` is how long the first piece of the answer may take."""
        self.end()
        self.seconds = max(self.seconds, timeout or 0.0)
        self._timer = threading.Timer(self.seconds, self._give_up, (connection,))
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Count no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _give_up(self, connection: socket.socket) -> None:
        self.is_over = True
        with contextlib.suppress(OSError):
            # TLS or not: nothing is said to the other end any more.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Current(threading.local):
    watch: _Watch | None = None


_current = _Current()


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        _begin(self)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if _current.watch is not None:
                _current.watch.end()

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        if _current.watch is not None:
            _current.watch.begin_tls(connection)
        return connection

    def getresponse(self) -> Any:
        _begin(self)
        return super().getresponse()


def _begin(connection: HTTPConnection) -> None:
    timeout = connection.timeout
    if _current.watch is not None and connection.sock is not None:
        _current.watch.begin(connection.sock, timeout if isinstance(timeout, int | float) else None)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS: Mapping[str, type[urllib3.HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


class _WatchedAdapter(TCPKeepAliveAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = dict(_POOLS)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = dict(_POOLS)
        return manager


class BoundedSession(requests.Session):
    """Reads answers to an end that is set beforehand.

    Args:
        total_seconds: From the last byte that was sent to the last of the answer.
        login_url: Where is asked how to log in.
    """

    def __init__(self, total_seconds: float, login_url: str = "") -> None:
        super().__init__()
        self._total_seconds = total_seconds
        self._login_url = login_url.rstrip("/")
        self.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self.mount(scheme, _WatchedAdapter(pool_maxsize=32))

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request and read all of its answer.

        Raises:
            requests.RequestException: There is none, it takes too long, is too long, or leads to another machine.
        """
        options["stream"] = True
        watch = _Watch(self._total_seconds)
        _current.watch = watch
        try:
            response = super().send(request, **options)
            self._read(request, response)
            if watch.is_over:
                # What is shut down in its head ends as if it had no body.
                raise requests.exceptions.ReadTimeout
        except (requests.RequestException, OSError) as problem:
            if watch.is_over:
                raise requests.exceptions.ReadTimeout(f"it took more than {watch.seconds:g} s") from problem
            raise
        finally:
            watch.end()
            _current.watch = None
        return response

    def _read(self, request: requests.PreparedRequest, response: requests.Response) -> None:
        content = bytearray()
        try:
            _stay(request, response)
            if response.status_code == _UNAUTHORIZED and self._asks_how_to_log_in(request):
                # The library would log in to be told how to log in, and wait for itself for ever.
                raise UnusableAnswerError("it wants a login before it says how to log in")
            for piece in response.iter_content(_PIECE_BYTES):
                content += piece
                if len(content) > ANSWER_LIMIT_BYTES:
                    raise UnusableAnswerError(f"it is longer than {ANSWER_LIMIT_BYTES} bytes")
            announced = response.headers.get("Content-Length", "")
            if request.method != "HEAD" and announced.isdecimal() and int(announced) != len(content):
                raise requests.exceptions.ChunkedEncodingError(f"it ended after {len(content)} of {announced} bytes")
        finally:
            response.close()
        response._content = bytes(content)  # noqa: SLF001 - there is no other way to give a response its body
        response._content_consumed = True  # noqa: SLF001

    def _asks_how_to_log_in(self, request: requests.PreparedRequest) -> bool:
        is_asking = request.method == "GET" and "X-Auth-Token" not in request.headers
        return is_asking and (request.url or "").rstrip("/") == self._login_url


def _stay(request: requests.PreparedRequest, response: requests.Response) -> None:
    """Refuse to be led to another machine, or out of TLS: a password and tokens would go along."""
    where = response.headers.get("Location")
    if not 300 <= response.status_code < 400 or not where:  # noqa: PLR2004 - redirections
        return
    before = urlsplit(request.url or "")
    try:
        after = urlsplit(urljoin(request.url or "", where))
        leads_away = after.hostname != before.hostname or after.scheme not in {before.scheme, "https"}
    except ValueError:
        leads_away = True
    if leads_away:
        raise UnusableAnswerError("it leads to another machine, or out of TLS")
