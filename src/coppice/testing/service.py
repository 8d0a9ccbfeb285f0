# SPDX-License-Identifier: Apache-2.0
"""`coppice run` as a process of its own, for tests: what it logs, answers and starts can be looked at as it works."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WAIT_SECONDS = 60.0
"""For what must come; a busy machine takes its time."""


def wait_for(what: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Wait until ``what()`` is true, and return it; it must become so."""
    deadline = time.monotonic() + seconds
    while not (seen := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return seen


class RunningService:
    """A service that was started; it and all that it started are gone when the block ends.

    Args:
        argv: What runs it, but for the words ``--log-format json run``.
        env: All of its environment.
        log: File that gets its standard error; more is added to what is there.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._begins_at = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stderr:
            self.program = subprocess.Popen(
                [*argv, "--log-format", "json", "run"],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Have it run while a block does, once it has begun to listen."""
        self.wait_for(lambda: self.logged("listening"))
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with what it started."""
        children = self.children()
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait(timeout=WAIT_SECONDS)
        wait_for(lambda: not any(is_running(child) for child in children))

    @property
    def pid(self) -> int:
        """Its number."""
        return self.program.pid

    def records(self) -> list[dict[str, Any]]:
        """Return what it and its jobs have logged so far; every line must be one JSON object."""
        text = self._log.read_bytes()[self._begins_at :].decode()
        return [_read(line) for line in text.split("\n")[:-1]]

    def logged(self, message: str, **fields: object) -> list[dict[str, Any]]:
        """Return the records with a message and with these fields."""
        return [
            each
            for each in self.records()
            if each["message"] == message and fields.items() <= each.get("fields", {}).items()
        ]

    def ended(self, job: str, **fields: object) -> list[dict[str, Any]]:
        """Return the records of runs of ``job`` that have ended."""
        return self.logged("job ended", job=job, **fields)

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """Wait until ``what()`` is true, and return it; the service must not end before."""

        def look() -> Any:
            ended = self.program.poll()
            found = what()
            assert found or ended is None, f"the service ended with {ended}: {self._log.read_text()}"
            return found

        return wait_for(look)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.logged("listening")[-1]["fields"]["port"])

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of a page."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return (name, labels) → value."""
        status, text = self.ask("/metrics")
        assert status == 200, text  # noqa: PLR2004 - well
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def reasons(self) -> list[str]:
        """Return why it is not ready; empty: it is."""
        status, text = self.ask("/readyz")
        said = json.loads(text)
        assert said["ready"] == (status == 200)  # noqa: PLR2004 - well
        return list(said["reasons"])

    def children(self) -> list[int]:
        """Return the processes that it started itself and that run still."""
        return [pid for pid, parent in _processes() if parent == self.pid]

    def descendants(self) -> list[int]:
        """Return those, and what they started."""
        parents = dict(_processes())
        found = []
        for pid in parents:
            above = parents.get(pid)
            while above not in {None, 0, self.pid}:
                above = parents.get(above)
            if above == self.pid:
                found.append(pid)
        return found

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        self.tell(signal.SIGTERM)
        return self.program.wait(timeout=WAIT_SECONDS)

    def kill(self) -> None:
        """End it without a word."""
        self.program.kill()
        self.program.wait(timeout=WAIT_SECONDS)


def _read(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as problem:
        raise AssertionError(f"this is no record of a log: {line!r}") from problem


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    return _stat(pid) not in {None, "Z", "X"}


def _processes() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - numbers, no files
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            rest = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if rest[0] not in "ZX":
                yield int(name), int(rest[1])


def _stat(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return None
