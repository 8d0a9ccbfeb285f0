# SPDX-License-Identifier: Apache-2.0
"""The command line in children of one process that has everything loaded: quick to start, and easy to strike.

A child waits until ``strace`` holds it, so that the calls that are counted are the command's own and not those that
load Python. It is killed, or its calls made to fail, at the call that is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

STRACE = "/usr/bin/strace"
CHANGING = (
    *("openat", "mkdir", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "unlink", "unlinkat", "rmdir"),
    *("fsync", "fdatasync", "ftruncate", "fallocate", "write", "writev", "pwrite64", "copy_file_range", "sendfile"),
)
"""Calls that change files, or may."""
_SECONDS = 120.0
_SERVING = """
import sys
from coppice.testing.forked import serve
serve()
"""
_PR_SET_PTRACER = 0x59616D61
_ANYBODY = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that ended.

    Attributes:
        argv: Its arguments.
        code: Its exit code; negative: the signal that ended it.
        stdout: What it printed.
        stderr: Likewise.
        seconds: How long it took.
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict), self
        return found

    @property
    def error_codes(self) -> tuple[str, ...]:
        """Codes of the errors in that object."""
        return tuple(str(error["code"]) for error in self.said["errors"])


@dataclass(slots=True)
class CommandForge:
    """Runs ``coppice`` in forked children; use it as a context. One command at a time.

    Attributes:
        directory: For what children print, and traces.
    """

    directory: Path
    _process: subprocess.Popen[str] = field(init=False)
    _count: int = 0

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-c", _SERVING]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        strace: Sequence[str] = (),
        interrupt: tuple[int, float] | None = None,
    ) -> Ended:
        """Run a command to its end.

        Args:
            arguments: Of ``coppice``.
            environment: All of it.
            strace: Options of ``strace`` that holds the child; none: nobody does.
            interrupt: A signal, and after how many seconds it is sent.
        """
        self._count += 1
        place = self.directory / str(self._count)
        order = {
            "argv": list(arguments),
            "environment": dict(environment),
            "stdout": f"{place}.out",
            "stderr": f"{place}.err",
            "strace": list(strace),
            "interrupt": interrupt,
            "seconds": _SECONDS,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begun = time.monotonic()
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        seconds = time.monotonic() - begun
        code = int(said)
        texts = []
        for suffix in (".out", ".err"):
            path = place.with_name(place.name + suffix)
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
            path.unlink()
        return Ended(argv=arguments, code=code, stdout=texts[0], stderr=texts[1], seconds=seconds)

    def trace(self, *arguments: str, environment: Mapping[str, str], calls: Sequence[str] = CHANGING) -> list[str]:
        """Run a command that must end well, and return the lines of its trace: thread, call, arguments with paths."""
        output = self.directory / "trace"
        strace = ["-y", "-s", "0", "-e", f"trace={','.join(calls)}", "-o", str(output)]
        ended = self.run(*arguments, environment=environment, strace=strace)
        assert ended.code == 0, ended
        return output.read_text(encoding="utf-8", errors="replace").splitlines()


def injection(call: str, number: int, effect: str, *, lasting: bool = False) -> list[str]:
    """Return the options of ``strace`` that strike at a thread's n-th call.

    Args:
        call: Name of the call.
        number: Which of a thread's.
        effect: ``signal=KILL`` or ``error=ENOSPC``.
        lasting: Whether all later ones are struck as well.
    """
    when = f"{number}+" if lasting else str(number)
    return ["-e", f"trace={call}", "-e", f"inject={call}:{effect}:when={when}", "-o", "/dev/null"]


def serve() -> None:
    """Load everything, then run a child for each line of input."""
    import importlib
    import pkgutil

    import coppice

    for module in pkgutil.walk_packages(coppice.__path__, "coppice."):
        if ".testing" not in module.name and ".migrations" not in module.name and "__main__" not in module.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        code = _one(json.loads(line))
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def _one(order: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        _become(order)
    holder = None
    if order["strace"]:
        os.waitpid(child, os.WUNTRACED)
        holder = subprocess.Popen(
            [STRACE, "-f", "-qq", "-p", str(child), *order["strace"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_until_held(child, holder)
        os.kill(child, signal.SIGCONT)
    code = _ended(child, order)
    with contextlib.suppress(ProcessLookupError):
        # What it started ends with it.
        os.killpg(child, signal.SIGKILL)
    if holder is not None:
        holder.wait(timeout=30)
    return code


def _ended(child: int, order: dict[str, Any]) -> int:
    begun = time.monotonic()
    interrupt = order["interrupt"]
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - begun
        if interrupt is not None and passed >= interrupt[1]:
            os.kill(child, interrupt[0])
            interrupt = None
        if passed > order["seconds"]:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def _wait_until_held(child: int, holder: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with open(f"/proc/{child}/status", encoding="ascii") as stream:  # noqa: PTH123 - a process, no file
            if any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in stream):
                # It holds the child; the filter of calls is set before it lets go on.
                return
        if holder.poll() is not None:
            break
        time.sleep(0.002)
    message = "strace cannot hold a process here"
    raise RuntimeError(message)


def _become(order: dict[str, Any]) -> None:
    """Be the command, and end."""
    import ctypes

    from coppice.cli.main import main

    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["environment"]["HOME"])
    sys.argv = ["coppice", *order["argv"]]
    if order["strace"]:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANYBODY), 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    code = 70
    try:
        code = main(order["argv"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
