# SPDX-License-Identifier: Apache-2.0
"""A disk of an image as the maker of deltas sees it: which of its blocks are not all zeros, and their hashes."""

from __future__ import annotations

import os
import sqlite3
from array import array
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from coppice.atomic import storage_errors
from coppice.errors import DeltaError
from coppice.formats.delta import BLOCK_BYTES, HASH_BYTES, MAX_BLOCKS, ZERO_BLOCK, block_count, block_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from coppice.model.checksum import Checksum
    from coppice.monitor import Task

_PIECE_BLOCKS = 256
_CACHE_KIB = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A disk as a guest sees it, in a file (raw, with holes).

    Attributes:
        path: The file.
        size_bytes: Its length.
        checksum: sha512 of its bytes.
    """

    path: Path
    size_bytes: int
    checksum: Checksum

    @property
    def blocks(self) -> int:
        """Return how many blocks it has, zeros counted."""
        return block_count(self.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Which blocks of a disk are not all zeros.

    Attributes:
        guest: The disk.
        starts: Number of the first block of each stretch without zero blocks.
        counts: How long each is.
        hashes: `HASH_BYTES` for each of these blocks.
    """

    guest: Guest
    starts: array[int]
    counts: array[int]
    hashes: bytes

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and hash of each block that is not all zeros."""
        at = 0
        for start, count in zip(self.starts, self.counts, strict=True):
            for number in range(start, start + count):
                yield number, self.hashes[at : at + HASH_BYTES]
                at += HASH_BYTES


def scan(guest: Guest, task: Task) -> Scan:
    """Read a disk, its holes left out.

    Raises:
        DeltaError: It has more blocks than a delta may have.
        StorageError: It cannot be read.
    """
    starts, counts, hashes = array("Q"), array("Q"), bytearray()
    with storage_errors("reading", guest.path), guest.path.open("rb") as stream:
        for number, piece in _pieces(stream, guest.size_bytes):
            task.reach(number * BLOCK_BYTES, guest.size_bytes)
            for offset in range(0, len(piece), BLOCK_BYTES):
                block = piece[offset : offset + BLOCK_BYTES]
                if block == ZERO_BLOCK:
                    continue
                at = number + offset // BLOCK_BYTES
                if starts and starts[-1] + counts[-1] == at:
                    counts[-1] += 1
                else:
                    starts.append(at)
                    counts.append(1)
                hashes += block_hash(block)
            if len(hashes) > MAX_BLOCKS * HASH_BYTES:
                raise DeltaError(f"the disk of {guest.path.name} has more than {MAX_BLOCKS} blocks that are not zeros")
    return Scan(guest=guest, starts=starts, counts=counts, hashes=bytes(hashes))


def _pieces(stream: BinaryIO, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is no hole, as whole blocks: the number of the first, the bytes."""
    descriptor, position = stream.fileno(), 0
    while position < size_bytes:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            # Nothing but a hole follows.
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size_bytes)
        start = max(position, start - start % BLOCK_BYTES)
        while start < end:
            wanted = min(_PIECE_BLOCKS * BLOCK_BYTES, end - start)
            piece = read_blocks(descriptor, start // BLOCK_BYTES, block_count(wanted))
            yield start // BLOCK_BYTES, piece
            start += len(piece)
        position = start


def read_blocks(descriptor: int, number: int, count: int) -> bytes:
    """Return blocks of an open disk; the last one filled up with zeros."""
    wanted, offset = count * BLOCK_BYTES, number * BLOCK_BYTES
    pieces: list[bytes] = []
    while wanted:
        piece = os.pread(descriptor, wanted, offset)
        if not piece:
            break
        pieces.append(piece)
        wanted -= len(piece)
        offset += len(piece)
    return b"".join(pieces).ljust(count * BLOCK_BYTES, b"\0")


class BlockTable:
    """Where blocks are, by their hashes; on disk, so that memory does not go with their number."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, rows: Iterable[tuple[bytes, int, int]]) -> None:
        """Take up hashes with two numbers each; what is known already stays as it is."""
        self._connection.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?)", rows)

    def find(self, hashed: bytes) -> tuple[int, int] | None:
        """Return the two numbers of a hash; None where it is not known."""
        found: tuple[int, int] | None = self._connection.execute(
            "SELECT first, second FROM blocks WHERE hash = ?", (hashed,)
        ).fetchone()
        return found


@contextmanager
def block_table(work: Path, name: str) -> Iterator[BlockTable]:
    """Yield an empty table in the directory ``work``, which is gone afterwards.

    Raises:
        StorageError: It cannot be written.
    """
    path = work / f"{name}.blocks"
    with storage_errors("writing", path):
        path.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                connection.execute(
                    "CREATE TABLE blocks (hash BLOB PRIMARY KEY, first INTEGER, second INTEGER) WITHOUT ROWID"
                )
                connection.execute("BEGIN")
                yield BlockTable(connection)
        except sqlite3.OperationalError as problem:
            # A full disk is what this can be.
            raise OSError(str(problem)) from problem
        finally:
            path.unlink(missing_ok=True)
