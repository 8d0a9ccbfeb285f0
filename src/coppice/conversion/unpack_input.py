# SPDX-License-Identifier: Apache-2.0
"""`PackedInput`: packed bytes, read once from beginning to end, with the place at which something is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError, DecompressionBombError
from coppice.monitor import SILENT_TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.conversion.window import Window
    from coppice.errors import ImageRefusedError
    from coppice.monitor import Task

PIECE_BYTES = 256 * 1024


class PackedInput:
    """A stretch of packed bytes.

    Args:
        window: The file, or the member of an archive, that holds them.
        name: Its name, for messages.
        start: Where they begin in ``window``.
        end: Where they end in it; None: where it does.
        task: Is told how many were read.
        is_late: Tells whether the time for unpacking is over.
    """

    def __init__(
        self,
        window: Window,
        name: str,
        *,
        start: int = 0,
        end: int | None = None,
        task: Task = SILENT_TASK,
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self._window = window
        self._position = start
        self._end = window.size_bytes if end is None else end
        self._task = task
        self._is_late = is_late
        self._buffer = b""
        self._at = 0

    @property
    def offset(self) -> int:
        """Where the next byte lies in the window."""
        return self._position - len(self._buffer) + self._at

    def take(self, most: int = PIECE_BYTES) -> bytes:
        """Return the next bytes: at least one and at most ``most``; none at the end.

        Raises:
            CorruptImageError: The file became shorter.
            DecompressionBombError: The time is over.
        """
        if self._at == len(self._buffer):
            self._buffer, self._at = self._read(), 0
        start, self._at = self._at, min(len(self._buffer), self._at + most)
        return self._buffer[start : self._at]

    def give_back(self, count: int) -> None:
        """Let the last ``count`` bytes of what was taken last be what comes next."""
        self._at -= count

    def peek(self, length: int) -> bytes:
        """Return the next ``length`` bytes, fewer at the end, and leave them there."""
        while len(self._buffer) - self._at < length and (piece := self._read()):
            self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return self._buffer[self._at : self._at + length]

    @property
    def held_bytes(self) -> int:
        """How many of the next bytes are in memory."""
        return len(self._buffer) - self._at

    def go_past(self, count: int) -> None:
        """Leave ``count`` bytes behind, all of which are in memory."""
        self._at += count

    def gone_past(self, count: int) -> memoryview:
        """Return the last ``count`` bytes that were left behind, not copied; nothing was read since they were next."""
        if count > self._at:
            raise ValueError(f"of what was left behind, {self._at} bytes are in memory, and not {count}")
        return memoryview(self._buffer)[self._at - count : self._at]

    def skip_zeros(self) -> int:
        """Go past zeros; return how many there were."""
        count = 0
        while piece := self.take():
            kept = len(piece.lstrip(b"\0"))
            count += len(piece) - kept
            if kept:
                self.give_back(kept)
                break
        return count

    def refuse(
        self, found: str, why: str, *, kind: type[ImageRefusedError] = CorruptImageError, offset: int | None = None
    ) -> ImageRefusedError:
        """Return the error that says what was found, here or at ``offset``."""
        return refusal(kind, self.name, found, offset=self.offset if offset is None else offset, why=why)

    def check_time(self) -> None:
        """See to it that there is time left.

        Raises:
            DecompressionBombError: There is none.
        """
        if self._is_late():
            raise refusal(
                DecompressionBombError,
                self.name,
                "unpacking it takes longer than a conversion may",
                offset=self.offset,
                why="a small file can keep a machine busy for days",
                resolution="Raise conversion.timeout_seconds if this image is wanted.",
            )

    def _read(self) -> bytes:
        self.check_time()
        wanted = min(PIECE_BYTES, self._end - self._position)
        piece = self._window.read(self._position, wanted) if wanted > 0 else b""
        if wanted > 0 and not piece:
            raise self.refuse("it became shorter while it was read", "what was looked at is not what is there now")
        self._position += len(piece)
        self._task.advance(len(piece))
        return piece
