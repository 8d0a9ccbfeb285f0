# SPDX-License-Identifier: Apache-2.0
"""The index of a delta: of which blocks a disk is made, and in which pack each of them is.

A head, a compressed table (packs, then runs in the order of the disk), and the hash of each block that is not all
zeros, in the order of the disk.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.formats.delta_blocks import (
    SHA512_BYTES,
    Columns,
    at_most,
    block_count,
    column,
    compress_table,
    decompress,
    guest_size,
    malformed,
)
from coppice.formats.delta_limits import BLOCK_BYTES, HASH_BYTES, MAX_BLOCKS, MAX_PACKS
from coppice.formats.delta_pack import MAX_FRAME_BLOCKS, MAX_PACK_BLOCKS, MAX_TABLE_BYTES, PackLayout
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = b"CoppIdx1"
MAX_RUNS = 1 << 20
"""Most runs of an index: a disk that is more scattered is fetched whole."""
MAX_INDEX_BYTES = 160 * 1024 * 1024
_WHAT = "index"
_HEAD = struct.Struct(f"<8sIQ{SHA512_BYTES}sIIII")
_PACK_BYTES = 4 + 2 + 4
_RUN_BYTES = 4 + 2 + 4
_ZEROS = 0xFFFF
_MOST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of the disk that follow each other, all zeros or in the same order in one pack.

    Attributes:
        block: Number of the first on the disk.
        count: How many.
        pack: In which pack, counted as the list names them; None: all of them are zeros.
        first: Number of the first in the pack.
        hashes: Number of the first one's hash, among those of the index.
    """

    block: int
    count: int
    pack: int | None
    first: int
    hashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaIndex:
    """What an index says.

    Attributes:
        guest_size_bytes: Length of the disk.
        guest_checksum: Of its bytes.
        packs: How the packs are laid out, in the order in which the list names them.
        hashes: `HASH_BYTES` for each block that is not all zeros, in the order of the disk.
    """

    guest_size_bytes: int
    guest_checksum: Checksum
    packs: tuple[PackLayout, ...]
    hashes: bytes | memoryview
    _counts: array[int]
    _packs: array[int]
    _firsts: array[int]

    @property
    def blocks(self) -> int:
        """Return how many blocks the disk has, zeros counted."""
        return block_count(self.guest_size_bytes)

    @property
    def run_count(self) -> int:
        """Return how many runs there are."""
        return len(self._counts)

    def runs(self) -> Iterator[Run]:
        """Yield what the disk is made of, from its beginning to its end, without gaps."""
        block = hashes = 0
        for count, pack, first in zip(self._counts, self._packs, self._firsts, strict=True):
            is_zero = pack == _ZEROS
            yield Run(block, count, None if is_zero else pack, first, hashes)
            block += count
            hashes += 0 if is_zero else count

    def hash_at(self, number: int) -> bytes:
        """Return hash ``number``, counted over the blocks that are not all zeros."""
        return bytes(self.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES])


def read_index(data: bytes | memoryview) -> DeltaIndex:
    """Return what the index ``data`` says; the hashes stay where they are.

    Raises:
        DeltaError: It is malformed, or beyond a limit.
    """
    at_most(_WHAT, "its length", len(data), MAX_INDEX_BYTES)
    if len(data) < _HEAD.size:
        malformed(_WHAT, "it is cut off")
    magic, block_bytes, size, digest, packs, runs, hashes, table_bytes = _HEAD.unpack_from(data)
    if magic != MAGIC or block_bytes != BLOCK_BYTES:
        malformed(_WHAT, "it does not begin as one")
    guest_size(_WHAT, size)
    at_most(_WHAT, "the number of packs", packs, MAX_PACKS)
    at_most(_WHAT, "the number of runs", runs, MAX_RUNS, 1)
    at_most(_WHAT, "the number of hashes", hashes, min(MAX_BLOCKS, block_count(size)))
    if len(data) != _HEAD.size + table_bytes + hashes * HASH_BYTES:
        malformed(_WHAT, f"it is {len(data)} bytes long, and its parts are not")
    view = memoryview(data)
    table = view[_HEAD.size : _HEAD.size + table_bytes]
    columns = Columns(decompress(_WHAT, table, packs * _PACK_BYTES + runs * _RUN_BYTES))
    layouts = _layouts(columns, packs)
    counts, numbers, firsts = columns.take("I", runs), columns.take("H", runs), columns.take("I", runs)
    _check_runs(counts, numbers, firsts, layouts, blocks=block_count(size), hashes=hashes)
    return DeltaIndex(
        guest_size_bytes=size,
        guest_checksum=Checksum("sha512", digest.hex()),
        packs=layouts,
        hashes=view[_HEAD.size + table_bytes :],
        _counts=counts,
        _packs=numbers,
        _firsts=firsts,
    )


