# SPDX-License-Identifier: Apache-2.0
"""Bring the bytes of an image into the cache's directory, and hold them against what its list signed."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.assembly import Method, assemble
from coppice.cache.assembly_remote import ClientRemote
from coppice.cache.objects import ALGORITHM, hash_file
from coppice.cache.partial import PartialFile
from coppice.cache.transfer import fetch_file
from coppice.errors import ChecksumMismatchError, ImageRefusedError, NoSpaceError, SizeMismatchError
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.cache.assembly import Seed
    from coppice.http import Client
    from coppice.http.access import Access
    from coppice.imagelist.model import ListedImage
    from coppice.model.checksum import Checksum
    from coppice.model.identifiers import ImageKey
    from coppice.monitor import Monitor


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Verified bytes that lie in ``partial/``.

    Attributes:
        path: The file.
        checksum: sha512 of its bytes.
        size_bytes: Its length.
        uri: Where they came from.
        method: How: ``whole``, ``patch`` or ``blocks``.
        fetched_bytes: That came over the network in this run.
        also: Further checksums of the same bytes.
    """

    path: Path
    checksum: Checksum
    size_bytes: int
    uri: str
    method: str
    fetched_bytes: int
    also: tuple[Checksum, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is to be brought, and how.

    Attributes:
        key: Which image.
        listed: What its list says of it.
        client: Fetches.
        accesses: How the servers of its list are approached.
        monitor: Where progress is told.
        allow_file_uris: Whether files of this machine may be read.
    """

    key: ImageKey
    listed: ListedImage
    client: Client
    accesses: Sequence[Access]
    monitor: Monitor
    allow_file_uris: bool


def bring_whole(errand: Errand, path: Path) -> Arrived:
    """Fetch the published file to ``path``, going on where an earlier run ended; return it verified and durable.

    Raises:
        TransferError: No place gives it; what came stays for the next run, unless it is of another file.
        SizeMismatchError: It has another size than signed; nothing of it stays.
        ChecksumMismatchError: It has another checksum than signed; nothing of it stays.
        NoSpaceError: The disk became full; nothing of it stays.
    """
    listed = errand.listed
    # As docs/how-to/mirrors-and-proxies.md says: what is near, then what its list names, and its own address last.
    places = tuple(dict.fromkeys((*listed.mirrors, listed.uri)))
    label = f"fetching {listed.title!r}"
    with (
        PartialFile(path, tuple({ALGORITHM, listed.checksum.algorithm})) as partial,
        errand.monitor.task(label, total=listed.size_bytes, unit=Unit.BYTES) as task,
    ):
        try:
            transfer = fetch_file(
                places,
                size_bytes=listed.size_bytes,
                partial=partial,
                client=errand.client,
                accesses=errand.accesses,
                task=task,
                allow_file_uris=errand.allow_file_uris,
                expected=listed.checksum,
            )
        except BaseException as problem:
            # Of nothing, nothing is kept; and a disk is not kept full with what cannot be ended.
            if isinstance(problem, NoSpaceError) or partial.total_bytes == 0:
                partial.discard()
            if isinstance(problem, ChecksumMismatchError):
                raise _wrong_checksum(errand.key, listed, problem) from problem
            raise
        return Arrived(
            path=path,
            checksum=transfer.checksums[ALGORITHM],
            size_bytes=listed.size_bytes,
            uri=transfer.uri,
            method=Method.WHOLE,
            fetched_bytes=transfer.fetched_bytes,
            also=(listed.checksum,),
        )


def bring_assembled(
    errand: Errand, path: Path, *, seeds: Sequence[Seed], directory: Path, limit_bytes: int
) -> Arrived | None:
    """Put the disk together at ``path``, verified; None: to fetch the whole file is cheaper.

    Raises:
        DeltaError: The delta does not serve.
        TransferError: Its files could not be had.
        StorageError: The disk failed.
    """
    delta = errand.listed.delta
    if delta is None:
        return None
    made = assemble(
        errand.listed,
        destination=path,
        seeds=seeds,
        remote=ClientRemote(errand.client, errand.accesses, allow_file_uris=errand.allow_file_uris),
        directory=directory,
        limit_bytes=limit_bytes,
        monitor=errand.monitor,
    )
    if made.method is Method.WHOLE:
        return None
    return Arrived(
        path=path,
        checksum=delta.guest_checksum,
        size_bytes=delta.guest_size_bytes,
        uri=delta.index.uri,
        method=made.method,
        fetched_bytes=made.fetched_bytes,
    )


def left_assembled(errand: Errand, path: Path) -> Arrived | None:
    """Return the disk that a run left at ``path``, which died before it put it to its place; None: there is none."""
    delta = errand.listed.delta
    if delta is None or not os.path.lexists(path):
        return None
    label = f"verifying what was put together of {errand.listed.title!r}"
    with (
        contextlib.suppress(OSError, ImageRefusedError),
        errand.monitor.task(label, total=delta.guest_size_bytes, unit=Unit.BYTES) as task,
    ):
        found, state = hash_file(path, [ALGORITHM], task.advance)
        if found[ALGORITHM].matches(delta.guest_checksum) and state[2] == delta.guest_size_bytes:
            return Arrived(
                path=path,
                checksum=delta.guest_checksum,
                size_bytes=delta.guest_size_bytes,
                uri=delta.index.uri,
                method=Method.BLOCKS,
                fetched_bytes=0,
            )
    with atomic.storage_errors("removing", path):
        path.unlink()
    return None


def wrong_size(listed: ListedImage, received: object) -> SizeMismatchError:
    """Return the error for a file that has another size than its list says."""
    return SizeMismatchError(
        f"the file of {listed.title!r} has {received} bytes; its list says {listed.size_bytes}",
        resolution="Nothing of it is used. Tell whoever publishes the list.",
        context={"uri": listed.uri, "size_bytes": received, "expected_bytes": listed.size_bytes},
    )


def _wrong_checksum(key: ImageKey, listed: ListedImage, problem: ChecksumMismatchError) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the file of {listed.title!r} (image {key}) is not the one that was signed: its checksum differs",
        details=problem.details,
        resolution="Nothing of it is used. Tell whoever publishes the list; a new run fetches it again.",
        context={**problem.context, "image": str(key)},
    )
