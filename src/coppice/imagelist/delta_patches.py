# SPDX-License-Identifier: Apache-2.0
"""Making patches: what of a disk is in an earlier one, and what is not, compressed against what that one has more."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.formats.delta import BLOCK_BYTES, Extent, PatchWriter
from coppice.imagelist.delta_scan import block_table, read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coppice.imagelist.delta_scan import BlockTable, Scan
    from coppice.monitor import Task

SEGMENT_BLOCKS = 8192
"""Of a segment, and of its reference: 32 MiB each keep both sides below what a patch may ask for."""


def write_patch(target: Scan, origin: Scan, into: Path, *, work: Path, task: Task) -> None:
    """Write the patch that makes the disk ``target`` out of ``origin`` to the file ``into``.

    Raises:
        DeltaError: It would be beyond what a patch may be.
        StorageError: Something cannot be read or written.
    """
    segments = work / "segments"
    with ExitStack() as stack:
        stack.enter_context(storage_errors("making a patch in", work))
        here = stack.enter_context(block_table(work, "target"))
        there = stack.enter_context(block_table(work, "origin"))
        here.add((hashed, number, 0) for number, hashed in target.blocks())
        there.add((hashed, number, 0) for number, hashed in origin.blocks())
        new, old = (stack.enter_context(each.guest.path.open("rb")).fileno() for each in (target, origin))
        writer = PatchWriter(stack.enter_context(segments.open("wb")))
        literal = _instructions(target, there, writer)
        gone = _extents(number for number, hashed in origin.blocks() if here.find(hashed) is None)
        _segments(writer, literal, gone, new=new, old=old, task=task)
    head = writer.finish(
        target_size_bytes=target.guest.size_bytes,
        target_checksum=target.guest.checksum,
        origin_size_bytes=origin.guest.size_bytes,
        origin_checksum=origin.guest.checksum,
    )
    with storage_errors("writing", into), into.open("wb") as whole, segments.open("rb") as rest:
        whole.write(head)
        shutil.copyfileobj(rest, whole, BLOCK_BYTES * 256)
    segments.unlink()


def _instructions(target: Scan, there: BlockTable, writer: PatchWriter) -> list[Extent]:
    """Tell ``writer`` what the target is made of; return its literal blocks."""
    at = 0
    literal: list[int] = []
    extents: list[Extent] = []
    for number, hashed in target.blocks():
        if number > at:
            writer.zeros(number - at)
        at = number + 1
        found = there.find(hashed)
        if found is not None:
            writer.copy(found[0])
            continue
        writer.literal()
        literal.append(number)
        if len(literal) == SEGMENT_BLOCKS:
            extents += _extents(literal)
            literal.clear()
    if target.guest.blocks > at:
        writer.zeros(target.guest.blocks - at)
    return extents + _extents(literal)


def _segments(
    writer: PatchWriter, literal: Sequence[Extent], gone: Sequence[Extent], *, new: int, old: int, task: Task
) -> None:
    total, spare = sum(each.count for each in literal), sum(each.count for each in gone)
    done = 0
    for part in _parts(literal):
        count = sum(each.count for each in part)
        # Files keep their order from one build to the next: what belongs together is about as far on in both.
        middle = (2 * done + count) * spare // (2 * total)
        reference = _slice(gone, max(0, min(spare - SEGMENT_BLOCKS, middle - SEGMENT_BLOCKS // 2)), SEGMENT_BLOCKS)
        writer.segment(_read(new, part), _read(old, reference), reference)
        done += count
        task.reach(done * BLOCK_BYTES, total * BLOCK_BYTES)


def _parts(extents: Sequence[Extent]) -> Iterator[list[Extent]]:
    """Yield the extents in parts of `SEGMENT_BLOCKS`, the last one shorter."""
    total = sum(each.count for each in extents)
    for start in range(0, total, SEGMENT_BLOCKS):
        yield _slice(extents, start, SEGMENT_BLOCKS)


def _slice(extents: Sequence[Extent], start: int, length: int) -> list[Extent]:
    """Return ``length`` blocks of the extents from block ``start`` on, or what there is."""
    taken: list[Extent] = []
    for each in extents:
        if start >= each.count:
            start -= each.count
            continue
        count = min(each.count - start, length)
        taken.append(Extent(each.block + start, count))
        start, length = 0, length - count
        if not length:
            break
    return taken


def _extents(numbers: Sequence[int] | Iterator[int]) -> list[Extent]:
    extents: list[Extent] = []
    first = count = 0
    for number in numbers:
        if count and first + count == number:
            count += 1
            continue
        if count:
            extents.append(Extent(first, count))
        first, count = number, 1
    if count:
        extents.append(Extent(first, count))
    return extents


def _read(descriptor: int, extents: Sequence[Extent]) -> bytes:
    return b"".join(read_blocks(descriptor, each.block, each.count) for each in extents)
