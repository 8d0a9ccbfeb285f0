# SPDX-License-Identifier: Apache-2.0
"""Listen: answers short questions over HTTP, and cannot be held up: one request a connection, small, within seconds.

RFC 9112, as far as it takes: a request line, fields that are read for ``Accept`` only, and an answer with its length.
Methods that could change something are refused; a body is never read.
"""

from __future__ import annotations

import contextlib
import http
import ipaddress
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from coppice.errors import MachineError, SettingsError
from coppice.log import get_logger
from coppice.schedule.pages import Page, plain_page

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REQUEST_BYTES: Final = 8192
REQUEST_SECONDS: Final = 5.0
"""Within which a request must be there as a whole."""
ANSWER_SECONDS: Final = 30.0
"""Within which its answer must have been taken."""
MAX_TALKS: Final = 16
"""How many are answered at a time; whoever comes beyond that is told to come again."""
_BACKLOG: Final = 64
_POLL_SECONDS: Final = 0.5
_MAX_PORT: Final = 65535
_log = get_logger("schedule.listener")


def read_address(text: str) -> tuple[str, int]:
    """Return address and port of ``127.0.0.1:9477`` or ``[::1]:9477``; port 0: any that is free.

    Raises:
        SettingsError: It is none; names of hosts are not looked up.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    is_bracketed = bare != host
    if (
        not colon
        or address is None
        or is_bracketed != (address.version == 6)  # noqa: PLR2004 - of the Internet Protocol
        or not (port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT)
    ):
        raise SettingsError(
            f"service.listen: {text[:200]!r} is no address with a port",
            resolution='Write "127.0.0.1:9477", "[::1]:9477", or "none".',
        )
    return bare, int(port)


class Listener:
    """Listens on one address, in threads of its own, until it is closed.

    Args:
        text: Where, as `read_address` reads it.
        answer: Gives the page for a path and for what the asker reads.

    Raises:
        SettingsError: The address is none.
        MachineError: It cannot be listened on.
    """

    def __init__(self, text: str, answer: Callable[[str, str], Page]) -> None:
        host, port = read_address(text)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = _listen(family, host, port)
        except OSError as problem:
            raise MachineError(
                f"cannot listen on {text}: {problem.strerror}",
                resolution='Set `service.listen` to a free address and port of this machine, or to "none".',
                context={"address": text},
            ) from problem
        self.text = text
        self._answer = answer
        self._slots = threading.BoundedSemaphore(MAX_TALKS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="listener", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Listen while a block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.close()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Listen no more; answers under way are not waited for."""
        self._closing.set()
        with contextlib.suppress(OSError):
            # Whoever waits for the next to come is woken by it.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=REQUEST_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            if not select.select([self._socket], [], [], _POLL_SECONDS)[0]:
                continue
            try:
                talk, _ = self._socket.accept()
            except OSError as problem:
                # Whoever asked has gone; or this machine is out of files, which passes.
                _log.debug("cannot answer", extra={"fields": {"error": problem.strerror}})
                self._closing.wait(_POLL_SECONDS / 10)
                continue
            if not self._slots.acquire(blocking=False):
                _refuse(talk)
                continue
            try:
                threading.Thread(target=self._talk, args=(talk,), name="talk", daemon=True).start()
            except RuntimeError:
                # No thread is to be had.
                self._slots.release()
                _refuse(talk)

    def _talk(self, talk: socket.socket) -> None:
        try:
            # Whoever asks may leave at any time, or say nothing: that is his affair.
            with talk, contextlib.suppress(OSError):
                is_head, page = self._respond(_receive(talk))
                _send(talk, page, with_body=not is_head)
        finally:
            self._slots.release()

    def _respond(self, request: bytes | None) -> tuple[bool, Page]:
        """Return whether only the head of the answer is wanted, and the answer."""
        if request is None:
            return False, plain_page(http.HTTPStatus.REQUEST_TIMEOUT, "The request did not come in time.")
        if b"\r\n\r\n" not in request:
            return False, plain_page(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too large.")
        first, *fields = request.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
            return False, plain_page(http.HTTPStatus.BAD_REQUEST, "That is no request.")
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return False, plain_page(http.HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.")
        return method == "HEAD", self._answer(target.partition("?")[0], _accept(fields))


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
        made.settimeout(0)
    except OSError:
        made.close()
        raise
    return made


def _receive(talk: socket.socket) -> bytes | None:
    """Return a request up to the end of its fields, or as much of it as is taken; None: it did not come in time."""
    deadline, request = time.monotonic() + REQUEST_SECONDS, b""
    while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST_BYTES:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return None
        talk.settimeout(remaining)
        try:
            piece = talk.recv(MAX_REQUEST_BYTES - len(request))
        except TimeoutError:
            return None
        if not piece:
            raise ConnectionResetError
        request += piece
    return request


def _send(talk: socket.socket, page: Page, *, with_body: bool) -> None:
    status = http.HTTPStatus(page.status)
    allow = "Allow: GET, HEAD\r\n" if status is http.HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n{allow}Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    rest = memoryview(head.encode("latin-1") + (page.body if with_body else b""))
    deadline = time.monotonic() + ANSWER_SECONDS
    while rest:
        # The limit is on the whole answer: whoever takes a byte now and then does not hold it up for ever.
        talk.settimeout(max(0.001, deadline - time.monotonic()))
        rest = rest[talk.send(rest[:65536]) :]
    talk.shutdown(socket.SHUT_WR)


def _refuse(talk: socket.socket) -> None:
    with talk, contextlib.suppress(OSError):
        talk.settimeout(0)
        talk.send(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


def _accept(fields: list[str]) -> str:
    for field in fields:
        name, _, value = field.partition(":")
        if name.strip().lower() == "accept":
            return value.strip()
    return ""
