# SPDX-License-Identifier: Apache-2.0
"""Ports of loopback for servers that are started later, by somebody else."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from pathlib import Path
from typing import Final

_TO_CONNECTIONS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_CHOICE: Final = 16_384
_LOWEST: Final = 1024
_TRIES: Final = 100


def free_port() -> int:
    """Return a TCP port on loopback that is free now."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Return so many TCP ports on loopback, all different, that are free now.

    They lie below those that the system gives to connections, if there is room: one of those could be given away
    before the server that it is meant for listens.
    """
    with contextlib.ExitStack() as stack:
        return tuple(_bound(stack.enter_context(socket.socket())) for _ in range(count))


def _bound(listener: socket.socket) -> int:
    first = _first_of_connections()
    lowest = max(first - _CHOICE, _LOWEST)
    for _ in range(_TRIES if lowest < first else 0):
        try:
            listener.bind(("127.0.0.1", lowest + secrets.randbelow(first - lowest)))
        except OSError as problem:
            if problem.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
        else:
            break
    else:
        listener.bind(("127.0.0.1", 0))
    return int(listener.getsockname()[1])


def _first_of_connections() -> int:
    try:
        return int(_TO_CONNECTIONS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0
