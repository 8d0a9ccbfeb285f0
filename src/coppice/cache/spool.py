# SPDX-License-Identifier: Apache-2.0
"""`Spool`: ranges of a remote file that were fetched, kept until they have served; a kill loses none of them.

The bytes lie at their own places in a sparse file. A note beside it names each piece that is whole, with a checksum of
its bytes, and is written after them: what a machine lost with its power is found missing, and is fetched again.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Self

from coppice import atomic
from coppice.cache.ranges import united
from coppice.errors import DeltaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from coppice.cache.ranges import Range

_ENTRY = struct.Struct("<QQII")
"""First byte, length, CRC-32 of the bytes, CRC-32 of the fields before it."""
_NOTE_LIMIT_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


class Spool:
    """Fetched ranges of one file. Whoever uses it holds the lock on what they are for.

    Args:
        path: Where the bytes are; the note is beside it, with ``.note`` at its end.
        size_bytes: Length of the remote file.

    Raises:
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._note_path = note_of(path)
        self._size = size_bytes
        self._whole: list[Range] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with atomic.storage_errors("opening", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = os.open(path, flags, 0o600)
            try:
                self._note = os.open(self._note_path, flags | os.O_APPEND, 0o600)
            except OSError:
                os.close(self._data)
                raise
        try:
            self._take_up()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        """Return the spool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files; they stay."""
        self._close()

    @property
    def whole(self) -> Sequence[Range]:
        """What is here, in order."""
        return self._whole

    def put(self, start: int, piece: bytes) -> None:
        """Keep a piece.

        Raises:
            DeltaError: It does not lie within the file.
            StorageError: It cannot be written.
        """
        if not 0 <= start <= self._size - len(piece):
            raise DeltaError(f"{len(piece)} bytes at {start} were given of a file of {self._size}")
        if not piece:
            return
        fields = _ENTRY.pack(start, len(piece), zlib.crc32(piece), 0)[:-4]
        view, position = memoryview(piece), start
        with atomic.storage_errors("writing", self.path):
            while view:
                written = os.pwrite(self._data, view, position)
                view, position = view[written:], position + written
            os.write(self._note, fields + struct.pack("<I", zlib.crc32(fields)))
        if self._whole and sum(self._whole[-1]) == start:
            self._whole[-1] = (self._whole[-1][0], self._whole[-1][1] + len(piece))
        else:
            self._whole = united([*self._whole, (start, len(piece))])

    def read(self, start: int, length: int) -> bytes:
        """Return bytes that are here.

        Raises:
            DeltaError: They are not.
            StorageError: They cannot be read.
        """
        found = bytearray()
        with atomic.storage_errors("reading", self.path):
            while len(found) < length:
                piece = os.pread(self._data, length - len(found), start + len(found))
                if not piece:
                    raise DeltaError(f"{length} bytes at {start} of a pack are not here")
                found += piece
        return bytes(found)

    def _take_up(self) -> None:
        """Find what an earlier run left whole; whatever is doubtful counts as not fetched."""
        with atomic.storage_errors("reading", self.path):
            states = [os.fstat(handle) for handle in (self._data, self._note)]
            good = []
            if all(stat.S_ISREG(state.st_mode) for state in states) and states[1].st_size <= _NOTE_LIMIT_BYTES:
                good = [each for each in self._entries(states[1].st_size) if self._is_whole(*each)]
            if len(good) * _ENTRY.size != states[1].st_size:
                # A torn or false entry must not stay between good ones.
                os.ftruncate(self._note, 0)
                for start, length, check in good:
                    fields = _ENTRY.pack(start, length, check, 0)[:-4]
                    os.write(self._note, fields + struct.pack("<I", zlib.crc32(fields)))
        self._whole = united((start, length) for start, length, _ in good)

    def _entries(self, size: int) -> list[tuple[int, int, int]]:
        found = []
        content = os.pread(self._note, size, 0)
        for place in range(0, len(content) - _ENTRY.size + 1, _ENTRY.size):
            start, length, check, own = _ENTRY.unpack_from(content, place)
            if zlib.crc32(content[place : place + _ENTRY.size - 4]) == own and start + length <= self._size:
                found.append((start, length, check))
        return found

    def _is_whole(self, start: int, length: int, check: int) -> bool:
        found, end = 0, start + length
        while start < end:
            piece = os.pread(self._data, min(_PIECE_BYTES, end - start), start)
            if not piece:
                return False
            found = zlib.crc32(piece, found)
            start += len(piece)
        return found == check

    def _close(self) -> None:
        os.close(self._data)
        os.close(self._note)


def note_of(path: Path) -> Path:
    """Return where the note of a spool is."""
    return path.with_name(path.name + ".note")
