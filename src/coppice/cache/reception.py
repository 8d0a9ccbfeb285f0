# SPDX-License-Identifier: Apache-2.0
"""One answer's body, put into a partial file: never more than belongs there, never to another place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coppice.cache.progress import PartialSource
from coppice.errors import SizeMismatchError, TransferCutError, TransferError, TransferTooLargeError
from coppice.http.message import Validators
from coppice.http.ranges import restart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cache.origin import Origin
    from coppice.cache.partial import PartialFile
    from coppice.http.ranges import Body, Part

WRITE_BYTES = 1024 * 1024
"""Pieces are put together to this size: hashing and writing cost less a byte."""
_LONGEST_KEPT_SECONDS = 1.0


def known_state(origin: Origin, partial: PartialFile) -> Validators | None:
    """Return what the server called the file's state when the bytes that are here came from it; None: others did."""
    source = partial.source
    if source is None or source.uri != origin.shown[1:-1]:
        return None
    return Validators(etag=source.etag, last_modified=source.last_modified) or None


def admitted(body: Body, part: Part, *, limit_bytes: int) -> None:
    """Refuse a body that says itself that it is not what is wanted.

    Raises:
        TransferTooLargeError: It is longer.
        SizeMismatchError: It is shorter.
    """
    if body.end is None:
        return
    if body.end > limit_bytes:
        raise too_large(body.shown, limit_bytes, f"The server announces {body.end} bytes.")
    if body.start == 0 and part.size_bytes is not None and body.end < min(part.end or part.size_bytes, part.size_bytes):
        raise too_small(body.shown, body.end, part.size_bytes)


def remember(body: Body, origin: Origin, partial: PartialFile) -> None:
    """Keep with the bytes where they come from."""
    partial.came_from(
        PartialSource(uri=origin.shown[1:-1], etag=body.validators.etag, last_modified=body.validators.last_modified)
    )


def collected(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces put together, but none that has waited for long: what is in memory is lost with the process."""
    kept: list[bytes] = []
    size, since = 0, time.monotonic()
    try:
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES or time.monotonic() - since >= _LONGEST_KEPT_SECONDS:
                yield b"".join(kept)
                kept.clear()
                size, since = 0, time.monotonic()
    except TransferError:
        if kept:
            yield b"".join(kept)
        raise
    if kept:
        yield b"".join(kept)


def too_large(shown: str, limit_bytes: int, details: str | None = None) -> TransferTooLargeError:
    """Return the error for a file that is longer than it may be."""
    return TransferTooLargeError(
        f"{shown} is longer than the {limit_bytes} bytes that it may have",
        details=details,
        resolution="Nothing of it is used. Tell whoever publishes the list.",
        context={"url": shown, "limit_bytes": limit_bytes},
    )


def too_small(shown: str, size_bytes: int, expected_bytes: int) -> SizeMismatchError:
    """Return the error for a file that is shorter than its list says."""
    return SizeMismatchError(
        f"the file at {shown} has {size_bytes} bytes; its list says {expected_bytes}",
        resolution="Nothing of it is used. Tell whoever publishes the list.",
        context={"url": shown, "size_bytes": size_bytes, "expected_bytes": expected_bytes},
    )


def ended_early(shown: str, position: int, end: int) -> TransferCutError:
    """Return the error for a body that ended before its time."""
    return TransferCutError(
        f"{shown} ended at byte {position}, {end - position} bytes early",
        details="The connection was closed early.",
        resolution="Run again; it is gone on with from there.",
        context={"url": shown, "received": position},
    )


def not_a_part(shown: str) -> TransferCutError:
    """Return the error for a server that answers a request for a part with something else."""
    return restart(shown, "answers a request for a part of a file with something else")
