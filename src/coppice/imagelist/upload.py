# SPDX-License-Identifier: Apache-2.0
"""Who is uploading: a token in the name of what is half-done tells whether its run may still be going on."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket

_TOKEN = re.compile(r"([0-9a-f]{8})\.([0-9]{1,10})\.[0-9a-f]{12}")


def machine() -> str:
    """Return eight digits that stand for this machine's name."""
    return hashlib.sha256(socket.gethostname().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def owner() -> str:
    """Return a fresh token of this run."""
    return f"{machine()}.{os.getpid()}.{secrets.token_hex(6)}"


def is_abandoned(token: str) -> bool:
    """Tell whether the run that made ``token`` was on this machine and has ended; of others nobody knows."""
    match = _TOKEN.fullmatch(token)
    if match is None or match[1] != machine():
        return False
    try:
        os.kill(int(match[2]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
