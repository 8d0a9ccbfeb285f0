# SPDX-License-Identifier: Apache-2.0
"""The log of a build: what its programs said, kept in its directory, bounded; and its last line as progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from coppice.atomic import storage_errors
from coppice.log import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

LOG_NAME = "build.log"
_MOST_BYTES = 32 * 1024 * 1024
_LONGEST_LINE = 4096


class BuildLog:
    """A log that is being written."""

    def __init__(self, path: Path, tell: Callable[[str], None], most_bytes: int = _MOST_BYTES) -> None:
        """Start the log at ``path``.

        Args:
            path: Where; the file is made.
            tell: Called with each whole line that came last.
            most_bytes: What comes after so many is told, and not kept.

        Raises:
            StorageError: It cannot be made.
        """
        self._path = path
        self._tell = tell
        self._left = most_bytes
        self._rest = ""
        with storage_errors("making", path):
            self._stream = path.open("wb")

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        with self._stream:
            self._keep(self._rest)

    def write(self, piece: str) -> None:
        """Add what a program said.

        Raises:
            StorageError: The disk failed.
        """
        *lines, self._rest = (self._rest + piece).split("\n")
        self._keep("".join(f"{line}\n" for line in lines))
        if len(self._rest) > _LONGEST_LINE:
            self._keep(self._rest)
            self._rest = ""
        for line in lines:
            # Bars redraw their line with carriage returns: the last state is the news.
            last = line.rstrip("\r").rpartition("\r")[2].strip()
            if last:
                self._tell(redact(last[-_LONGEST_LINE:]))

    def _keep(self, text: str) -> None:
        if self._left <= 0 or not text:
            return
        # Whole lines: programs say where a mirror is, and a piece could end within its password.
        data = redact(text).encode("utf-8", errors="replace")
        if len(data) > self._left:
            data = data[: self._left] + b"\n(what came after this was not kept)\n"
        with storage_errors("writing", self._path):
            self._stream.write(data)
            self._stream.flush()
        self._left -= len(data)
