# SPDX-License-Identifier: Apache-2.0
"""Versions of the programs that took part in a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION_SECONDS = 30.0
_ASKED = {"debugfs": "-V", "mke2fs": "-V"}


def tool_versions(tools: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs of (tool, version); ``unknown`` of one that does not say.

    Raises:
        ToolMissingError: One is not installed.
    """
    found = []
    for tool in tools:
        try:
            said = run((tool, _ASKED.get(tool, "--version")), timeout_seconds=_VERSION_SECONDS).combined
        except ToolFailedError:
            said = ""
        version = re.search(r"\d+(?:\.\d+)+\S*", said)
        found.append((tool, version[0].rstrip(",)") if version else "unknown"))
    return tuple(found)
