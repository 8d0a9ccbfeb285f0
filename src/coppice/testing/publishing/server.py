# SPDX-License-Identifier: Apache-2.0
"""What all servers to publish to have in common: processes that end with the test, and free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

from coppice.http.client import Client
from coppice.settings.model import TransferSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 60.0
_END_SECONDS = 10.0
LIMIT_BYTES = 1024 * 1024 * 1024
TRANSFER = TransferSettings(
    list_size_limit_bytes=16 * 1024 * 1024,
    image_size_limit_bytes=LIMIT_BYTES,
    connect_timeout_seconds=10.0,
    read_timeout_seconds=30.0,
    minimum_rate_bytes_per_second=1,
    total_timeout_seconds=300.0,
    attempts=1,
    allow_private_addresses=True,
)
"""For clients of servers on loopback; one attempt, so that a test sees what happened."""


class PublishingServer:
    """A server that a publisher writes to; use it as a context.

    Args:
        directory: Where it keeps everything.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it answers."""
        raise NotImplementedError

    def options(self, area: str) -> dict[str, object]:
        """Return the options of a publisher that writes to ``area``, a part of the server of its own."""
        raise NotImplementedError

    def fetch(self, uri: str) -> bytes | None:
        """Return what a reader gets for ``uri``; None when nothing is there."""
        return fetch_http(uri)

    def size(self, uri: str) -> int | None:
        """Return how long an image is that a reader would get; None when nothing is there."""
        reply = Client(TRANSFER).request("HEAD", uri, expected=(200, 404), limit_bytes=LIMIT_BYTES)
        return None if reply.status == 404 else int(reply.headers["content-length"])  # noqa: PLR2004 - "not found"

    def leftovers(self, area: str) -> list[str]:
        """Return what uploads that were cut off left behind, in the server's own words."""
        raise NotImplementedError

    def stop(self) -> None:
        """End its processes."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def run(self, argv: Sequence[str], *, log: Path, environment: dict[str, str] | None = None) -> None:
        """Start a process of this server in a group of its own."""
        with log.open("ab") as output:
            self.processes.append(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
            )

    def wait_until(self, answers: Callable[[], bool], *, log: Path) -> None:
        """Wait until the server answers; say what it logged when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            ended = [process for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""
                message = f"{type(self).__name__} {'ended' if ended else 'did not answer'}: {said}"
                raise RuntimeError(message)
            time.sleep(0.05)


def partial_files(directory: Path) -> list[str]:
    """Return the files below ``directory`` that are hidden or temporary, notes left out."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.name.startswith("."))
    return sorted(path.relative_to(directory).as_posix() for path in found)


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def fetch_http(uri: str, accept: str = "*/*") -> bytes | None:
    """Return what is at an HTTP URL; None when nothing is there."""
    headers = {"Accept": accept}
    reply = Client(TRANSFER).request("GET", uri, expected=(200, 404), limit_bytes=LIMIT_BYTES, headers=headers)
    return None if reply.status == 404 else reply.body  # noqa: PLR2004 - HTTP's "not found"
