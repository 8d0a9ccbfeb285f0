# SPDX-License-Identifier: Apache-2.0
"""The mirrors of the site, and ranges that are read from the first place that gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.origin.table import open_origin
from coppice.errors import CredentialError, ToolMissingError, TransferError
from coppice.http.location import show
from coppice.http.ranges import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.monitor import Task
    from coppice.settings.model import TransferSettings

NEXT_PLACE = (TransferError, CredentialError, ToolMissingError)
"""What another place may do better."""


def places_of(uris: Iterable[str], settings: TransferSettings) -> tuple[str, ...]:
    """Return where to ask, in order: the site's mirrors of each address, then the addresses, each of them once."""
    given = tuple(uris)
    found = [
        other.rstrip("/") + uri[len(start.rstrip("/")) :]
        for uri in given
        for start, others in settings.mirrors.items()
        if uri == start or uri.startswith(start.rstrip("/") + "/")
        for other in others
    ]
    return tuple(dict.fromkeys([*found, *given]))


def read_ranges_of(
    uris: Sequence[str],
    ranges: Iterable[tuple[int, int]],
    *,
    size_bytes: int,
    sink: Callable[[int, bytes], object],
    client: Client,
    accesses: Sequence[Access] = (),
    allow_file_uris: bool = False,
    task: Task | None = None,
) -> int:
    """Give parts of a file to ``sink``, from the first of its places that gives them; return how many bytes came.

    What one place gave is not asked of the next one. Whether both have the same file only a checksum tells.

    Args:
        uris: Its addresses; the site's mirrors come before them.
        ranges: Where each begins and its length; in order, none over another.
        size_bytes: Of the whole file.
        sink: Takes where in the file a piece begins, and the piece; in order.
        client: For limits and connections.
        accesses: How servers are approached; a credential goes to its own server only.
        allow_file_uris: Whether ``file`` addresses are read.
        task: Told of bytes that came, and of places that failed.

    Raises:
        TransferError: No place gave them; this is what the last one failed of.
        ValueError: The ranges are not in order.
    """
    wanted = merged(ranges)
    position = 0

    def take(start: int, piece: bytes) -> None:
        nonlocal position
        sink(start, piece)
        position = start + len(piece)

    received, places = 0, places_of(uris, client.settings)
    for number, uri in enumerate(places):
        left = [
            (max(start, position), start + length - max(start, position))
            for start, length in wanted
            if start + length > position
        ]
        before = sum(length for _, length in left)
        try:
            with open_origin(uri, client=client, accesses=accesses, allow_file_uris=allow_file_uris) as origin:
                return received + origin.read_ranges(left, size_bytes=size_bytes, sink=take, task=task)
        except NEXT_PLACE as error:
            if number == len(places) - 1:
                raise
            received += before - sum(max(0, start + length - max(start, position)) for start, length in wanted)
            if task is not None:
                task.note(f"{error.message}; asking {show(places[number + 1])} instead")
    raise TransferError("there is no address that the parts could be fetched from")
