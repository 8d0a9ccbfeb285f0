# SPDX-License-Identifier: Apache-2.0
"""Signals as things that happened: noted when they come, looked at when there is time, and what waits is woken."""

from __future__ import annotations

import select
import signal
import socket
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_WATCHED: Final = (*_STOP, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """Notes signals while it is open; only the main thread can open it.

    Attributes:
        stops: How often the process was asked to stop.
    """

    def __init__(self) -> None:
        self.stops = 0
        self._reload = False
        self._before: dict[int, object] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        """Begin to note signals."""
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in _WATCHED:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        self._woken.close()
        self._waker.close()

    def take_reload(self) -> bool:
        """Tell whether settings are to be read anew, once each time that it was asked for."""
        asked, self._reload = self._reload, False
        return asked

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes, or for so long."""
        ready, _, _ = select.select([self._woken], [], [], max(0.0, seconds))
        if ready:
            try:
                while self._woken.recv(4096):
                    pass
            except BlockingIOError:
                return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.stops += 1
        elif number == signal.SIGHUP:
            self._reload = True
