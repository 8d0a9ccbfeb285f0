# SPDX-License-Identifier: Apache-2.0
"""How messages show the address of a package mirror, which may hold a password."""

from __future__ import annotations

import re

from coppice.http.location import show

_SCHEME = re.compile(r"(?:https?|ftp|file|copy):/{0,3}", re.IGNORECASE)


def shown_mirror(address: str) -> str:
    """Return ``address`` for a message, in quotes, without user information, be it an address at all or not.

    What is none may have a password anywhere before its last @: all before that is left out.
    """
    _, mark, after = address.rpartition("@")
    if not mark:
        return show(address)
    scheme = _SCHEME.match(address)
    return show(f"{scheme[0] if scheme else ''}…@{after}")
