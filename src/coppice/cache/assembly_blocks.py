# SPDX-License-Identifier: Apache-2.0
"""A disk out of blocks: those that held disks have, and the rest out of packs, in few ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cache.assembly_match import (
    MAXIMUM_SEEDS,
    Match,
    bytes_of,
    frames_of,
    length_on_disk,
    unpacked,
)
from coppice.cache.ranges import MAXIMUM_REQUESTS, coalesced, total_bytes, united, without
from coppice.cache.seed_blocks import seed_blocks
from coppice.cache.spool import Spool
from coppice.errors import DeltaError
from coppice.formats.delta import BLOCK_BYTES, read_index, read_pack_table, unpack_frame

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coppice.cache.assembly_remote import Remote
    from coppice.cache.assembly_write import DiskWriter
    from coppice.cache.ranges import Range
    from coppice.formats.delta import PackLayout
    from coppice.imagelist.model import ImageDelta, RemoteFile
    from coppice.model.checksum import Checksum
    from coppice.monitor import Task

MAXIMUM_UNPACKED_SHARE = 16
"""Frames that are unpacked have at most so many times the bytes of the disk: few blocks of each may be wanted."""
UNPACKED_FREE_BYTES = 256 * 1024 * 1024


class BlockAssembly:
    """What is missing of a disk, what it costs, and putting it together.

    Args:
        delta: What the list signed.
        index: The index file, as it came.
        folder: Where ranges of packs are kept.
        remote: Fetches.

    Raises:
        DeltaError: The index is malformed, or of another disk.
    """

    def __init__(self, delta: ImageDelta, index: bytes | memoryview, folder: Path, remote: Remote) -> None:
        self._delta = delta
        self._remote = remote
        self._folder = folder
        self._index = read_index(index)
        same = (self._index.guest_size_bytes, self._index.guest_checksum)
        if same != (delta.guest_size_bytes, delta.guest_checksum):
            raise DeltaError("the index of a delta is of another disk than the list says")
        if len(self._index.packs) != len(delta.packs):
            raise DeltaError(
                f"the index of a delta has {len(self._index.packs)} packs; the list names {len(delta.packs)}"
            )
        self._match = Match(self._index)
        self._pieces: list[array[int]] = []
        self._tables: dict[int, Sequence[int]] = {}
        self.requests = 0
        self.fetched_bytes = 0

    def look_for(self, seeds: Sequence[tuple[Checksum, int]], directory: Path, task: Task) -> None:
        """Find out what held disks have of it.

        Args:
            seeds: What each is known by, and an open file of it; most promising first.
            directory: Where hashes of their blocks are kept.
            task: Told how many bytes were read.

        Raises:
            DeltaError: What is missing is too scattered.
            StorageError: What was found cannot be kept.
        """
        for number, (checksum, handle) in enumerate(seeds[:MAXIMUM_SEEDS]):
            try:
                held = seed_blocks(directory, checksum, handle, task)
            except OSError:
                # It cannot be read: it is as if it were not held.
                continue
            self._match.look_in(number, held)
        self._pieces = self._match.missing()
        self._refuse_bomb()

    @property
    def missing_bytes(self) -> int:
        """How many bytes of the disk are neither held nor zero."""
        return self._match.missing_blocks() * BLOCK_BYTES

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the disk are not zeros: what it takes on a file system."""
        return self._match.blocks * BLOCK_BYTES

    def cost_bytes(self) -> int:
        """Return about how much is still to be fetched; exactly, when the tables of the packs are here."""
        cost = 0
        for number in self._wanted_packs():
            with self._spool(number) as spool:
                if number in self._tables:
                    cost += total_bytes(self._ranges(number, spool))
                else:
                    cost += self._guess(number) + total_bytes(without([self._table_range(number)], spool.whole))
        return cost

    def fetch_tables(self, task: Task) -> None:
        """Learn where the frames of the packs are.

        Raises:
            DeltaError: A table is malformed.
            TransferError: One could not be had.
            StorageError: It cannot be written.
        """
        for number in self._wanted_packs():
            pack, layout = self._pack(number)
            wanted = self._table_range(number)
            with self._spool(number) as spool:
                self._fetch(pack, [wanted], spool, task)
                table = spool.read(*wanted)
            self._tables[number] = read_pack_table(table, layout, pack_bytes=pack.size_bytes)

    def fetch_blocks(self, task: Task) -> None:
        """Bring in the frames that hold what is missing.

        Raises:
            DeltaError: What came is not what was asked for.
            TransferError: A range could not be had.
            StorageError: It cannot be written.
        """
        for number in self._wanted_packs():
            with self._spool(number) as spool:
                self._fetch(self._pack(number)[0], self._ranges(number, spool), spool, task)

    def fetched_parts(self) -> list[tuple[RemoteFile, Path, list[Range]]]:
        """Return what is here of packs: which, where its bytes lie at their places, and which of them."""
        parts = []
        for number in self._wanted_packs():
            with self._spool(number) as spool:
                parts.append((self._delta.packs[number], spool.path, list(spool.whole)))
        return parts

    def write(self, writer: DiskWriter, seeds: Sequence[int]) -> None:
        """Put the disk together.

        Args:
            writer: Takes it.
            seeds: Open files of the held disks, as `look_for` was given them.

        Raises:
            DeltaError: A frame is malformed, or a held disk is not what it was.
            StorageError: The disk cannot be written.
        """
        for number in self._wanted_packs():
            self._unpack(number, writer)
        size = self._index.guest_size_bytes
        for stretch in self._match.stretches():
            length = length_on_disk(stretch.block, stretch.count, size)
            if stretch.is_zero:
                writer.zeros(length)
            elif stretch.seed is None:
                writer.placed(length)
            else:
                writer.copy(seeds[stretch.seed], stretch.first * BLOCK_BYTES, length)

    def _unpack(self, number: int, writer: DiskWriter) -> None:
        """Put the blocks out of one pack in their places; each frame is unpacked once."""
        _, layout = self._pack(number)
        offsets, size = self._tables[number], self._index.guest_size_bytes
        current, blocks = -1, b""
        with self._spool(number) as spool:
            for piece in self._pieces[number]:
                first, block, count = unpacked(piece)
                frame = layout.frame_of(first)
                if frame != current:
                    held = spool.read(offsets[frame], offsets[frame + 1] - offsets[frame])
                    current, blocks = frame, unpack_frame(held, layout, frame)
                start = (first - frame * layout.frame_blocks) * BLOCK_BYTES
                writer.place(block * BLOCK_BYTES, blocks[start : start + length_on_disk(block, count, size)])

    def _fetch(self, file: RemoteFile, ranges: Sequence[Range], spool: Spool, task: Task) -> None:
        wanted = without(ranges, spool.whole)
        if not wanted:
            return
        self.requests += len(wanted)
        self._remote.read_ranges(file, wanted, self._sink(spool), task)
        if without(wanted, spool.whole):
            raise DeltaError("not all of a pack that was asked for came")

    def _sink(self, spool: Spool) -> Callable[[int, bytes], None]:
        def sink(start: int, piece: bytes) -> None:
            spool.put(start, piece)
            self.fetched_bytes += len(piece)

        return sink

    def _ranges(self, number: int, spool: Spool) -> list[Range]:
        """Return what is to be asked for of a pack, so that few requests bring all that is not here yet."""
        frames = frames_of(self._pieces[number], self._pack(number)[1].frame_blocks)
        wanted = without(united(bytes_of(frames, self._tables[number])), spool.whole)
        if self._remote.is_near(self._pack(number)[0]):
            return wanted
        return coalesced(wanted, maximum=max(8, MAXIMUM_REQUESTS // len(self._wanted_packs())))

    def _guess(self, number: int) -> int:
        """Return about how many bytes the wanted frames of a pack have."""
        pack, layout = self._pack(number)
        frames = len(frames_of(self._pieces[number], layout.frame_blocks))
        return (pack.size_bytes - layout.table_bytes) * frames // layout.frames

    def _refuse_bomb(self) -> None:
        unpacked_bytes = sum(
            len(frames_of(self._pieces[number], layout.frame_blocks)) * layout.frame_blocks * BLOCK_BYTES
            for number, layout in enumerate(self._index.packs)
        )
        most = self.stored_bytes * MAXIMUM_UNPACKED_SHARE + UNPACKED_FREE_BYTES
        if unpacked_bytes > most:
            raise DeltaError(
                f"{unpacked_bytes} bytes of packs would be unpacked for a disk of {self.stored_bytes}; "
                f"at most {most} are"
            )

    def _wanted_packs(self) -> list[int]:
        return [number for number, pieces in enumerate(self._pieces) if pieces]

    def _pack(self, number: int) -> tuple[RemoteFile, PackLayout]:
        return self._delta.packs[number], self._index.packs[number]

    def _table_range(self, number: int) -> Range:
        pack, layout = self._pack(number)
        return layout.table_range(pack.size_bytes)

    def _spool(self, number: int) -> Spool:
        pack = self._delta.packs[number]
        # By its content: another list may have another delta of the same disk.
        return Spool(self._folder / f"pack-{number}-{pack.checksum.hexdigest[:32]}", pack.size_bytes)
