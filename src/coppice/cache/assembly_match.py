# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a disk are held here, and which are not. Pure; the memory that it takes is bounded by its blocks."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import DeltaError
from coppice.formats.delta import BLOCK_BYTES, HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coppice.cache.seed_blocks import SeedBlocks
    from coppice.formats.delta import DeltaIndex

MAXIMUM_BLOCKS = 1 << 22
"""Of a disk that is put together here, zeros not counted: 16 GiB; what knows where they are stays below 60 MB."""
MAXIMUM_PIECES = 1 << 20
"""Of blocks that are not here; a disk that is more scattered is fetched whole."""
MAXIMUM_SEEDS = 16
_AT_ONCE = 1 << 18
"""Blocks of a seed that are looked for at a time."""
_COUNT_BITS, _NUMBER_SHIFT = 8, 40


@dataclass(frozen=True, slots=True)
class Stretch:
    """Blocks of the disk that follow each other and come from one place.

    Attributes:
        block: Number of the first on the disk.
        count: How many.
        seed: Of which seed; None: of none.
        first: Number of the first in the seed; without a seed, in the pack.
        pack: In which pack they are; None: they are zeros, or from a seed.
    """

    block: int
    count: int
    seed: int | None
    first: int
    pack: int | None

    @property
    def is_zero(self) -> bool:
        """Whether they are zeros."""
        return self.seed is None and self.pack is None


class Match:
    """Where each block of a disk is held.

    Args:
        index: What the disk is made of.

    Raises:
        DeltaError: It has more blocks than are kept track of.
    """

    def __init__(self, index: DeltaIndex) -> None:
        self.index = index
        self.blocks = len(index.hashes) // HASH_BYTES
        if self.blocks > MAXIMUM_BLOCKS:
            raise DeltaError(
                f"a disk of {self.blocks} blocks is not put together here; up to {MAXIMUM_BLOCKS} are",
            )
        self._seeds = bytearray(self.blocks)
        self._numbers: array[int] = array("I", bytes(4 * self.blocks))

    def look_in(self, seed: int, held: SeedBlocks) -> None:
        """Find what a seed has of what no seed before it had.

        Args:
            seed: Its number, from 0 to `MAXIMUM_SEEDS` - 1.
            held: Its blocks.
        """
        for start in range(0, len(held.hashes), _AT_ONCE):
            end = start + _AT_ONCE
            self._look(seed + 1, dict(zip(held.hashes[start:end], held.numbers[start:end], strict=True)))

    def _look(self, mark: int, known: dict[int, int]) -> None:
        hashes = memoryview(self.index.hashes)
        seeds, numbers = self._seeds, self._numbers
        for start in range(0, self.blocks, _AT_ONCE):
            wanted = array("Q", bytes(hashes[start * HASH_BYTES : (start + _AT_ONCE) * HASH_BYTES]))
            for place, number in enumerate(map(known.get, wanted), start):
                if number is not None and not seeds[place]:
                    seeds[place] = mark
                    numbers[place] = number

    def stretches(self) -> Iterator[Stretch]:
        """Yield what the disk is made of, from its beginning to its end, without gaps."""
        seeds, numbers = self._seeds, self._numbers
        for run in self.index.runs():
            if run.pack is None:
                yield Stretch(run.block, run.count, None, 0, None)
                continue
            start, end = run.hashes, run.hashes + run.count
            while start < end:
                mark, first, length = seeds[start], numbers[start], 1
                limit = end - start
                if mark:
                    while (
                        length < limit and seeds[start + length] == mark and numbers[start + length] == first + length
                    ):
                        length += 1
                    yield Stretch(run.block + start - run.hashes, length, mark - 1, first, None)
                else:
                    while length < limit and not seeds[start + length]:
                        length += 1
                    done = start - run.hashes
                    yield Stretch(run.block + done, length, None, run.first + done, run.pack)
                start += length

    def missing(self) -> list[array[int]]:
        """Return, for each pack, the pieces of it that are not held: each within one frame, in the pack's order.

        Raises:
            DeltaError: They are too many.
        """
        pieces: list[array[int]] = [array("Q") for _ in self.index.packs]
        total = 0
        for stretch in self.stretches():
            if stretch.pack is None:
                continue
            per_frame = self.index.packs[stretch.pack].frame_blocks
            number, block, left = stretch.first, stretch.block, stretch.count
            while left:
                count = min(left, per_frame - number % per_frame)
                pieces[stretch.pack].append(_packed(number, block, count))
                number, block, left = number + count, block + count, left - count
                total += 1
            if total > MAXIMUM_PIECES:
                raise DeltaError(f"what is missing of the disk lies in more than {MAXIMUM_PIECES} pieces")
        return [array("Q", sorted(each)) for each in pieces]

    def missing_blocks(self) -> int:
        """Return how many blocks are not held."""
        return self._seeds.count(0)


def _packed(number: int, block: int, count: int) -> int:
    # 24 bits of the block in its pack, 32 of that on the disk, 8 of how many (1 to 256): the pack's order.
    return number << _NUMBER_SHIFT | block << _COUNT_BITS | (count - 1)


def unpacked(piece: int) -> tuple[int, int, int]:
    """Return what a piece of `Match.missing` is: the first block in the pack, on the disk, and how many."""
    return piece >> _NUMBER_SHIFT, piece >> _COUNT_BITS & 0xFFFFFFFF, (piece & 0xFF) + 1


def frames_of(pieces: Iterable[int], per_frame: int) -> list[int]:
    """Return the frames that hold these pieces of a pack, in order, each once."""
    frames: list[int] = []
    for piece in pieces:
        frame = (piece >> _NUMBER_SHIFT) // per_frame
        if not frames or frames[-1] != frame:
            frames.append(frame)
    return frames


def length_on_disk(block: int, count: int, size_bytes: int) -> int:
    """Return how many bytes of a disk these blocks are; the last one may be cut short."""
    return min(count * BLOCK_BYTES, size_bytes - block * BLOCK_BYTES)


def bytes_of(frames: Sequence[int], offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Return where in a pack frames are: first byte and length of each."""
    return [(offsets[frame], offsets[frame + 1] - offsets[frame]) for frame in frames]
