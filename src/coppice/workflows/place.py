# SPDX-License-Identifier: Apache-2.0
"""`Place`: where builds are made and booted, be it this process or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.definition.model import Definition
    from coppice.factory.model import BuildResult
    from coppice.monitor import Monitor


class Place(Protocol):
    """Where builds are made and booted."""

    @property
    def at_once(self) -> int:
        """How many builds can be under way at a time."""
        ...

    def make(
        self,
        definition: Definition,
        *,
        ancestors: tuple[BuildResult, ...],
        fresh: bool,
        monitor: Monitor,
        stopped: Callable[[], bool],
    ) -> BuildResult:
        """Build a definition upon ``ancestors``, the nearest first, or find its build."""
        ...

    def test(self, result: BuildResult, *, monitor: Monitor, stopped: Callable[[], bool]) -> BuildResult:
        """Have a build pass its boot tests; return it with what they said."""
        ...
