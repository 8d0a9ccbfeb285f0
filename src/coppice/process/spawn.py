# SPDX-License-Identifier: Apache-2.0
"""Start a program in a session of its own that ends with this process, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.process.limits import Limits

_PR_SET_PDEATHSIG = 1


def spawn(
    argv: Sequence[str],
    *,
    limits: Limits | None = None,
    then: Callable[[], None] | None = None,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """Start a program; what it writes, its environment and its folder are said by ``streams``, as Popen takes them.

    A signal that reaches the whole process group while the program starts, as Ctrl-C does, is this process's matter
    alone: the child, until it is the program, is a copy of this process with its handlers, and would run them. What
    runs here then ends the program.

    Args:
        argv: Program, by its path, and arguments.
        limits: Bounds set in the child.
        then: Called in the child, as the last thing before it becomes the program. It must not take a lock.
        streams: Further arguments of `subprocess.Popen`.

    Raises:
        OSError: It cannot be started.
        subprocess.SubprocessError: What was to be done in the child could not be done.
    """
    handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    prepare = _preparation(handled, mask, limits, then)
    child = None
    try:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, handled)
            child = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                argv,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - only system calls run in it
                **streams,
            )
        finally:
            # What came meanwhile is told here.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except BaseException:
        if child is not None:
            with child:
                end_process_group(child)
        raise
    return child


def end_process_group(child: subprocess.Popen[bytes], *, grace_seconds: float = 3.0) -> None:
    """End a child that `spawn` started, with everything it started."""
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


def _preparation(
    handled: Sequence[int], mask: set[int | signal.Signals], limits: Limits | None, then: Callable[[], None] | None
) -> Callable[[], None]:
    """Return what a child does before it becomes the program."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        # Whatever ends this process, the program ends with it: nothing goes on working for nobody.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It ended before that was said.
            os._exit(1)
        for number in handled:
            # Who ignores a signal loses the one that waits.
            signal.signal(number, signal.SIG_IGN)
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if limits is not None:
            limits.apply()
        if then is not None:
            then()

    return prepare
