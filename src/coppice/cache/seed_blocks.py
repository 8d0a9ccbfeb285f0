# SPDX-License-Identifier: Apache-2.0
"""Which blocks a held disk has: hashed once, kept in a file of its own under ``blocks/``, made anew when in doubt.

Nothing depends on it for safety. What is put together by it is held against a signed checksum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.formats.delta import BLOCK_BYTES, HASH_BYTES, ZERO_BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.model.checksum import Checksum
    from coppice.monitor import Task

_HEAD = struct.Struct("<8sIIQQQQI")
"""Magic, block and hash length, the file's length, inode and time of change, number of blocks, CRC-32 of the rest."""
_MAGIC = b"CoppSee1"
_READ_BYTES = 1024 * 1024
MAXIMUM_SEED_BLOCKS = 1 << 22
"""Of one disk, zeros not counted: 16 GiB; what lies behind them is not looked for."""
BLOCK_FILES_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBlocks:
    """The blocks of a disk that are not all zeros, in the order of the disk.

    Attributes:
        hashes: `HASH_BYTES` of each, as a number of this machine.
        numbers: Which block of the disk each is.
    """

    hashes: array[int]
    numbers: array[int]


def open_seed(path: Path) -> int | None:
    """Return an open file of what is held; None: it is no regular file, or gone."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    return None


def seed_blocks(directory: Path, checksum: Checksum, handle: int, task: Task) -> SeedBlocks:
    """Return the blocks of an open disk.

    Args:
        directory: Where such files are kept.
        checksum: What the disk is known by.
        handle: The open disk.
        task: Told how many bytes of it were read.

    Raises:
        OSError: The disk cannot be read.
        StorageError: What was found cannot be kept.
    """
    path = directory / checksum.hexdigest
    state = os.fstat(handle)
    kept = _kept(path, state)
    if kept is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
        return kept
    found = SeedBlocks(hashes=array("Q"), numbers=array("I"))
    _hash(handle, state.st_size, found, task)
    fields = (
        BLOCK_BYTES,
        HASH_BYTES,
        state.st_size,
        state.st_ino,
        state.st_mtime_ns,
        len(found.numbers),
        _check(found),
    )
    with atomic.replacing(path) as temporary, temporary.open("xb") as stream:
        stream.write(_HEAD.pack(_MAGIC, *fields))
        stream.write(memoryview(found.hashes))
        stream.write(memoryview(found.numbers))
    _prune(directory)
    return found


def _kept(path: Path, state: os.stat_result) -> SeedBlocks | None:
    """Return what was kept of the disk in this state; None: nothing that can be used."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as stream, contextlib.suppress(OSError, struct.error, ValueError):
        magic, block, width, size, inode, changed, count, check = _HEAD.unpack(stream.read(_HEAD.size))
        expected = (_MAGIC, BLOCK_BYTES, HASH_BYTES, state.st_size, state.st_ino, state.st_mtime_ns)
        if (magic, block, width, size, inode, changed) == expected and count <= MAXIMUM_SEED_BLOCKS:
            found = SeedBlocks(hashes=array("Q"), numbers=array("I"))
            found.hashes.frombytes(stream.read(count * HASH_BYTES))
            found.numbers.frombytes(stream.read(count * found.numbers.itemsize))
            is_whole = len(found.numbers) == count and _check(found) == check
            if is_whole and (not count or max(found.numbers) < size // BLOCK_BYTES):
                return found
    return None


def _check(found: SeedBlocks) -> int:
    return zlib.crc32(memoryview(found.numbers), zlib.crc32(memoryview(found.hashes)))


def _hash(handle: int, size: int, found: SeedBlocks, task: Task) -> None:
    """Add number and hash of each whole block that is not all zeros; holes are not read."""
    sha256, position = hashlib.sha256, 0
    while position < size and len(found.numbers) < MAXIMUM_SEED_BLOCKS:
        position = _next_data(handle, position, size)
        piece = memoryview(os.pread(handle, min(_READ_BYTES, size - position), position))
        if len(piece) < BLOCK_BYTES:
            break
        digests = bytearray()
        for start in range(0, len(piece) - BLOCK_BYTES + 1, BLOCK_BYTES):
            block = piece[start : start + BLOCK_BYTES]
            if block != ZERO_BLOCK:
                digests += sha256(block).digest()[:HASH_BYTES]
                found.numbers.append((position + start) // BLOCK_BYTES)
        found.hashes.frombytes(digests)
        position += len(piece) // BLOCK_BYTES * BLOCK_BYTES
        task.reach(position, size)


def _next_data(handle: int, position: int, size: int) -> int:
    try:
        return os.lseek(handle, position, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
    except OSError as problem:
        return size if problem.errno == errno.ENXIO else position


def _prune(directory: Path) -> None:
    """Keep the files that were used last; one that is needed again is made again."""
    with contextlib.suppress(OSError):
        files = sorted(directory.iterdir(), key=lambda each: each.lstat().st_mtime_ns, reverse=True)
        for path in files[BLOCK_FILES_KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()