def _layouts(columns: Columns, packs: int) -> tuple[PackLayout, ...]:
    blocks, frames, tables = columns.take("I", packs), columns.take("H", packs), columns.take("I", packs)
    return tuple(
        PackLayout(
            blocks=at_most(_WHAT, "the number of a pack's blocks", count, MAX_PACK_BLOCKS, 1),
            frame_blocks=at_most(_WHAT, "the number of a frame's blocks", per_frame, MAX_FRAME_BLOCKS, 1),
            table_bytes=at_most(_WHAT, "the length of a pack's table", length, MAX_TABLE_BYTES, 1),
        )
        for count, per_frame, length in zip(blocks, frames, tables, strict=True)
    )


def _check_runs(
    counts: Sequence[int],
    packs: Sequence[int],
    firsts: Sequence[int],
    layouts: tuple[PackLayout, ...],
    *,
    blocks: int,
    hashes: int,
) -> None:
    total = stored = 0
    for count, pack, first in zip(counts, packs, firsts, strict=True):
        if not count:
            malformed(_WHAT, "a run of no blocks")
        total += count
        if pack == _ZEROS:
            if first:
                malformed(_WHAT, "a run of zeros that says where it is")
            continue
        stored += count
        if pack >= len(layouts) or first + count > layouts[pack].blocks:
            malformed(_WHAT, "a run of blocks that are in no pack")
    if total != blocks or stored != hashes:
        malformed(_WHAT, f"its runs are {total} blocks with {stored} hashes, not {blocks} with {hashes}")


class IndexWriter:
    """Makes an index, block by block; what follows each other becomes one run.

    Args:
        packs: How the packs are laid out, in the order in which the list will name them.
    """

    def __init__(self, packs: Sequence[PackLayout]) -> None:
        self._layouts = tuple(packs)
        self._hashes = bytearray()
        self._counts: array[int] = array("I")
        self._packs: array[int] = array("H")
        self._firsts: array[int] = array("I")

    def zeros(self, count: int = 1) -> None:
        """Add blocks of zeros."""
        self._add(count, _ZEROS, 0)

    def block(self, hashed: bytes, *, pack: int, number: int) -> None:
        """Add a block that is ``number`` of ``pack``."""
        self._hashes += hashed
        self._add(1, pack, number)

    def _add(self, count: int, pack: int, first: int) -> None:
        if self._counts and self._packs[-1] == pack and self._counts[-1] + count <= _MOST:
            follows = pack == _ZEROS or self._firsts[-1] + self._counts[-1] == first
            if follows:
                self._counts[-1] += count
                return
        self._counts.append(count)
        self._packs.append(pack)
        self._firsts.append(first)

    def finish(self, *, guest_size_bytes: int, guest_checksum: Checksum) -> bytes:
        """Return the index; it is read back, so that none is written that nobody could read.

        Raises:
            DeltaError: It is beyond a limit.
        """
        packs = self._layouts
        table = compress_table(
            column("I", [each.blocks for each in packs])
            + column("H", [each.frame_blocks for each in packs])
            + column("I", [each.table_bytes for each in packs])
            + column("I", self._counts)
            + column("H", self._packs)
            + column("I", self._firsts)
        )
        head = _HEAD.pack(
            MAGIC,
            BLOCK_BYTES,
            guest_size_bytes,
            bytes.fromhex(guest_checksum.hexdigest),
            len(packs),
            len(self._counts),
            len(self._hashes) // HASH_BYTES,
            len(table),
        )
        data = b"".join((head, table, self._hashes))
        read_index(data)
        return data
