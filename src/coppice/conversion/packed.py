# SPDX-License-Identifier: Apache-2.0
"""Whether a file is more than a bare disk: told by its first bytes, before anything is unpacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.unpack_streams import compression_of
from coppice.conversion.window import FileWindow
from coppice.formats.tar import is_tar

if TYPE_CHECKING:
    from pathlib import Path

_HEAD_BYTES = 512


def is_packed(path: Path) -> bool:
    """Tell whether a file is compressed or an archive.

    Raises:
        ImageRefusedError: It is no regular file.
        StorageError: It cannot be read.
    """
    with atomic.storage_errors("reading", path), FileWindow(path) as window:
        head = window.read(0, _HEAD_BYTES)
    return compression_of(head) is not None or is_tar(head)
