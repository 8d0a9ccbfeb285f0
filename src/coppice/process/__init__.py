# SPDX-License-Identifier: Apache-2.0
"""Run a program: an argument list, never a shell; a time limit; a small environment; captured output.

The program runs in a process group of its own, which is ended as a whole when time is up or the run is
interrupted. What a program writes is kept up to a limit, its tail is shown when it fails.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from coppice.errors import InterruptedRunError, ToolFailedError, ToolMissingError, ToolTimeoutError
from coppice.process.limits import Limits
from coppice.process.starting import Starting, end_process_group
from coppice.process.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "CAPTURE_LIMIT_BYTES",
    "TOOLS",
    "Completed",
    "Limits",
    "Starting",
    "end_process_group",
    "ended_when",
    "find_tool",
    "raise_failed",
    "run",
    "search_path",
]

CAPTURE_LIMIT_BYTES = 8 * 1024 * 1024
TAIL_LINES = 20
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_VARIABLES = ("HOME", "TMPDIR", "LANG", "http_proxy", "https_proxy", "no_proxy", "SOURCE_DATE_EPOCH")
_MANY_PIECES, _SMALL_PIECE_BYTES, _PAUSE_SECONDS = 200, 1024, 0.001

_thread = threading.local()


@contextlib.contextmanager
def ended_when(stopped: Callable[[], bool]) -> Iterator[None]:
    """End every program that this thread runs meanwhile when ``stopped`` says so; it is asked some times a second.

    Whoever waits for such a program gets an `InterruptedRunError`, and cleans up as after Ctrl-C.
    """
    before = getattr(_thread, "stopped", None)
    _thread.stopped = stopped
    try:
        yield
    finally:
        _thread.stopped = before


def _patience() -> float:
    """Return for how many seconds nobody is asked whether a program of this thread is to end."""
    # A run that was told to stop has few seconds for everything.
    return 1.0 if getattr(_thread, "stopped", None) is None else 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended.

    Attributes:
        argv: What was run.
        returncode: Its exit status; negative: the signal that ended it.
        stdout: What it wrote to standard output; of more than the limit, the end.
        stderr: What it wrote to standard error, likewise.
        combined: Both, in about the order in which they came, decoded with replacement.
        seconds: Wall-clock time.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    combined: str
    seconds: float

    def text(self) -> str:
        """Return standard output as text."""
        return self.stdout.decode("utf-8", errors="replace")


def search_path() -> str:
    """Return where programs are looked for: PATH, then the usual places."""
    return os.pathsep.join(part for part in (os.environ.get("PATH", ""), _SEARCH_PATH) if part)


def find_tool(name: str) -> str:
    """Return the path of the program ``name``.

    Raises:
        ToolMissingError: It is not installed; the message names the package that has it.
    """
    found = shutil.which(name, path=search_path())
    if found is None:
        known = TOOLS.get(name)
        purpose = f", which Coppice needs for {known.purpose}" if known else ""
        package = known.package if known else name
        raise ToolMissingError(
            f"the program {name!r} is not installed{purpose}",
            resolution=f"Install it: apt-get install {package}. `coppice doctor` lists all that is missing.",
            context={"tool": name, "package": package},
        )
    return found


def run(
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input_bytes: bytes | None = None,
    ok: Sequence[int] = (0,),
    on_output: Callable[[str], None] | None = None,
    limits: Limits | None = None,
    whole_environment: bool = False,
    capture_bytes: int = CAPTURE_LIMIT_BYTES,
    linger_seconds: float | None = None,
    on_ended: Callable[[], object] = lambda: None,
    stopped: Callable[[], bool] | None = None,
    handed_on: Sequence[int] = (),
    before_start: Callable[[], None] | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it said.

    Args:
        argv: Program and arguments; the program is looked up in PATH.
        timeout_seconds: After this time its whole process group is ended.
        cwd: Working directory.
        env: Variables added to a small environment (PATH, HOME, LC_ALL=C.UTF-8 and a few more).
        input_bytes: Written to its standard input, which is empty otherwise.
        ok: Exit statuses that mean success.
        on_output: Called with each piece of output as it comes (progress).
        limits: Bounds set in the child.
        whole_environment: Whether ``env`` is all of its environment.
        capture_bytes: How much of its output is kept, of each stream.
        linger_seconds: How long, after it has ended, what it left behind may keep its output open; None: until time is
            up. After that it is ended as well.
        on_ended: Called when it had to be ended: for what has left its process group.
        stopped: Asked about once a second; when it says so, the program is ended.
        handed_on: Open files that the program gets, under the same numbers.
        before_start: Called in the child, as the last thing before it becomes the program. It must not take a lock.

    Raises:
        ToolMissingError: The program is not installed.
        ToolTimeoutError: Time was up.
        ToolFailedError: It cannot be started, or ended with another status than those in ``ok``.
        InterruptedRunError: ``stopped`` said so.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = words[0] if os.sep in words[0] else find_tool(words[0])
    started = time.monotonic()
    with Starting() as starting:
        child = _start(
            starting,
            words,
            limits=limits,
            then=before_start,
            stdin=subprocess.DEVNULL if input_bytes is None else subprocess.PIPE,
            cwd=cwd,
            env=dict(env or {}) if whole_environment else _environment(env),
            pass_fds=handed_on,
        )
        with child:
            try:
                talk = _Talk(child, input_bytes, on_output, capture_bytes, stopped)
                starting.is_known()
                if not talk.hold(started + timeout_seconds, linger_seconds):
                    _end(child, on_ended)
            except TimeoutError:
                _end(child, on_ended)
                raise ToolTimeoutError(
                    f"{words[0]} did not end within {timeout_seconds:.0f} s and was stopped",
                    details=f"$ {shlex.join(words)}\n{_tail(talk.combined)}",
                    context={"argv": words},
                ) from None
            except BaseException:
                _end(child, on_ended)
                raise
    completed = Completed(
        argv=tuple(words),
        returncode=child.returncode,
        stdout=bytes(talk.captured["out"]),
        stderr=bytes(talk.captured["err"]),
        combined=talk.combined,
        seconds=time.monotonic() - started,
    )
    if completed.returncode not in ok:
        raise_failed(completed)
    return completed


def _start(starting: Starting, words: list[str], **prepared: Any) -> subprocess.Popen[bytes]:
    try:
        return starting.program(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **prepared)
    except FileNotFoundError as problem:
        raise ToolMissingError(f"cannot run {words[0]}: {problem}", context={"tool": words[0]}) from problem
    except OSError as problem:
        raise ToolFailedError(f"cannot run {words[0]}: {problem.strerror}", context={"argv": words}) from problem
    except subprocess.SubprocessError as problem:
        # What was to be done in the child before the program started could not be done.
        raise ToolFailedError(f"cannot prepare to run {words[0]}: {problem}", context={"argv": words}) from problem


def _end(child: subprocess.Popen[bytes], on_ended: Callable[[], object]) -> None:
    end_process_group(child)
    on_ended()


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": search_path(), "LC_ALL": "C.UTF-8", **inherited, **(extra or {})}


class _Talk:
    """What is said to a program and by it; of what it says, the end is kept."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        input_bytes: bytes | None,
        on_output: Callable[[str], None] | None,
        capture_bytes: int,
        stopped: Callable[[], bool] | None,
    ) -> None:
        self._child = child
        self._pending = memoryview(input_bytes or b"")
        self._on_output = on_output
        self._capture_bytes = capture_bytes
        self._stopped, self._pieces = stopped, 0
        self.captured = {"out": bytearray(), "err": bytearray(), "both": bytearray()}

    @property
    def combined(self) -> str:
        return self.captured["both"].decode("utf-8", errors="replace")

    def hold(self, deadline: float, linger_seconds: float | None) -> bool:
        """Talk until the program has ended and its output is closed; False: it ended, and its output stayed open.

        Raises:
            TimeoutError: It did not end in time.
            InterruptedRunError: Somebody stopped it.
        """
        child, lingers_until = self._child, None
        with selectors.DefaultSelector() as selector:
            for stream, name in ((child.stdout, "out"), (child.stderr, "err")):
                if stream is not None:
                    os.set_blocking(stream.fileno(), False)
                    selector.register(stream, selectors.EVENT_READ, name)
            if child.stdin is not None:
                os.set_blocking(child.stdin.fileno(), False)
                selector.register(child.stdin, selectors.EVENT_WRITE, "in")
            while selector.get_map():
                now = time.monotonic()
                self._check_stopped()
                if lingers_until is None and linger_seconds is not None and child.poll() is not None:
                    lingers_until = now + linger_seconds
                if lingers_until is not None and now >= lingers_until:
                    return False
                if now >= deadline:
                    raise TimeoutError
                for key, _ in selector.select(timeout=min(deadline - now, _patience())):
                    self._exchange(key, selector)
        self._await_end(deadline)
        return True

    def _await_end(self, deadline: float) -> None:
        while True:
            try:
                self._child.wait(timeout=min(_patience(), max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                self._check_stopped()
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
            else:
                return

    def _check_stopped(self) -> None:
        for stopped in (self._stopped, getattr(_thread, "stopped", None)):
            if stopped is not None and stopped():
                raise InterruptedRunError("the run has ended")

    def _exchange(self, key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
        if key.data == "in":
            self._pending = _feed(self._child, selector, self._pending)
            return
        piece = os.read(key.fd, 65536)
        if not piece:
            selector.unregister(key.fileobj)
            return
        _keep(self.captured[key.data], piece, self._capture_bytes)
        _keep(self.captured["both"], piece, self._capture_bytes)
        if self._on_output is not None:
            self._on_output(piece.decode("utf-8", errors="replace"))
        self._pieces += 1
        if self._pieces > _MANY_PIECES and len(piece) < _SMALL_PIECE_BYTES:
            time.sleep(_PAUSE_SECONDS)  # Whoever says that much line by line is listened to many lines at a time.


def _feed(child: subprocess.Popen[bytes], selector: selectors.BaseSelector, pending: memoryview) -> memoryview:
    assert child.stdin is not None  # noqa: S101 - only called for a child with a pipe
    try:
        pending = pending[os.write(child.stdin.fileno(), pending[:65536]) :] if pending else pending
    except BrokenPipeError:
        pending = memoryview(b"")
    if not pending:
        selector.unregister(child.stdin)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    return pending


def _keep(captured: bytearray, piece: bytes, limit_bytes: int) -> None:
    # The tail is what explains a failure, so the head goes first when the limit is reached.
    captured += piece
    if len(captured) > limit_bytes:
        del captured[: len(captured) - limit_bytes]


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def raise_failed(completed: Completed) -> NoReturn:
    """Raise the error of a program that ended otherwise than it should.

    Raises:
        ToolFailedError: Always; it tells the end of what the program said.
    """
    ended = (
        f"was ended by signal {-completed.returncode}"
        if completed.returncode < 0
        else f"ended with status {completed.returncode}"
    )
    raise ToolFailedError(
        f"{completed.argv[0]} {ended}",
        details=f"$ {shlex.join(completed.argv)}\n{_tail(completed.combined)}",
        context={"argv": list(completed.argv), "returncode": completed.returncode},
    )
