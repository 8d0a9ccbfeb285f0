# SPDX-License-Identifier: Apache-2.0
"""A cloud in memory whose calls go wrong where they are told to: for `coppice.testing.life_machine`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import ImageState
from coppice.errors import CloudTimeoutError
from coppice.testing.desired import SITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.cloud.model import OwnershipMarker, Presentation, RegisteredImage
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

_Result = TypeVar("_Result")
FAULTS = ("before", "after", "kill before", "kill after", "half", "file")


class Killed(BaseException):
    """The run ends here, as by ``kill -9``."""


class ChanceCloud(MemoryCloud):
    """A cloud whose calls go wrong where they are told to; after each change `watch` is called."""

    def __init__(self) -> None:
        super().__init__("chance", SITE)
        self.faults: dict[int, str] = {}
        self.calls = 0
        self.unlistable = ""
        self.unlistable_by = ""
        self.watch: Callable[[], None] = lambda: None

    def describe(self) -> tuple[RegisteredImage, ...]:
        """Describe, or fail."""
        return self._call(lambda: super(ChanceCloud, self).describe(), is_change=False)

    def register(
        self, converted: ConvertedImage, marker: OwnershipMarker, presentation: Presentation, monitor: Monitor
    ) -> RegisteredImage:
        """Register, or leave a part of it."""
        return self._call(lambda: super(ChanceCloud, self).register(converted, marker, presentation, monitor))

    def update_metadata(
        self, registered: RegisteredImage, marker: OwnershipMarker, presentation: Presentation
    ) -> RegisteredImage:
        """Update, or fail."""
        return self._call(lambda: super(ChanceCloud, self).update_metadata(registered, marker, presentation))

    def change_state(self, registered: RegisteredImage, marker: OwnershipMarker) -> RegisteredImage:
        """Change, or fail."""
        if registered.name == self.unlistable and marker.state is ImageState.AVAILABLE:
            self.faults[self.calls + 1] = self.unlistable_by
            self.unlistable = ""
        return self._call(lambda: super(ChanceCloud, self).change_state(registered, marker))

    def remove(self, registered: RegisteredImage) -> None:
        """Remove, or fail."""
        self._call(lambda: super(ChanceCloud, self).remove(registered))

    def _call(self, do: Callable[[], _Result], *, is_change: bool = True) -> _Result:
        self.calls += 1
        fault = self.faults.pop(self.calls, None)
        if fault == "before":
            raise CloudTimeoutError("no answer")
        if fault == "kill before":
            raise Killed
        if fault == "file" and is_change:
            self.files[f"left-{self.calls}"] = self.site
            raise Killed
        there = set(self.images)
        result = do()
        if fault == "half" and is_change:
            for identifier in set(self.images) - there:
                self.images[identifier].ready = False
            self.watch()
            raise Killed
        if is_change:
            self.watch()
        if fault == "after":
            raise CloudTimeoutError("no answer")
        if fault == "kill after":
            raise Killed
        return result
