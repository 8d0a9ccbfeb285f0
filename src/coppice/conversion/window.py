# SPDX-License-Identifier: Apache-2.0
"""`Window`: the bytes of a disk, wherever they lie: a whole file, a stretch of an archive, or memory."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol, Self

from coppice.errors import ImageRefusedError

if TYPE_CHECKING:
    from pathlib import Path


class Window(Protocol):
    """Bytes that may be looked at anywhere.

    Attributes:
        size_bytes: How many there are.
    """

    @property
    def size_bytes(self) -> int:
        """Return how many there are."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on; fewer where they end."""
        ...


class BytesWindow:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read(self, start: int, length: int) -> bytes:
        """Return bytes; see `Window.read`."""
        return self._content[start : start + length]


class FileWindow:
    """A stretch of a regular file that is held open; use it as a context, or close it.

    Args:
        path: The file; a symbolic link is refused.
        offset: Where the stretch begins.
        size_bytes: Its length; None: to the end of the file.

    Raises:
        ImageRefusedError: It is no regular file, or the stretch is not inside of it.
    """

    def __init__(self, path: Path, offset: int = 0, size_bytes: int | None = None) -> None:
        self.path = path
        self.offset = offset
        self.handle = _opened(path)
        length = os.fstat(self.handle).st_size
        self.size_bytes = max(0, length - offset) if size_bytes is None else size_bytes
        if offset < 0 or self.size_bytes < 0 or offset + self.size_bytes > length:
            os.close(self.handle)
            raise ImageRefusedError(
                f"{path} has {length} bytes; a part of it would lie from {offset} to {offset + self.size_bytes}"
            )

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)

    def is_at_its_path(self) -> bool:
        """Tell whether the open file still bears its name: a program that is given the name reads the same file."""
        try:
            there, here = self.path.lstat(), os.fstat(self.handle)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def part(self, offset: int, size_bytes: int) -> FileWindow:
        """Return a stretch of this one, of the same open file, whatever bears its name by now.

        Raises:
            ImageRefusedError: The stretch is not inside of this one.
            OSError: Too many files are open.
        """
        if offset < 0 or size_bytes < 0 or offset + size_bytes > self.size_bytes:
            raise ImageRefusedError(
                f"of {self.path}, {self.size_bytes} bytes are looked at; "
                f"a part would lie from {offset} to {offset + size_bytes}"
            )
        found = FileWindow.__new__(FileWindow)
        found.path, found.offset, found.size_bytes = self.path, self.offset + offset, size_bytes
        found.handle = os.dup(self.handle)
        return found

    def read(self, start: int, length: int) -> bytes:
        """Return bytes; see `Window.read`.

        Raises:
            OSError: It cannot be read.
        """
        wanted = min(length, self.size_bytes - start)
        pieces = []
        at = self.offset + start
        while wanted > 0 and (piece := os.pread(self.handle, wanted, at)):
            pieces.append(piece)
            at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)


def _opened(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ImageRefusedError(
            f"the image file {path} cannot be opened as a regular file", details=str(problem)
        ) from problem
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ImageRefusedError(f"the image file {path.name} is not a regular file")
    return handle
