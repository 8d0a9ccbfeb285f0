# SPDX-License-Identifier: Apache-2.0
"""Whether a cached file still has the bytes that were verified: before it is used, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.files import hash_file, is_merely_linked, state_of
from coppice.errors import ChecksumMismatchError
from coppice.monitor import Unit

if TYPE_CHECKING:
    from coppice.conversion.model import Source
    from coppice.monitor import Monitor

TRIES = 3
"""How often a file is read anew that another run hands out meanwhile."""


def verified_state(source: Source, monitor: Monitor) -> tuple[int, ...]:
    """Return the state of a cached file, whose bytes are known to be the signed ones in that state.

    Raises:
        ChecksumMismatchError: They are not.
        ImageRefusedError: It is no regular file, or changes while it is read.
    """
    state = state_of(source.path)
    if source.fingerprint and state == source.fingerprint:
        return state
    with monitor.task("verifying before conversion", total=source.size_bytes, unit=Unit.BYTES) as task:
        found, state = hash_file(source.path, source.checksum.algorithm, task.advance)
    if not found.matches(source.checksum):
        raise altered(source, f"signed {source.checksum}\nfound  {found}")
    return state


def settled_state(source: Source, state: tuple[int, ...], monitor: Monitor) -> tuple[int, ...]:
    """Return the state of a file that may have been handed out since it had ``state``; it is read anew then.

    Raises:
        ChecksumMismatchError: Its bytes are not the signed ones.
    """
    for _ in range(TRIES):
        if not is_merely_linked(state, state_of(source.path)):
            break
        state = verified_state(source, monitor)
    return state


def require_unchanged(source: Source, state: tuple[int, ...]) -> None:
    """See that a file has not changed since it had ``state``.

    Raises:
        ChecksumMismatchError: It has.
    """
    if state_of(source.path) != state:
        raise altered(source, "It changed while it was used.")


def altered(source: Source, details: str) -> ChecksumMismatchError:
    """Return the error of a file that was altered."""
    return ChecksumMismatchError(
        f"the cached file of image {source.name} was altered after it was verified",
        details=details,
        resolution="It is not used. Run again: the cache fetches it anew. Find out who writes to the cache.",
        context={"image": source.name, "path": str(source.path)},
    )
