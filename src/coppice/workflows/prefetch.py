# SPDX-License-Identifier: Apache-2.0
"""Prefetch: what a plan needs is fetched side by side while it is carried out, so that a slow image delays nobody."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from coppice.cache.model import CachedImage
from coppice.errors import InterruptedRunError
from coppice.workflows.parallel import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.cloud.model import DesiredImage
    from coppice.model.identifiers import ImageKey

    Name = tuple[ImageKey, str, str]
    """What tells apart what is fetched: which image, its version, and its checksum as it is listed."""


class Prefetch:
    """Fetches in threads that hold up nobody who wants to leave; each image once.

    Args:
        fetch: Brings one image here.
        threads: How many at a time.

    Attributes:
        on_ended: Called with each image that came or failed, in the thread that fetched it.
    """

    def __init__(self, fetch: Callable[[DesiredImage], CachedImage], threads: int) -> None:
        self.on_ended: Callable[[DesiredImage], object] = lambda _image: None
        self._fetch = fetch
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: deque[DesiredImage] = deque()
        self._begun: set[Name] = set()
        self._ended: dict[Name, Outcome[CachedImage]] = {}
        self._at_work = 0
        self._is_stopped = False

    def begin(self, images: Iterable[DesiredImage]) -> None:
        """Have these fetched, in their order."""
        with self._changed:
            for image in images:
                if name_of(image) not in self._begun:
                    self._begun.add(name_of(image))
                    self._waiting.append(image)
            for _ in range(min(len(self._waiting), self._threads - self._at_work)):
                self._at_work += 1
                threading.Thread(target=self._serve, name="coppice-prefetch", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing any more; what is under way is not waited for."""
        with self._changed:
            self._is_stopped = True
            for image in self._waiting:
                outcome = Outcome[CachedImage]()
                with outcome:
                    raise InterruptedRunError("the run has ended")
                self._ended[name_of(image)] = outcome
            self._waiting.clear()
            self._changed.notify_all()

    def has_ended(self, image: DesiredImage) -> bool:
        """Tell whether an image came or failed."""
        with self._changed:
            return name_of(image) in self._ended

    def soonest(self, images: Sequence[DesiredImage]) -> int:
        """Return the position of one that is here or failed; the first that is, when none is yet."""
        self.begin(images)
        with self._changed:
            while True:
                for position, image in enumerate(images):
                    if name_of(image) in self._ended:
                        return position
                self._changed.wait()

    def result(self, image: DesiredImage) -> CachedImage:
        """Return an image when it is here.

        Raises:
            CoppiceError: It could not be fetched.
        """
        self.soonest([image])
        return self._ended[name_of(image)].value()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped or not self._waiting:
                    self._at_work -= 1
                    return
                image = self._waiting.popleft()
            outcome = Outcome[CachedImage]()
            with outcome:
                outcome.result = self._fetch(image)
            with self._changed:
                self._ended[name_of(image)] = outcome
                self._changed.notify_all()
            self.on_ended(image)


def name_of(image: DesiredImage) -> Name:
    """Return what tells an image apart from all others that are fetched."""
    return image.key, image.listed.version, str(image.listed.checksum)
