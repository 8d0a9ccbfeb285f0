# SPDX-License-Identifier: Apache-2.0
"""A connection to libvirt, and work over it that ends within a bounded time.

libvirt's calls wait for ever for a daemon that hangs. Each piece of work is therefore done by a thread of its own,
which gives a sign of life before each call; whoever waits for it gives it up when there was none for too long. Work
that was given up ends at its next call, and changes nothing more.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coppice.cloud.libvirt_pool.failures import translated
from coppice.cloud.libvirt_pool.host import Host
from coppice.errors import CloudDriverError, CloudTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from coppice.errors import CloudError

_Result = TypeVar("_Result")
_LOOK_SECONDS = 0.2


class _GivenUpError(BaseException):
    """Whoever waited for this work waits no more."""


class Pulse:
    """The signs of life of one piece of work."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._given_up = False

    def beat(self) -> None:
        """Give one; the work ends here if it was given up."""
        if self._given_up:
            raise _GivenUpError
        self._last = time.monotonic()

    def give_up(self) -> None:
        """End the work at its next sign of life."""
        self._given_up = True

    @property
    def silent_seconds(self) -> float:
        """How long ago the last one was."""
        return time.monotonic() - self._last


class _Work(Generic[_Result]):
    """A piece of work and what became of it."""

    def __init__(self, work: Callable[[Pulse], _Result], seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._pulse = Pulse()
        self._done = threading.Event()
        self._results: list[_Result] = []
        self._problem: BaseException | None = None

    def result(self) -> _Result:
        """Do it, and return what it returned or raise what it raised; TimeoutError: there was no sign of life."""
        # A thread that the end of the process does not wait for: it may stand still in a call for ever.
        threading.Thread(target=self._run, name="libvirt", daemon=True).start()
        try:
            while not self._done.wait(_LOOK_SECONDS):
                if self._pulse.silent_seconds > self._seconds:
                    raise TimeoutError
        finally:
            self._pulse.give_up()
        if self._problem is not None:
            raise self._problem
        return self._results[0]

    def __enter__(self) -> None:
        """Begin what is done by the thread."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Keep what went wrong: it is raised where the work is waited for."""
        self._problem = error
        self._done.set()
        return True

    def _run(self) -> None:
        with self:
            self._results.append(self._work(self._pulse))


class Session:
    """The libvirt of one URI; threads share its connection.

    Args:
        cloud: Name of the target, for messages.
        uri: Of the libvirt.
        call_seconds: How long one call may take.
    """

    def __init__(self, cloud: str, uri: str, call_seconds: float) -> None:
        self.cloud = cloud
        self.uri = uri
        self.call_seconds = call_seconds
        self._connection: Any = None
        self._lock = threading.Lock()

    def run(self, doing: str, work: Callable[[Host], _Result]) -> _Result:
        """Return what ``work`` returns.

        Args:
            doing: What it does, for messages.
            work: It asks libvirt by the host that it is given, and in no other way.

        Raises:
            CloudError: libvirt refused or failed, or did not answer in time.
        """
        library = _library()

        def all_of_it(pulse: Pulse) -> _Result:
            pulse.beat()
            return work(Host(self._connected(library, pulse), library, pulse.beat))

        try:
            return _Work(all_of_it, self.call_seconds).result()
        except library.libvirtError as problem:
            raise self.failure(problem, doing) from problem
        except TimeoutError as problem:
            with self._lock:
                # Whatever still waits on it does so alone.
                self._connection = None
            raise CloudTimeoutError(
                f"cloud {self.cloud}: {doing} failed: {self.uri} did not answer for {self.call_seconds:g} seconds",
                resolution="Look whether that libvirtd is well, then run again; a longer `timeout` waits longer.",
                context={"cloud": self.cloud},
            ) from problem

    def failure(self, problem: Any, doing: str) -> CloudError:
        """Return Coppice's error for one of libvirt's."""
        return translated(problem, self.cloud, doing)

    def _connected(self, library: Any, pulse: Pulse) -> Any:
        with self._lock:
            connection = self._connection
        if connection is not None:
            # One whose daemon was started anew is dead, and does not know it before it is used.
            with suppress(library.libvirtError):
                connection.getLibVersion()
                return connection
        pulse.beat()
        # Without anybody to ask: libvirt would read a password from the terminal.
        opened = library.openAuth(self.uri, [[], lambda *_: -1, None], 0)
        with self._lock:
            self._connection = opened
        return opened


def _library() -> Any:
    try:
        import libvirt
    except ImportError as problem:
        raise CloudDriverError(
            f"the library that speaks to libvirt cannot be loaded: {problem}",
            resolution="Install it: pip install 'coppice[libvirt]' (it is compiled: libvirt-dev and pkg-config are "
            "needed), or Debian's python3-libvirt.",
        ) from problem
    # The library writes each error to standard error beside raising it.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt
