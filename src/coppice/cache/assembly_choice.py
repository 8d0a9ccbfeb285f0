# SPDX-License-Identifier: Apache-2.0
"""Which way of having a disk is the cheapest: a patch, blocks, or the published file; decided by bytes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.assembly_blocks import BlockAssembly
from coppice.cache.assembly_match import MAXIMUM_BLOCKS
from coppice.errors import ChecksumMismatchError, DeltaError, SizeMismatchError, TransferError
from coppice.formats.delta import HASH_BYTES
from coppice.monitor import Unit
from coppice.settings.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.cache.assembly_remote import Remote
    from coppice.imagelist.model import DeltaPatch, ImageDelta, ListedImage, RemoteFile
    from coppice.model.checksum import Checksum
    from coppice.monitor import Monitor

LARGEST_INDEX_BYTES = MAXIMUM_BLOCKS * HASH_BYTES + 16 * 1024 * 1024
"""An index of as many blocks as are kept track of, with room for its table."""
INDEX_SHARE = 2
"""The index is fetched when it is at most this part of the whole file: more than that is never won."""
INDEX_SHARE_OF_PATCH = 8
"""Beside a patch, which is small already, the index has to be at most this part of it."""


class Method(StrEnum):
    """How the bytes of an image come."""

    PATCH = "patch"
    """A patch makes them out of an earlier version that is held."""
    BLOCKS = "blocks"
    """Blocks that are held, and those fetched from packs that are not."""
    WHOLE = "whole"
    """The published file: nothing else is cheaper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDisk:
    """A disk that is held, opened.

    Attributes:
        checksum: What it is known by.
        handle: Its open file.
    """

    checksum: Checksum
    handle: int


@dataclass(slots=True, kw_only=True)
class Work:
    """One disk that is wanted, and what was spent on it so far.

    Attributes:
        listed: The image.
        delta: Its delta.
        held: Disks that are held.
        remote: Fetches.
        folder: Where what is fetched for this disk is kept.
        directory: Where hashes of held blocks are kept.
        monitor: Where progress is told.
        fetched_bytes: That came over the network.
        requests: For them.
    """

    listed: ListedImage
    delta: ImageDelta
    held: Sequence[HeldDisk]
    remote: Remote
    folder: Path
    directory: Path
    monitor: Monitor
    fetched_bytes: int = 0
    requests: int = 0

    def fetch(self, file: RemoteFile, name: str, what: str) -> Path:
        """Bring a whole file into the folder, and return where it is."""
        path = self.folder / name
        with self.monitor.task(
            f"fetching {what} for {self.listed.title!r}", total=file.size_bytes, unit=Unit.BYTES
        ) as task:
            fetched = self.remote.fetch(file, path, task)
        self.fetched_bytes += fetched
        self.requests += 1 if fetched else 0
        return path

    def left_bytes(self, file: RemoteFile, name: str) -> int:
        """Return how much of a whole file is still to be fetched."""
        with contextlib.suppress(OSError):
            return max(0, file.size_bytes - (self.folder / name).lstat().st_size)
        return file.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen.

    Attributes:
        method: How.
        reason: Why, with the bytes that were compared.
        patch: The patch and the open disk that it starts from.
        blocks: What is known of the blocks; None: that was not looked into.
    """

    method: Method
    reason: str
    patch: tuple[DeltaPatch, int] | None = None
    blocks: BlockAssembly | None = None


def choose(work: Work) -> Choice:
    """Return the cheapest way; the index is fetched for that where it may be worth it.

    Raises:
        DeltaError: The index is malformed, and there is no patch.
        TransferError: The index, or a table of a pack, could not be had, and there is no patch.
        StorageError: It cannot be written.
    """
    if not work.held:
        return Choice(method=Method.WHOLE, reason="no disk is held that it could be made from")
    whole = work.listed.size_bytes
    patch = _best_patch(work)
    patch_bytes = None if patch is None else work.left_bytes(patch[0].file, patch_name(patch[0]))
    blocks, blocks_bytes = None, None
    if _is_index_worth_it(work, whole, patch_bytes):
        try:
            blocks, blocks_bytes = _look_into_blocks(work, whole if patch_bytes is None else min(whole, patch_bytes))
        except (DeltaError, ChecksumMismatchError, SizeMismatchError, TransferError) as problem:
            if patch is None:
                raise
            work.monitor.message(f"{work.listed.title!r}: {problem.message}; its patch is used")
    costs = [
        (cost, method)
        for method, cost in ((Method.PATCH, patch_bytes), (Method.BLOCKS, blocks_bytes), (Method.WHOLE, whole))
        if cost is not None
    ]
    _, method = min(costs, key=lambda each: each[0])
    compared = ", ".join(f"{each} {format_size(cost)}" for cost, each in costs)
    return Choice(
        method=method, reason=f"{method}, by the bytes still to be fetched ({compared})", patch=patch, blocks=blocks
    )


def patch_name(patch: DeltaPatch) -> str:
    """Return the name of a patch in the folder."""
    return file_name("patch", patch.file)


def file_name(kind: str, file: RemoteFile) -> str:
    """Return the name of a file in the folder: by its content, for another list may have another delta of that disk."""
    return f"{kind}-{file.checksum.hexdigest[:32]}"


def read_index_file(path: Path, file: RemoteFile) -> bytes:
    """Return the bytes of the index that came."""
    with atomic.storage_errors("reading", path), path.open("rb") as stream:
        return stream.read(file.size_bytes)


def _best_patch(work: Work) -> tuple[DeltaPatch, int] | None:
    handles = {each.checksum: each.handle for each in reversed(work.held)}
    usable = [(patch, handles[patch.origin]) for patch in work.delta.patches if patch.origin in handles]
    return min(usable, key=lambda each: work.left_bytes(each[0].file, patch_name(each[0])), default=None)


def _is_index_worth_it(work: Work, whole: int, patch_bytes: int | None) -> bool:
    index = work.delta.index
    if index.size_bytes > LARGEST_INDEX_BYTES:
        return False
    left = work.left_bytes(index, file_name("index", index))
    return left * INDEX_SHARE < whole and (patch_bytes is None or left * INDEX_SHARE_OF_PATCH < patch_bytes)


def _look_into_blocks(work: Work, most: int) -> tuple[BlockAssembly, int]:
    index = work.delta.index
    path = work.fetch(index, file_name("index", index), "the index")
    blocks = BlockAssembly(work.delta, read_index_file(path, index), work.folder, work.remote)
    label = f"looking for what is held of {work.listed.title!r}"
    with work.monitor.task(label, unit=Unit.BYTES) as task:
        blocks.look_for([(each.checksum, each.handle) for each in work.held], work.directory / "blocks", task)
        cost = blocks.cost_bytes()
        if cost < most:
            blocks.fetch_tables(task)
            cost = blocks.cost_bytes()
    return blocks, cost
