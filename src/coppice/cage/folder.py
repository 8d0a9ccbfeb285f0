# SPDX-License-Identifier: Apache-2.0
"""How much a program has put into a folder that it may fill as it likes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LEAST_BYTES = 512
"""What each entry counts at least, so that there is an end to how many there are."""
_BLOCK_BYTES = 512


def is_more_below(folder: Path, most_bytes: int) -> bool:
    """Return whether the files below a folder take more room than ``most_bytes``.

    What cannot be counted (a tree so deep that its paths are too long) is more.
    """
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    is_folder = entry.is_dir(follow_symlinks=False)
                    total += _LEAST_BYTES if is_folder else max(_LEAST_BYTES, found.st_blocks * _BLOCK_BYTES)
                    if total > most_bytes:
                        return True
                    if is_folder:
                        pending.append(entry.path)
        except FileNotFoundError:
            # It went meanwhile.
            continue
        except OSError:
            return True
    return False
