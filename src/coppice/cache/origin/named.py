# SPDX-License-Identifier: Apache-2.0
"""Which servers the site itself names: keys that this user or machine has are shown to no other.

A list may name any server. To sign a request for it with the site's keys, or to log in there, would tell its owner who
asks, and let a list choose what the keys are used for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from coppice.settings.model import TransferSettings


def is_named_by_site(uri: str, settings: TransferSettings) -> bool:
    """Tell whether the settings name the server, or the bucket, of ``uri`` among their mirrors."""
    wanted = _place(uri)
    named = (each for others in settings.mirrors.values() for each in others)
    return wanted is not None and any(_place(each) == wanted for each in named)


def _place(uri: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(uri)
        # A bucket's name keeps its case; a host's has none.
        host = parts.netloc if parts.scheme.lower() == "s3" else (parts.hostname or "")
        return parts.scheme.lower(), host, parts.port or None
    except ValueError:
        return None
