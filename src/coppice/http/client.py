# SPDX-License-Identifier: Apache-2.0
"""`Client`: fetches bytes from servers that nobody vouches for.

Each transfer has a size limit, a time without a byte, a least rate and a total time. Redirects are followed by own
rules, each with its name resolved and judged anew. There is no proxy, no cookie, no netrc: nothing is taken from the
environment but the machine's trusted authorities.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from coppice.clock import Clock, SystemClock
from coppice.errors import (
    HttpStatusError,
    RedirectRefusedError,
    SettingsError,
    TransferCutError,
    TransferError,
    TransferStalledError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.http.address import Resolver, addresses_of, resolve
from coppice.http.exchange import Answer, Timeouts, exchange
from coppice.http.guard import Guard
from coppice.http.location import Location, parse_location, redirected, show

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.monitor import Task
    from coppice.settings.model import TransferSettings

_T = TypeVar("_T")

REDIRECT_LIMIT = 5
RATE_WINDOW_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 4.0
_EXCERPT_BYTES = 300
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WORTH_RETRYING = frozenset({429, 500, 502, 503, 504})


class Client:
    """Fetches over HTTP and HTTPS.

    Args:
        settings: Limits.
        clock: For durations.
        resolver: Takes the place of the machine's name resolution.
        ca_file: PEM file of authorities that are trusted in addition to the machine's.
        sleep: Takes the place of `time.sleep` between attempts.
        rate_window_seconds: Over which the least rate is averaged.
    """

    def __init__(
        self,
        settings: TransferSettings,
        *,
        clock: Clock | None = None,
        resolver: Resolver | None = None,
        ca_file: Path | None = None,
        sleep: Callable[[float], object] = time.sleep,
        rate_window_seconds: float = RATE_WINDOW_SECONDS,
    ) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self._resolver = resolver or resolve
        self._ca_file = ca_file
        self._sleep = sleep
        self._rate_window_seconds = rate_window_seconds
        self._context: ssl.SSLContext | None = None

    def get_bytes(self, url: str, *, limit_bytes: int) -> bytes:
        """Return what is at ``url``.

        Args:
            url: An ``http`` or ``https`` URL.
            limit_bytes: More than this is refused.

        Raises:
            TransferError: It could not be had, or is too large; the class says which.
        """
        body = bytearray()

        def fetch(deadline: float) -> bytes:
            body.clear()
            with self._answer(url, deadline) as answer:
                _refuse_larger(answer, limit_bytes)
                for piece in answer.pieces():
                    body.extend(piece)
                    if len(body) > limit_bytes:
                        raise _too_large(answer.location, limit_bytes)
            return bytes(body)

        return self._attempts(fetch, can_restart=lambda: True, task=None)

    def download(
        self,
        url: str,
        *,
        expected_size_bytes: int,
        sink: Callable[[bytes], object],
        monitor_task: Task | None = None,
        restart: Callable[[], object] | None = None,
    ) -> None:
        """Stream what is at ``url`` into ``sink``, exactly ``expected_size_bytes`` of it.

        Args:
            url: An ``http`` or ``https`` URL.
            expected_size_bytes: The signed size; what the server announces is only used to give up early.
            sink: Takes the pieces in order; never more than the expected size in all.
            monitor_task: Told how far it is, in bytes.
            restart: Called before a new attempt begins from the start; without it, an attempt that gave bytes
                to the sink is the last.

        Raises:
            TransferTooLargeError: There is more than expected; nothing beyond the size went to the sink.
            TransferCutError: There is less. ``context["complete"]`` is True when the server meant it so.
            TransferError: It could not be had otherwise; the class says why.
        """
        received = 0

        def fetch(deadline: float) -> None:
            nonlocal received
            if received:
                received = 0
                if restart is not None:
                    restart()
            with self._answer(url, deadline) as answer:
                _refuse_larger(answer, expected_size_bytes)
                for piece in answer.pieces():
                    if received + len(piece) > expected_size_bytes:
                        raise _too_large(answer.location, expected_size_bytes)
                    sink(piece)
                    received += len(piece)
                    if monitor_task is not None:
                        monitor_task.reach(received, expected_size_bytes)
                if received != expected_size_bytes:
                    raise _too_short(answer, received, expected_size_bytes)

        self._attempts(fetch, can_restart=lambda: restart is not None or not received, task=monitor_task)

    def _attempts(self, fetch: Callable[[float], _T], *, can_restart: Callable[[], bool], task: Task | None) -> _T:
        """Call ``fetch`` until it ends well or is not worth another attempt; all attempts share one deadline."""
        deadline = self._clock.monotonic() + self.settings.total_timeout_seconds
        attempt = 1
        while True:
            try:
                return fetch(deadline)
            except TransferError as error:
                if attempt >= self.settings.attempts or not _worth_retrying(error) or not can_restart():
                    raise
                if task is not None:
                    task.note(f"attempt {attempt + 1} of {self.settings.attempts}: {error.message}")
            self._sleep(_pause_seconds(attempt))
            attempt += 1

    @contextmanager
    def _answer(self, url: str, deadline: float) -> Iterator[Answer]:
        """Follow redirects from ``url`` and yield the answer with status 200."""
        location = parse_location(url)
        for _ in range(REDIRECT_LIMIT + 1):
            with self._connected(location, deadline) as answer:
                if answer.status == _OK:
                    yield answer
                    return
                target = answer.header("Location")
                if answer.status not in _REDIRECTS or target is None:
                    raise _status(answer)
            location = redirected(location, target)
        raise RedirectRefusedError(
            f"{show(url)} redirects more than {REDIRECT_LIMIT} times",
            resolution="Ask whoever runs the server; there may be a loop.",
            context={"url": show(url)},
        )

    @contextmanager
    def _connected(self, location: Location, deadline: float) -> Iterator[Answer]:
        """Connect to the first judged address of the location's host that answers."""
        addresses = addresses_of(
            location.host,
            location.port,
            resolver=self._resolver,
            allow_private=self.settings.allow_private_addresses,
        )
        context = self._tls() if location.scheme == "https" else None
        timeouts = Timeouts(
            connect_seconds=self.settings.connect_timeout_seconds, read_seconds=self.settings.read_timeout_seconds
        )
        with ExitStack() as stack:
            for position, address in enumerate(addresses):
                if self._clock.monotonic() >= deadline:
                    break
                guard = Guard(
                    self._clock,
                    deadline=deadline,
                    minimum_rate=self.settings.minimum_rate_bytes_per_second,
                    window_seconds=self._rate_window_seconds,
                )
                try:
                    answer = stack.enter_context(
                        exchange(location, address, context=context, timeouts=timeouts, guard=guard)
                    )
                except UnreachableError:
                    if position == len(addresses) - 1:
                        raise
                    continue
                yield answer
                return
        raise TransferStalledError(
            f"{show(location.url)} took too long in all and was given up",
            resolution="Run again later, or raise transfer.total_timeout_seconds.",
            context={"url": location.url, "host": location.host},
        )

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            import ssl

            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._ca_file is not None:
                try:
                    context.load_verify_locations(cafile=self._ca_file)
                except OSError as problem:
                    raise SettingsError(
                        f"the file of trusted authorities {self._ca_file} cannot be used: {problem}",
                        resolution="Name a readable file with certificates in PEM form.",
                    ) from problem
            self._context = context
        return self._context


