# SPDX-License-Identifier: Apache-2.0
"""Tell systemd how the service is: ready, reloading, stopping, alive (the protocol of ``sd_notify(3)``).

Where nobody asked to be told, nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Announcer:
    """Whoever started the service, as far as it wants to be told.

    Args:
        environ: ``NOTIFY_SOCKET`` says where, ``WATCHDOG_USEC`` how often it must hear that the service is alive.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog(environ) if self._address is not None else None
        """How often it wants to hear of the service, at half the time that it waits; None: it does not."""

    def ready(self, status: str) -> None:
        """Say that the service works, and in a few words at what."""
        self._say("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Say what the service does just now."""
        self._say(_status(status))

    def reloading(self) -> None:
        """Say that settings are read anew; `ready` says that they were."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the service is about to end."""
        self._say("STOPPING=1", _status("stopping"))

    def alive(self) -> None:
        """Say that the service has not hung."""
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if self._address is None:
            return
        # Who is not there to hear it is no reason to fail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.settimeout(0)
            speaker.sendto("\n".join(lines).encode(), self._address)


def _address(said: str) -> str | None:
    if said.startswith("/"):
        return said
    # An abstract socket: systemd writes its first byte, zero, as an at sign.
    return f"\0{said[1:]}" if said.startswith("@") else None


def _watchdog(environ: Mapping[str, str]) -> float | None:
    said, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not said.isdecimal() or int(said) == 0 or (whose and whose != str(os.getpid())):
        return None
    return int(said) / 1_000_000 / 2


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"
