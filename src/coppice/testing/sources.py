# SPDX-License-Identifier: Apache-2.0
"""Sources that judge by trust anchors that a test holds, whatever path a subscription names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.clock import SystemClock
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.source.drivers import SourceShelf
from coppice.subscription.source.protocol import SourceSupplies

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.subscription.anchors import TrustAnchors


class _GivenAnchors(AnchorShelf):
    def __init__(self, anchors: TrustAnchors) -> None:
        super().__init__()
        self._given = anchors

    def load(self, path: Path | None) -> TrustAnchors:
        """Return those that were given."""
        del path
        return self._given


def sources_of(anchors: TrustAnchors) -> SourceShelf:
    """Return sources that fetch nothing, and judge by ``anchors``."""
    return SourceShelf(
        SourceSupplies(client=None, clock=SystemClock(), limits=DEFAULT_LIMITS, anchors=_GivenAnchors(anchors))
    )
