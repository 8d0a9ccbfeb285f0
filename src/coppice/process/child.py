# SPDX-License-Identifier: Apache-2.0
"""Start a program and go on: whoever started it asks whether it has ended, and ends it when it must.

For what runs long beside its parent, as the jobs of the service do; what is waited for is run by `coppice.process.run`.
It ends with its parent, however that ends. What it writes to standard output is kept in memory and read when it has
ended; its standard error is the parent's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING, Final

from coppice.errors import ToolFailedError
from coppice.process import Starting, end_process_group

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Most of a child's standard output that is read."""
_OOM_SCORE_FILE = "/proc/self/oom_score_adj"


class Child:
    """A program that was started.

    Args:
        argv: Program, by its path, and arguments.
        env: The whole of its environment.
        oom_score: How much sooner (0 to 1000) than its parent the system ends it when memory is short.

    Raises:
        ToolFailedError: It cannot be started.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], oom_score: int = 0) -> None:
        self.argv = tuple(argv)
        self._answer = _memory(self.argv)
        with Starting() as starting:
            try:
                self._program = starting.program(
                    self.argv,
                    then=lambda: _be_expendable(oom_score),
                    stdin=subprocess.DEVNULL,
                    stdout=self._answer,
                    env=dict(env),
                )
            except (OSError, subprocess.SubprocessError) as problem:
                os.close(self._answer)
                raise _not_started(self.argv, problem) from problem
            try:
                starting.is_known()
            except BaseException:
                self.end()
                self.close()
                raise

    @property
    def pid(self) -> int:
        """Its number; its process group has the same."""
        return self._program.pid

    def poll(self) -> int | None:
        """Return its exit status once it has ended (negative: the signal that ended it); None while it runs."""
        return self._program.poll()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, and to nothing that it started; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            self._program.send_signal(number)

    def end(self) -> None:
        """End it and all of its process group, now."""
        end_process_group(self._program, grace_seconds=0)
        self._program.wait()

    def answer(self) -> bytes:
        """Return what it wrote to standard output so far."""
        length = min(os.fstat(self._answer).st_size, ANSWER_LIMIT_BYTES)
        return os.pread(self._answer, length, 0)

    def close(self) -> None:
        """Give back what it was given; it must have ended."""
        os.close(self._answer)


def _memory(argv: tuple[str, ...]) -> int:
    try:
        return os.memfd_create("answer", os.MFD_CLOEXEC)
    except OSError as problem:
        raise _not_started(argv, problem) from problem


def _not_started(argv: tuple[str, ...], problem: Exception) -> ToolFailedError:
    reason = problem.strerror if isinstance(problem, OSError) else str(problem)
    return ToolFailedError(f"cannot start {argv[0]}: {reason}", context={"argv": list(argv)})


def _be_expendable(score: int) -> None:
    # Only system calls: other threads of the parent may hold locks.
    if not score:
        return
    with contextlib.suppress(OSError):
        handle = os.open(_OOM_SCORE_FILE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, str(score).encode())
        finally:
            os.close(handle)
