# SPDX-License-Identifier: Apache-2.0
"""A guard beside a transfer: it ends the connection when time is up or the bytes come too slowly.

Timeouts of a socket count from the last byte, so a server that sends one byte now and then never meets them: in the
TLS handshake, in the headers, between chunks. The guard is a thread of its own; it shuts the connection down, whatever
the reader waits for.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from coppice.clock import Clock

_LONGEST_NAP_SECONDS = 1.0
_NAPS_A_WINDOW = 8


class Verdict(StrEnum):
    """Why a guard ended a connection."""

    DEADLINE = "deadline"
    TOO_SLOW = "too slow"
    ABORTED = "aborted"


class Guard:
    """Watches one exchange; use it as a context.

    Only the time that the reader waits for the server counts towards the rate: a slow disk is not a slow server.

    Args:
        clock: For durations.
        deadline: Monotonic instant at which the exchange ends.
        minimum_rate: Bytes a second, averaged over a window.
        window_seconds: Length of the window.
        patience_seconds: How long a server may take to answer after it was sent a body: it may have to read what is
            still under way, hash it, and write it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        deadline: float,
        minimum_rate: float,
        window_seconds: float,
        patience_seconds: float = 0.0,
    ) -> None:
        self.verdict: Verdict | None = None
        self.is_connected = False
        self._clock = clock
        self._deadline = deadline
        self._minimum_rate = minimum_rate
        self._window_seconds = window_seconds
        self._patience_seconds = patience_seconds
        self._is_patient = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._sockets: list[socket.socket] = []
        self._waited = 0.0
        self._received = 0
        self._waiting_since: float | None = None
        self._thread = threading.Thread(target=self._watch, name="coppice-transfer-guard", daemon=True)

    def __enter__(self) -> Self:
        self.wait_begins()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        for watched in self._sockets:
            watched.close()

    def watch(self, connection: socket.socket) -> None:
        """Take a connection under guard."""
        # A duplicate, because wrapping a socket in TLS takes its descriptor away.
        duplicate = connection.dup()
        with self._lock:
            self._sockets.append(duplicate)
            ended = self.verdict is not None
        if ended:
            self._shut()

    def abort(self) -> None:
        """End the connection now, whatever the reader waits for."""
        self.verdict = self.verdict or Verdict.ABORTED
        self._shut()

    def wait_begins(self) -> None:
        """Say that the reader waits for the server from now on."""
        with self._lock:
            self._waiting_since = self._clock.monotonic()

    def body_sent(self) -> None:
        """Say that the whole body went out and the reader waits for the answer."""
        with self._lock:
            self._waited, self._received, self._is_patient = 0.0, 0, True
            self._waiting_since = self._clock.monotonic()

    def wait_ends(self, received: int) -> None:
        """Say that the reader waits no longer, and how many bytes it got."""
        with self._lock:
            if self._waiting_since is not None:
                self._waited += self._clock.monotonic() - self._waiting_since
            self._waiting_since = None
            if self._is_patient:
                # What the server took to think does not count against the answer that follows.
                self._waited, self._is_patient = 0.0, False
            self._received += received

    def _watch(self) -> None:
        nap = min(_LONGEST_NAP_SECONDS, self._window_seconds / _NAPS_A_WINDOW)
        while not self._done.wait(nap):
            verdict = self._judge()
            if verdict is not None:
                self.verdict = verdict
                self._shut()
                return

    def _judge(self) -> Verdict | None:
        now = self._clock.monotonic()
        if now >= self._deadline:
            return Verdict.DEADLINE
        with self._lock:
            waited = self._waited + (now - self._waiting_since if self._waiting_since is not None else 0.0)
            window = max(self._window_seconds, self._patience_seconds if self._is_patient else 0.0)
            if waited < window:
                return None
            if self._received < self._minimum_rate * waited:
                return Verdict.TOO_SLOW
            self._waited, self._received = 0.0, 0
            self._waiting_since = now if self._waiting_since is not None else None
        return None

    def _shut(self) -> None:
        with self._lock:
            for watched in self._sockets:
                with contextlib.suppress(OSError):
                    watched.shutdown(socket.SHUT_RDWR)
