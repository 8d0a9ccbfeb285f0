# SPDX-License-Identifier: Apache-2.0
"""`Remote`: brings in the files of a delta, whole or in ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.imagelist.model import RemoteFile
    from coppice.monitor import Task

Range = tuple[int, int]
"""First byte and length, in bytes."""


class Remote(Protocol):
    """What an assembly fetches with."""

    def fetch(self, file: RemoteFile, partial: Path, task: Task) -> int:
        """Bring the whole file to ``partial``, verified; go on where an earlier run ended.

        Returns:
            How many bytes came over the network.

        Raises:
            TransferError: It could not be had.
            ChecksumMismatchError: It is not the file that was signed; nothing is left of it.
            StorageError: It cannot be written.
        """
        ...

    def read_ranges(
        self, file: RemoteFile, ranges: Sequence[Range], sink: Callable[[int, bytes], object], task: Task
    ) -> None:
        """Give ``sink`` the bytes of each range, in order: position in the file, and a piece.

        Raises:
            TransferError: A range could not be had, or what came is not that range.
        """
        ...
