# SPDX-License-Identifier: Apache-2.0
"""From when to when something holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """A span of time: created ≤ now < expires.

    Attributes:
        created: Aware UTC instant from which it holds.
        expires: Aware UTC instant from which it holds no more.
    """

    created: datetime
    expires: datetime

    def __post_init__(self) -> None:
        """Refuse instants without a time zone."""
        if self.created.tzinfo is None or self.expires.tzinfo is None:
            message = "a validity needs aware datetimes"
            raise ValueError(message)

    def is_expired(self, now: datetime) -> bool:
        """Tell whether it holds no more at ``now``."""
        return now >= self.expires
