# SPDX-License-Identifier: Apache-2.0
"""What all transfers of one client share: how many connections a host gets, and how many bytes a second come in."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.clock import Clock

_SHORTEST_PIECE_BYTES = 1024
_PIECES_A_SECOND = 4
_BURST_SECONDS = 0.5


class HostLimits:
    """Counts the connections to each host; threads share it.

    Args:
        most: Connections to one host at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, int] = {}
        self._freed = threading.Condition()

    def take(self, host: str, *, wait_seconds: float) -> bool:
        """Take a connection to ``host``; False: none became free in time."""
        with self._freed:
            if not self._freed.wait_for(lambda: self._taken.get(host, 0) < self._most, max(0.0, wait_seconds)):
                return False
            self._taken[host] = self._taken.get(host, 0) + 1
            return True

    def give_back(self, host: str) -> None:
        """Say that a connection has ended."""
        with self._freed:
            left = self._taken[host] - 1
            if left:
                self._taken[host] = left
            else:
                del self._taken[host]
            self._freed.notify_all()

    def free(self, host: str) -> int:
        """Return how many more connections ``host`` could have now."""
        with self._freed:
            return self._most - self._taken.get(host, 0)


class Bandwidth:
    """A token bucket for the bytes of all images; threads share it.

    Args:
        limit_bytes_per_second: None: no limit.
        clock: For durations.
        sleep: Takes the place of `time.sleep`.
    """

    def __init__(
        self, limit_bytes_per_second: int | None, *, clock: Clock, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._limit = limit_bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = 0.0

    def piece_bytes(self, most: int) -> int:
        """Return how much is read at a time, so that a pause is short."""
        return most if self._limit is None else max(_SHORTEST_PIECE_BYTES, min(most, self._limit // _PIECES_A_SECOND))

    def pay(self, size_bytes: int) -> None:
        """Wait as long as these bytes are worth."""
        if self._limit is None:
            return
        now = self._clock.monotonic()
        with self._lock:
            self._paid_until = max(self._paid_until, now - _BURST_SECONDS) + size_bytes / self._limit
            pause = self._paid_until - now
        if pause > 0:
            self._sleep(pause)
