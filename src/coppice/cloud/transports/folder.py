# SPDX-License-Identifier: Apache-2.0
"""Names of what transports put into a directory that is not theirs alone: one sub-directory an offer."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coppice.conversion.model import ConvertedImage

LOCK = "lock"
PARTIAL_SUFFIX = ".partial"
ABANDONED_SECONDS = 3600.0
"""After which a sub-directory without a lock is a dead run's: it is there for a moment only."""
_OFFER = re.compile(r"coppice-[0-9a-f]{32}")
_FILE = re.compile(r"disk\.[a-z0-9]{1,8}(\.partial)?|lock")


def offer_name() -> str:
    """Return a new name, which nobody can guess."""
    return f"coppice-{secrets.token_hex(16)}"


def is_offer(name: str) -> bool:
    """Tell whether a transport made a sub-directory of that name."""
    return _OFFER.fullmatch(name) is not None


def is_of_offer(name: str) -> bool:
    """Tell whether a transport makes files of that name in its sub-directories."""
    return _FILE.fullmatch(name) is not None


def disk_name(converted: ConvertedImage) -> str:
    """Return the name of an offered file: its ending says what it is, nothing of it comes from a list."""
    return f"disk.{converted.image.format.value}"
