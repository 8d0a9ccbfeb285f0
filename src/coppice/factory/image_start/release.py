# SPDX-License-Identifier: Apache-2.0
"""Of which release an image says that it is, held against its definition: that is what its users are told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.errors import BuildError

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.evidence.tree import GuestTree

_FILES = ("/etc/os-release", "/usr/lib/os-release")
_CODENAME = re.compile(r"^VERSION_CODENAME=([\"']?)([a-z0-9._-]+)\1[ \t\r]*$", re.MULTILINE)


def check_release(definition: Definition, tree: GuestTree, image: str) -> None:
    """Refuse an image that says that it is of another release than ``definition``.

    Raises:
        BuildError: It says so, or does not say of which it is.
    """
    said = next((text for path in _FILES if (text := tree.text(path))), "")
    found = _CODENAME.findall(said)
    if not found:
        raise BuildError(
            f"{image} does not say of which release it is, and {definition.name} is of {definition.suite}",
            details=f"Looked for VERSION_CODENAME in {' and '.join(_FILES)}.",
            resolution="Start from an image of Debian 11, Ubuntu 22.04 or later: they say so.",
        )
    # Whoever reads it takes the last.
    if found[-1][1] != definition.suite:
        raise BuildError(
            f"{image} says that it is of {found[-1][1]}, and {definition.name} is of {definition.suite}",
            resolution=f"Correct operating-system in {definition.path}, or start from an image of {definition.suite}.",
        )
