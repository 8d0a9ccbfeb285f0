# SPDX-License-Identifier: Apache-2.0
"""Supply: what the plans of several clouds need, each image fetched once, and converted once a choice of formats.

All of it is done in threads of its own, while nobody holds the lock of a cloud: a cloud is locked only while it is
changed.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NoReturn, Protocol

from coppice.conversion.model import ConvertedImage
from coppice.errors import InterruptedRunError, PlanError
from coppice.process import ended_when
from coppice.workflows.parallel import Outcome
from coppice.workflows.prefetch import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.cloud.model import DesiredImage
    from coppice.conversion.model import Formats
    from coppice.monitor import Monitor
    from coppice.workflows.prefetch import Name, Prefetch

    _Want = tuple[Name, Formats]

CONVERSIONS_AT_ONCE = 2
_POLL_SECONDS = 0.2
_STOPPING_SECONDS = 4.0
"""How long conversions that are under way have to end and to clean up."""


class Supplies(Protocol):
    """Where what is to be registered comes from."""

    def want(self, images: Iterable[DesiredImage], formats: Formats) -> None:
        """Have these brought, in one of the formats each; those that are wanted already are not brought twice."""
        ...

    def is_here(self, image: DesiredImage, formats: Formats) -> bool:
        """Tell whether an image that is wanted is here, or could not be had."""
        ...

    def await_any(self, images: Sequence[DesiredImage], formats: Formats, stop: threading.Event) -> None:
        """Wait until one of the images that are wanted is here or could not be had, or until ``stop`` is set."""
        ...

    def obtain(self, image: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        """Return an image when it is here.

        Raises:
            CoppiceError: It could not be had.
        """
        ...

    def end(self) -> None:
        """Begin nothing any more, and have what is under way end; returns at once."""
        ...


class Nothing:
    """Supplies nothing: for runs that register nothing."""

    def want(self, images: Iterable[DesiredImage], formats: Formats) -> None:
        """Want nothing."""

    def is_here(self, image: DesiredImage, formats: Formats) -> bool:
        """Tell that it is of no use to wait."""
        return True

    def await_any(self, images: Sequence[DesiredImage], formats: Formats, stop: threading.Event) -> None:
        """Wait for nothing."""

    def end(self) -> None:
        """Have nothing to end."""

    def obtain(self, image: DesiredImage, formats: Formats, monitor: Monitor) -> NoReturn:
        """Refuse.

        Raises:
            PlanError: Always.
        """
        raise PlanError(f"this run registers nothing, and was asked for image {image.key}")


class Supply:
    """Has images fetched and converted in threads that hold up nobody who wants to leave.

    Args:
        prefetch: Fetches; it tells this one of each image that came or failed.
        convert: Makes of an image that came what a cloud takes; called in a thread, for several images at once.
        monitor: Where progress is told.
        threads: How many conversions at a time.
    """

    def __init__(
        self,
        prefetch: Prefetch,
        convert: Callable[[DesiredImage, Formats, Monitor], ConvertedImage],
        monitor: Monitor,
        threads: int = CONVERSIONS_AT_ONCE,
    ) -> None:
        self._prefetch = prefetch
        self._convert = convert
        self._monitor = monitor
        self._threads = threads
        self._changed = threading.Condition()
        self._begun: set[_Want] = set()
        self._fetching: dict[Name, list[tuple[DesiredImage, Formats]]] = {}
        self._waiting: deque[tuple[DesiredImage, Formats]] = deque()
        self._ended: dict[_Want, Outcome[ConvertedImage]] = {}
        self._at_work = 0
        self._is_stopped = False
        prefetch.on_ended = self.arrived

    def want(self, images: Iterable[DesiredImage], formats: Formats) -> None:
        """Have these brought, in one of the formats each; those that are wanted already are not brought twice."""
        fresh = []
        with self._changed:
            for image in images:
                wanted = name_of(image), formats
                if wanted not in self._begun:
                    self._begun.add(wanted)
                    self._fetching.setdefault(name_of(image), []).append((image, formats))
                    fresh.append(image)
        self._prefetch.begin(fresh)
        for image in fresh:
            # It may have come for another cloud before.
            if self._prefetch.has_ended(image):
                self.arrived(image)

    def arrived(self, image: DesiredImage) -> None:
        """Go on with an image that came, or could not be fetched."""
        with self._changed:
            self._waiting.extend(self._fetching.pop(name_of(image), ()))
            self._start_threads()

    def is_here(self, image: DesiredImage, formats: Formats) -> bool:
        """Tell whether an image that is wanted is here, or could not be had."""
        with self._changed:
            return (name_of(image), formats) in self._ended

    def await_any(self, images: Sequence[DesiredImage], formats: Formats, stop: threading.Event) -> None:
        """Wait until one of the images that are wanted is here or could not be had, or until ``stop`` is set."""
        wanted = {(name_of(image), formats) for image in images}
        with self._changed:
            while not stop.is_set() and wanted.isdisjoint(self._ended):
                self._changed.wait(_POLL_SECONDS)

    def obtain(self, image: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        """Return an image when it is here.

        Raises:
            CoppiceError: It could not be had.
        """
        self.want([image], formats)
        self.await_any([image], formats, threading.Event())
        with self._changed:
            outcome = self._ended[name_of(image), formats]
        return outcome.value()

    def stop(self) -> None:
        """End what is under way, as `end`, and wait until its programs have cleaned up."""
        self.end()
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work, timeout=_STOPPING_SECONDS)

    def end(self) -> None:
        """Begin nothing any more, and have the programs of conversions that are under way end; returns at once."""
        self._prefetch.stop()
        with self._changed:
            self._is_stopped = True
            left = [*self._waiting, *(each for waiting in self._fetching.values() for each in waiting)]
            for image, formats in left:
                outcome = Outcome[ConvertedImage]()
                with outcome:
                    raise InterruptedRunError("the run has ended")
                self._ended[name_of(image), formats] = outcome
            self._waiting.clear()
            self._fetching.clear()
            self._changed.notify_all()

    def _start_threads(self) -> None:
        for _ in range(min(len(self._waiting), self._threads - self._at_work)):
            self._at_work += 1
            threading.Thread(target=self._serve, name="coppice-supply", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped or not self._waiting:
                    self._at_work -= 1
                    self._changed.notify_all()
                    return
                image, formats = self._waiting.popleft()
            outcome = Outcome[ConvertedImage]()
            with outcome, ended_when(lambda: self._is_stopped):
                outcome.result = self._convert(image, formats, self._monitor)
            with self._changed:
                self._ended[name_of(image), formats] = outcome
                self._changed.notify_all()
