# SPDX-License-Identifier: Apache-2.0
"""When a program in namespaces has ended: later than bwrap itself, if that was killed.

The kernel then ends the program, and nobody is told when that is done; until then it might still write to a file that
is to be removed or used for something else. The first process of its namespace is the last to go.
"""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_MILLISECONDS = 30_000
_SAID_BYTES = 4096


class Ending:
    """Waits, on the way out, until what bwrap started has ended.

    Attributes:
        handed_on: An open file, to which bwrap tells (``--info-fd``) which process it started.
    """

    def __init__(self) -> None:
        self._told, self.handed_on = os.pipe()
        os.set_blocking(self._told, False)
        self._said = b""
        self._process: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self.handed_on)
        try:
            self._look()
            if self._process is not None:
                # Not `select`, which knows no file above number 1023.
                selector = select.poll()
                selector.register(self._process, select.POLLIN)
                selector.poll(_MILLISECONDS)
                os.close(self._process)
        finally:
            os.close(self._told)

    def watch(self, stopped: Callable[[], bool] | None) -> Callable[[], bool]:
        """Return ``stopped``, which is asked while the program runs, so that its process is got hold of in time."""

        def watch() -> bool:
            self._look()
            return stopped is not None and stopped()

        return watch

    def _look(self) -> None:
        if self._process is not None:
            return
        try:
            self._said += os.read(self._told, _SAID_BYTES)
            # A handle stands for this very process, whatever becomes of its number.
            self._process = os.pidfd_open(int(json.loads(self._said)["child-pid"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Nothing was said yet, or the process has ended, or a handle cannot be had.
            return
