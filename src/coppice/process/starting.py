# SPDX-License-Identifier: Apache-2.0
"""Start a program in a session of its own that ends with this process, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from coppice.process.limits import Limits

_PR_SET_PDEATHSIG = 1
_PATIENCE_SECONDS = 1.0
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""What a thread brings upon itself: it cannot wait."""


_TIMERS = frozenset({signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF})
"""What comes once, to end what takes too long: starting may be just that."""


class Starting:
    """The time in which a program is started; until it is known to who starts it, signals wait.

    A handler that raises would otherwise do so when the program runs and nobody can end it yet; and the child, which
    is a copy of this process until it is the program, would run the handlers of this process when a signal goes to all
    of the process group, as Ctrl-C does. Such a signal is this process's matter alone. Used as::

        with Starting() as starting:
            child = starting.program(argv)
            try:
                starting.is_known()
                ...
            except BaseException:
                end_process_group(child)
                raise

    Python runs handlers in the main thread, whichever a signal came to: started from there, handlers are put off,
    and who asks once more a second later, by the same signal or another, is heard at once. Started from another
    thread, that thread's signals wait.
    """

    def __init__(self) -> None:
        self._mask: set[int | signal.Signals] | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._replaced: set[int] = set()
        self._put_off: dict[int, float] = {}
        self._is_known = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
            self._handlers = {
                number: handler for number, handler in handlers.items() if callable(handler) and number not in _TIMERS
            }
            try:
                for number in self._handlers:
                    self._replaced.add(number)
                    signal.signal(number, self._note)
            except BaseException:
                # By a handler that was not put off yet.
                self.is_known()
                raise
        else:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_known()

    def program(
        self,
        argv: Sequence[str],
        *,
        limits: Limits | None = None,
        then: Callable[[], None] | None = None,
        **streams: Any,
    ) -> subprocess.Popen[bytes]:
        """Start the program; what it writes, its environment and its folder are said by ``streams``.

        Args:
            argv: Program, by its path, and arguments.
            limits: Bounds set in the child.
            then: Called in the child, as the last thing before it becomes the program. It must not take a lock.
            streams: Further arguments of `subprocess.Popen`.

        Raises:
            OSError: It cannot be started.
            subprocess.SubprocessError: What was to be done in the child could not be done.
        """
        child = subprocess.Popen.__new__(subprocess.Popen)
        prepare = _preparation(self._mask, limits, then)
        try:
            child.__init__(argv, start_new_session=True, preexec_fn=prepare, **streams)  # type: ignore[misc]
        except BaseException:
            _end_half_started(child)
            raise
        return child

    def is_known(self) -> None:
        """Let signals through again: those that waited are handled now, and raise here what their handlers raise."""
        # From here on `_note` hands on what comes, wherever it still stands in the place of a handler.
        self._is_known = True
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            return
        try:
            self._restore()
        finally:
            self._tell()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._is_known or (self._put_off and now - min(self._put_off.values()) > _PATIENCE_SECONDS):
            self._put_off.pop(number, None)
            self._handlers[number](number, frame)
        else:
            self._put_off.setdefault(number, now)

    def _restore(self) -> None:
        try:
            for number in tuple(self._replaced):
                signal.signal(number, self._handlers[number])
                self._replaced.discard(number)
        except BaseException:
            # One that is back already was called, and raised; the others come back too.
            self._restore()
            raise

    def _tell(self) -> None:
        while self._put_off:
            number, _ = self._put_off.popitem()
            try:
                self._handlers[number](number, None)
            finally:
                self._tell()


def end_process_group(child: subprocess.Popen[bytes], *, grace_seconds: float = 3.0) -> None:
    """End a child that was started by `Starting`, with everything it started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace_seconds)
            if signal_number == signal.SIGTERM:
                # The leader is gone; stragglers of its group may not be.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
            return


def _end_half_started(child: subprocess.Popen[bytes]) -> None:
    """End what a second signal interrupted the start of; what could not be started at all has no number, or ended."""
    if getattr(child, "pid", None) and child.returncode is None:
        # It may not have a group of its own yet.
        child.kill()
        end_process_group(child, grace_seconds=0)
        child.wait()


def _preparation(
    mask: set[int | signal.Signals] | None, limits: Limits | None, then: Callable[[], None] | None
) -> Callable[[], None]:
    """Return what a child does before it becomes the program; ``mask``: of the signals that wait, if they do."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        # Whatever ends this process, the program ends with it: nothing goes on working for nobody.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It ended before that was said.
            os._exit(1)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                # Who ignores a signal loses the one that waits.
                signal.signal(number, signal.SIG_IGN)
                signal.signal(number, signal.SIG_DFL)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if limits is not None:
            limits.apply()
        if then is not None:
            then()

    return prepare
