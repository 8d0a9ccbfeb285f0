# SPDX-License-Identifier: Apache-2.0
"""`Attempts`: what failed is tried again where that can help, after a pause that no two clients share."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, TypeVar

from coppice.errors import TransferError
from coppice.http import failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.clock import Clock
    from coppice.monitor import Task

_T = TypeVar("_T")

LONGEST_PAUSE_SECONDS = 4.0
LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for more patience than this (Retry-After) is not waited for."""


class Attempts:
    """Tries again; threads may share it.

    Args:
        most: How often something is tried.
        clock: For durations.
        sleep: Takes the place of `time.sleep` between attempts.
    """

    def __init__(self, most: int, *, clock: Clock, sleep: Callable[[float], object] = time.sleep) -> None:
        self.most = most
        self._clock = clock
        self._sleep = sleep

    def run(
        self,
        work: Callable[[float], _T],
        *,
        deadline: float,
        can_restart: Callable[[TransferError], bool] = lambda _: True,
        task: Task | None = None,
    ) -> _T:
        """Call ``work`` until it ends well or is not worth another attempt; all attempts share one deadline.

        Raises:
            TransferError: What the last attempt failed of.
        """
        attempt = 1
        while True:
            try:
                return work(deadline)
            except TransferError as error:
                if attempt >= self.most or not failures.worth_retrying(error) or not can_restart(error):
                    raise
                pause = self.pause_seconds(attempt, error)
                if pause is None or self._clock.monotonic() + pause >= deadline:
                    raise
                if task is not None:
                    task.note(f"attempt {attempt + 1} of {self.most}: {error.message}")
            self.wait(pause)
            attempt += 1

    def wait(self, seconds: float) -> None:
        """Pause."""
        self._sleep(seconds)

    @staticmethod
    def pause_seconds(attempt: int, error: TransferError) -> float | None:
        """Return how long to pause after that many attempts; None: the server asks for more than is waited.

        What the server asks for (Retry-After, RFC 9110, 10.2.3) is waited for, and a little more: all its clients were
        told the same.
        """
        longest = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** (attempt - 1))
        pause = longest * (0.5 + secrets.randbelow(501) / 1000)
        asked = error.context.get("retry_after_seconds")
        if not isinstance(asked, int):
            return pause
        return None if asked > LONGEST_WAIT_SECONDS else asked + pause
