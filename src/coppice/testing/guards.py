# SPDX-License-Identifier: Apache-2.0
"""Block network and programs in unit tests: a test that reaches out fails, and says what it tried."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCKED: tuple[tuple[object, str], ...] = (
    (socket.socket, "connect"),
    (socket.socket, "connect_ex"),
    (socket.socket, "bind"),
    (socket.socket, "sendto"),
    (socket, "getaddrinfo"),
    (subprocess, "Popen"),
    (os, "system"),
    (os, "fork"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
)


class GuardedError(AssertionError):
    """A unit test used the network or started a program."""


@contextmanager
def nothing_leaves_the_process() -> Iterator[None]:
    """Make every connection, name resolution and program fail while the block runs."""
    with ExitStack() as stack:
        for owner, name in _BLOCKED:
            stack.enter_context(mock.patch.object(owner, name, _Blocked(f"{getattr(owner, '__name__', owner)}.{name}")))
        yield


class _Blocked:
    def __init__(self, what: str) -> None:
        self._what = what

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise GuardedError(f"a unit test called {self._what}; mark it as integration, or hand in a stand-in")