def _pause_seconds(attempt: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** (attempt - 1))
    return longest * (0.5 + secrets.randbelow(501) / 1000)


def _worth_retrying(error: TransferError) -> bool:
    if isinstance(error, HttpStatusError):
        return error.context.get("status") in _WORTH_RETRYING
    if isinstance(error, UnreachableError):
        return not error.context.get("final")
    return isinstance(error, TransferCutError) and not error.context.get("complete")


def _refuse_larger(answer: Answer, limit_bytes: int) -> None:
    announced = answer.length_bytes
    if announced is not None and announced > limit_bytes:
        raise _too_large(answer.location, limit_bytes, f"The server announces {announced} bytes.")


def _too_large(location: Location, limit_bytes: int, details: str | None = None) -> TransferTooLargeError:
    return TransferTooLargeError(
        f"{show(location.url)} is longer than the {limit_bytes} bytes that it may have",
        details=details,
        resolution=f"Nothing of it is used. Ask whoever runs {location.host} what it serves there.",
        context={"url": location.url, "host": location.host, "limit_bytes": limit_bytes},
    )


def _too_short(answer: Answer, received: int, expected: int) -> TransferCutError:
    complete = answer.length_bytes == received
    return TransferCutError(
        f"{show(answer.location.url)} ended after {received} of {expected} bytes",
        details="The server announced that length." if complete else "The connection was closed early.",
        resolution=f"Run again; if it stays so, {answer.location.host} serves another file than the one signed.",
        context={"url": answer.location.url, "host": answer.location.host, "received": received, "complete": complete},
    )


def _status(answer: Answer) -> HttpStatusError:
    excerpt = bytearray()
    try:
        for piece in answer.pieces():
            excerpt.extend(piece[:_EXCERPT_BYTES])
            if len(excerpt) >= _EXCERPT_BYTES:
                break
    except TransferError:
        # The status is what counts; the text below it is only an explanation.
        pass
    text = bytes(excerpt[:_EXCERPT_BYTES]).decode("utf-8", errors="replace")
    return HttpStatusError(
        f"{answer.location.host} answered {answer.status} for {show(answer.location.url)}",
        details=show(text, _EXCERPT_BYTES) if text else None,
        resolution="What was there before stays as it is. Check the URL, or ask whoever runs the server.",
        context={"url": answer.location.url, "host": answer.location.host, "status": answer.status},
    )
