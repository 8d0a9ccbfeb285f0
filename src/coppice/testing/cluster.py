# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster on loopback: a scheduler, and workers that declare what a test says, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 90.0
_LOOPBACK = "127.0.0.1"


class LocalCluster:
    """A scheduler, which starts with the block and ends with it, as its workers do.

    Args:
        directory: Where its files and logs are.
        path: Directories from which workers import modules, beside what is installed.
        preload: Modules that workers import when they start.
        tls: Files (PEM) of an authority, a certificate and its key; None: without TLS.
    """

    def __init__(
        self,
        directory: Path,
        *,
        path: Sequence[Path] = (),
        preload: Sequence[str] = (),
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        self._directory = directory
        self._path = path
        self._preload = preload
        self._tls = tls
        self._started: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def __enter__(self) -> Self:
        """Start the scheduler."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "scheduler.json"
        words = ["--host", f"{self._scheme}://{_LOOPBACK}:0", "--no-dashboard", "--no-show", "--scheduler-file", file]
        scheduler = self._start("scheduler", "distributed.cli.dask_scheduler", *map(str, words))
        try:
            self.address = self._address(scheduler, file)
        except BaseException:
            # Nobody leaves a block that was not entered.
            self.kill(scheduler)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        for each in reversed(self._started):
            self.kill(each)

    def worker(
        self, name: str, resources: Mapping[str, int], *, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker; `wait_for_workers` tells when it is there.

        Args:
            name: For its log.
            resources: What it declares.
            extra: Variables of its environment.
        """
        declared = " ".join(f"{each}={number}" for each, number in resources.items())
        words = [self.address, "--no-nanny", "--no-dashboard", "--nthreads", "8", "--memory-limit", "0", "--name", name]
        words += ["--host", _LOOPBACK, "--local-directory", str(self._directory / f"worker-{name}")]
        words += [word for module in self._preload for word in ("--preload", module)]
        if declared:
            words += ["--resources", declared]
        return self._start(f"worker-{name}", "distributed.cli.dask_worker", *words, extra=extra)

    def wait_for_workers(self, *names: str) -> None:
        """Wait until the scheduler knows the workers of these names."""
        until = time.monotonic() + _START_SECONDS
        for name in names:
            log = self._directory / f"worker-{name}.log"
            while "Registered to" not in log.read_text():
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)

    def kill(self, program: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a worker and what it started, and see it gone."""
        with suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        program.wait(timeout=30)

    def _address(self, scheduler: subprocess.Popen[bytes], file: Path) -> str:
        until = time.monotonic() + _START_SECONDS
        while True:
            assert scheduler.poll() is None, (self._directory / "scheduler.log").read_text()
            assert time.monotonic() < until, "the scheduler did not start"
            with suppress(OSError, ValueError, KeyError):
                return str(json.loads(file.read_text())["address"])
            time.sleep(0.05)

    @property
    def _scheme(self) -> str:
        return "tcp" if self._tls is None else "tls"

    def _start(
        self, name: str, module: str, *words: str, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([*map(str, self._path), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, **(extra or {})}
        argv = [sys.executable, "-m", module, *words]
        if self._tls is not None:
            authority, certificate, key = map(str, self._tls)
            argv += ["--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key]
        with (self._directory / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._started.append(started)
        return started
