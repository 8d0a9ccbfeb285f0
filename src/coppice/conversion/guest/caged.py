# SPDX-License-Identifier: Apache-2.0
"""`Reader`: runs the programs that read a guest's file systems, shut in, for a bounded time in all."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from coppice import process
from coppice.cage import Cage
from coppice.conversion.guest.unknown import NotFoundOutError, last_line, told_as_unknown
from coppice.errors import ToolFailedError

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits

MOST_SECONDS = 300.0
"""All looks at one disk take no longer."""
MOST_SAID_BYTES = 4 * 1024 * 1024
_LOOK_SECONDS = 20
_LOOK_MEMORY_BYTES = 1024**3
_OPEN_FILES = 64


class Reader:
    """Runs programs for the looks at one disk.

    Args:
        limits: Bounds on each program.
        require_cage: Whether nothing runs where programs cannot be shut in fully.
    """

    def __init__(self, limits: ConversionLimits, *, require_cage: bool = False) -> None:
        self._limits = limits
        self._require_cage = require_cage
        self._ends = time.monotonic() + min(MOST_SECONDS, limits.timeout_seconds)

    def cage(self, *reads: Path, writes: Sequence[Path] = ()) -> Cage:
        """Return a cage with these files."""
        return Cage(reads=reads, writes=writes, is_required=self._require_cage)

    def bring(self, cage: Cage, argv: Sequence[str], *, file_size_bytes: int) -> None:
        """Run a program that writes a stretch of the disk into a file of that length.

        Raises:
            NotFoundOutError: It failed, or time was up.
        """
        limits = process.Limits(
            address_space_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            file_size_bytes=file_size_bytes,
            open_files=_OPEN_FILES,
        )
        with told_as_unknown("reading the disk"):
            cage.run(argv, limits=limits, timeout_seconds=self._left())

    def look(
        self,
        cage: Cage,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
        file_size_bytes: int = 0,
    ) -> process.Completed:
        """Run a program that reads a file system, and return what it said, all of it.

        Raises:
            NotFoundOutError: It failed, said more than is taken, or time was up.
        """
        limits = process.Limits(
            address_space_bytes=min(_LOOK_MEMORY_BYTES, self._limits.memory_bytes),
            cpu_seconds=min(_LOOK_SECONDS, self._limits.cpu_seconds),
            file_size_bytes=file_size_bytes,
            open_files=_OPEN_FILES,
        )
        with told_as_unknown(f"running {argv[0]}"):
            done = cage.run(
                argv,
                limits=limits,
                timeout_seconds=min(_LOOK_SECONDS, self._left()),
                env=env,
                ok=ok,
                capture_bytes=MOST_SAID_BYTES,
            )
        if len(done.stdout) >= MOST_SAID_BYTES or len(done.stderr) >= MOST_SAID_BYTES:
            raise NotFoundOutError(f"{argv[0]} said more than {MOST_SAID_BYTES} bytes")
        return done

    def take(
        self, cage: Cage, argv: Sequence[str], destination: Path, most_bytes: int, *, may_say: re.Pattern[bytes]
    ) -> bytes:
        """Run a program that writes a file out of a file system; return the first bytes of it.

        The program is ended when it has written more than ``most_bytes``: what it wrote by then is what is wanted.

        Args:
            cage: Where it runs.
            argv: The program and its arguments.
            destination: The file that it writes; it is made anew.
            most_bytes: As many are returned at most.
            may_say: What all of its standard error looks like when nothing went wrong.

        Raises:
            NotFoundOutError: It failed before, or time was up.
        """
        destination.unlink(missing_ok=True)
        destination.touch()
        limits = process.Limits(
            address_space_bytes=min(_LOOK_MEMORY_BYTES, self._limits.memory_bytes),
            cpu_seconds=min(_LOOK_SECONDS, self._limits.cpu_seconds),
            file_size_bytes=most_bytes,
            open_files=_OPEN_FILES,
        )
        with told_as_unknown(f"running {argv[0]}"):
            try:
                done = cage.run(argv, limits=limits, timeout_seconds=min(_LOOK_SECONDS, self._left()))
            except ToolFailedError:
                if destination.stat().st_size < most_bytes:
                    raise
                return read_head(destination, most_bytes)
        if may_say.fullmatch(done.stderr) is None:
            raise NotFoundOutError(f"{argv[0]} could not read a file: {last_line(done.stderr)}")
        return read_head(destination, most_bytes)

    def _left(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise NotFoundOutError("looking into the disk took too long")
        return left


def read_head(path: Path, most_bytes: int) -> bytes:
    """Return the first bytes of a file that a program wrote.

    Raises:
        NotFoundOutError: It cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return file.read(most_bytes)
    except OSError as problem:
        raise NotFoundOutError(f"what was brought cannot be read: {problem.strerror}") from problem
