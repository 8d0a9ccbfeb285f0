# SPDX-License-Identifier: Apache-2.0
"""Run the programs that read disks which others wrote: a disk that takes one over has won nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cage import Cage
from coppice.process import CAPTURE_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from coppice.process import Completed

    Words = Callable[[Callable[[Path], str]], Sequence[str]]


def run_caged(
    words: Words,
    *,
    reads: Sequence[Path] = (),
    writes: Sequence[Path] = (),
    timeout_seconds: float,
    ok: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    input_bytes: bytes | None = None,
    capture_bytes: int = CAPTURE_LIMIT_BYTES,
) -> Completed:
    """Run a program to its end, shut in with its files alone.

    Args:
        words: Makes the program's arguments; it is given what tells the path by which the program sees a file.
        reads: Files that it reads.
        writes: Files that it writes as well.
        timeout_seconds: After this time it is ended.
        ok: Exit statuses that mean success.
        env: Variables that it finds, beside what is the same everywhere.
        input_bytes: Its standard input.
        capture_bytes: How much of its output is kept.

    Raises:
        CageError: A cage could not be set up.
        UnreadableFileError: A file that is to be read is not there.
        StorageError: A file that is to be written cannot be.
        ToolMissingError: The program is not installed.
        ToolFailedError: It ended with another status.
        ToolTimeoutError: Time was up.
    """
    cage = Cage(reads=reads, writes=writes)
    return cage.run(
        words(cage.inside),
        timeout_seconds=timeout_seconds,
        ok=ok,
        env=env,
        input_bytes=input_bytes,
        capture_bytes=capture_bytes,
    )
