# SPDX-License-Identifier: Apache-2.0
"""dpkg's record of packages in an image that somebody else made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.bootstrap.dpkg import STATUS

if TYPE_CHECKING:
    from coppice.factory.evidence.tree import GuestTree

MOST_BYTES = 256 * 1024 * 1024


def dpkg_record(tree: GuestTree) -> bytes:
    """Return what dpkg's record in ``tree`` says; empty: there is none.

    Raises:
        BuildError: It is too long to be one.
    """
    node = tree.find(STATUS)
    if node is None or not node.is_file:
        return b""
    if node.size_bytes > MOST_BYTES:
        raise BuildError(f"{node.path} in the image has {node.size_bytes} bytes, too many for a record of packages")
    return tree.content(node)
