# SPDX-License-Identifier: Apache-2.0
"""An archive that is unpacked: its disk goes into a file of its own at once, and is never copied out of the archive.

While the archive is still coming, only the headers that have come can be believed. Which member is the disk is judged
afterwards, by the strict reader, on all bytes in their order (`SplicedWindow`); a wrong guess costs a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.formats.tar_header import BLOCK_BYTES, REGULAR, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.conversion.unpack_spool import SpoolFile
    from coppice.conversion.window import FileWindow

SMALLEST_DISK_BYTES = 1024 * 1024
"""Descriptors, manifests and licences are shorter; a shorter disk is quickly copied."""
_FOREVER = 2**63


class MemberSplit:
    """Says where each piece of a stream goes: the first large member of a tar archive into a file of its own.

    Args:
        main: Takes everything else: all of it where the stream is no archive.
        make_part: Makes the member's file.

    Attributes:
        part: The member's file; None: there is none.
        start: Where the member begins in the stream.
        size_bytes: Its length, as its header has it.
    """

    def __init__(self, main: SpoolFile, make_part: Callable[[], SpoolFile]) -> None:
        self.main = main
        self.part: SpoolFile | None = None
        self.start = 0
        self.size_bytes = 0
        self._make_part = make_part
        self._target = main
        self._position = 0
        self._left = BLOCK_BYTES
        self._header: bytes | None = b""

    def route(self, piece: bytes | bytearray) -> Iterator[tuple[SpoolFile, bytes | bytearray]]:
        """Yield the parts of the next piece of the stream, each with the file that it goes to; the whole uncopied."""
        at = 0
        while at < len(piece):
            is_whole = at == 0 and len(piece) <= self._left
            part = piece if is_whole else piece[at : at + self._left]
            if self._header is not None:
                self._header += part
            yield self._target, part
            at += len(part)
            self._position += len(part)
            self._left -= len(part)
            while not self._left:
                self._go_on()

    def _go_on(self) -> None:
        """Decide what comes next, where something has ended."""
        header, self._header = self._header, None
        if header is None and self._target is self.main:
            self._header, self._left = b"", BLOCK_BYTES
            return
        self._target, self._left = self.main, _FOREVER
        if header is None:
            return
        try:
            found = read_header(header)
        except ValueError:
            return
        if found.kind in REGULAR and found.size_bytes >= SMALLEST_DISK_BYTES:
            self._target = self.part = self._make_part()
            self.start, self._left = self._position, found.size_bytes
            self.size_bytes = found.size_bytes
        else:
            self._left = found.size_bytes + -found.size_bytes % BLOCK_BYTES


class SplicedWindow:
    """Bytes of which a stretch in the middle lies elsewhere.

    Args:
        main: What is before and after it.
        start: Where it belongs.
        part: The stretch.
    """

    def __init__(self, main: FileWindow, start: int, part: FileWindow) -> None:
        self._main, self._start, self._part = main, start, part
        self._end = start + part.size_bytes
        self.size_bytes = main.size_bytes + part.size_bytes

    def read(self, start: int, length: int) -> bytes:
        """Return bytes; see `Window.read`."""
        end = min(start + length, self.size_bytes)
        found = []
        if start < self._start:
            found.append(self._main.read(start, min(end, self._start) - start))
        if start < self._end and end > self._start:
            begin = max(start, self._start)
            found.append(self._part.read(begin - self._start, min(end, self._end) - begin))
        if end > self._end:
            begin = max(start, self._end)
            found.append(self._main.read(begin - self._part.size_bytes, end - begin))
        return b"".join(found)

    def place_of(self, offset: int, size_bytes: int) -> tuple[FileWindow, int] | None:
        """Return what holds a stretch as a whole, and where it begins there; None: it lies in both."""
        end = offset + size_bytes
        if end <= self._start:
            return self._main, offset
        if offset >= self._end:
            return self._main, offset - self._part.size_bytes
        if offset >= self._start and end <= self._end:
            return self._part, offset - self._start
        return None
