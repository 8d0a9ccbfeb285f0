# SPDX-License-Identifier: Apache-2.0
"""`CloudUser`: somebody who looks all the time for a version of an image that can be started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from coppice.testing.libvirtd import library

if TYPE_CHECKING:
    from coppice.testing.used_clouds import UsedCloud

LOOK_SECONDS = 0.05


class CloudUser:
    """A user of one cloud; use it as a context: it looks until that ends.

    Args:
        cloud: Where.
        image: Which, by its identifier.
        look_seconds: Between two looks.

    Attributes:
        looks: How often it did.
        without: What was there when none could be started.
        unanswered: How often the cloud itself did not answer, so that nothing is known.
        versions: Those found.
    """

    def __init__(self, cloud: UsedCloud, image: str, look_seconds: float = LOOK_SECONDS) -> None:
        self.cloud, self.image, self._look_seconds = cloud, image, look_seconds
        self.looks = self.unanswered = 0
        self.without: list[object] = []
        self.versions: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _look(self) -> None:
        while not self._over.wait(self._look_seconds):
            try:
                found = self.cloud.usable(self.image)
            except library().libvirtError:
                self.unanswered += 1
                continue
            self.looks += 1
            if found is None:
                self.without.append(self.cloud.states())
            elif not self.versions or self.versions[-1] != found:
                self.versions.append(found)
