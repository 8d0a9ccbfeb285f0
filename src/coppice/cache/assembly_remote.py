# SPDX-License-Identifier: Apache-2.0
"""`Remote`: brings in the files of a delta, whole or in ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from coppice.cache.origin.bundle import SCHEME as BUNDLE
from coppice.cache.origin.mirrors import read_ranges_of
from coppice.cache.partial import PartialFile
from coppice.cache.transfer import fetch_file
from coppice.errors import ChecksumMismatchError, SizeMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.cache.ranges import Range
    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.imagelist.model import RemoteFile
    from coppice.monitor import Task


class Remote(Protocol):
    """What an assembly fetches with."""

    def fetch(self, file: RemoteFile, partial: Path, task: Task) -> int:
        """Bring the whole file to ``partial``, verified; go on where an earlier run ended.

        Returns:
            How many bytes came over the network.

        Raises:
            TransferError: It could not be had.
            ChecksumMismatchError: It is not the file that was signed; nothing is left of it.
            SizeMismatchError: It has another size than was signed.
            StorageError: It cannot be written.
        """
        ...

    def is_near(self, file: RemoteFile) -> bool:
        """Tell whether requests for it cost nothing: then nothing is fetched along to spare some."""
        ...

    def read_ranges(
        self, file: RemoteFile, ranges: Sequence[Range], sink: Callable[[int, bytes], object], task: Task
    ) -> None:
        """Give ``sink`` the bytes of each range, in order: position in the file, and a piece.

        Raises:
            TransferError: A range could not be had, or what came is not that range.
        """
        ...


class ClientRemote:
    """Fetches from where the list says, as images are fetched.

    Args:
        client: For limits and connections.
        accesses: How the servers of the list are approached.
        allow_file_uris: Whether files of this machine may be read.
    """

    def __init__(self, client: Client, accesses: Sequence[Access] = (), *, allow_file_uris: bool = False) -> None:
        self._client = client
        self._accesses = accesses
        self._allow_file_uris = allow_file_uris

    def fetch(self, file: RemoteFile, partial: Path, task: Task) -> int:
        """See `Remote.fetch`."""
        with PartialFile(partial, (file.checksum.algorithm,)) as coming:
            try:
                transfer = fetch_file(
                    [file.uri],
                    size_bytes=file.size_bytes,
                    partial=coming,
                    client=self._client,
                    accesses=self._accesses,
                    task=task,
                    allow_file_uris=self._allow_file_uris,
                    expected=file.checksum,
                )
            except (ChecksumMismatchError, SizeMismatchError):
                coming.discard()
                raise
        return transfer.fetched_bytes

    def is_near(self, file: RemoteFile) -> bool:
        """See `Remote.is_near`."""
        return file.uri.startswith(("file:", f"{BUNDLE}:"))

    def read_ranges(
        self, file: RemoteFile, ranges: Sequence[Range], sink: Callable[[int, bytes], object], task: Task
    ) -> None:
        """See `Remote.read_ranges`."""
        read_ranges_of(
            [file.uri],
            ranges,
            size_bytes=file.size_bytes,
            sink=sink,
            client=self._client,
            accesses=self._accesses,
            allow_file_uris=self._allow_file_uris,
            task=task,
        )
