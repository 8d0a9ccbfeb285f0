# SPDX-License-Identifier: Apache-2.0
"""What ends soon. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from coppice.cloud.model import RegisteredImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An image that users find, and until when.

    Attributes:
        image: Which.
        expires: When its endorsement, or its list's, ends.
    """

    image: RegisteredImage
    expires: datetime


def ending_soon(registered: Iterable[RegisteredImage], within: timedelta, now: datetime) -> tuple[Ending, ...]:
    """Return what is available and ends within a time from now, the first to end first.

    What takes its place is no matter: it is available then, and this one superseded.
    """
    found = [
        Ending(image=each, expires=each.marker.expires)
        for each in registered
        if each.marker.state is ImageState.AVAILABLE and each.marker.expires is not None
    ]
    soon = [each for each in found if now < each.expires <= now + within]
    return tuple(sorted(soon, key=lambda each: (each.expires, each.image.cloud_identifier)))
