# SPDX-License-Identifier: Apache-2.0
"""Run the programs that read disks which others wrote, with these disks and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.cage import Cage, Means, Walls, find_means
from coppice.errors import BuildError, UnreadableFileError
from coppice.process import CAPTURE_LIMIT_BYTES, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from coppice.process import Completed

    Words = Callable[[Callable[[Path], str]], Sequence[str]]

_is_required: ContextVar[bool] = ContextVar("a full cage is required", default=False)


@contextmanager
def cage_required(is_required: bool) -> Iterator[None]:
    """Have nothing run within this context where programs cannot be shut in fully, if that is what is asked for.

    Raises:
        CageError: It is asked for, and cannot be had: better known before hours of work than after.
    """
    if is_required:
        Cage(is_required=True).means  # noqa: B018 - it raises
    token = _is_required.set(is_required)
    try:
        yield
    finally:
        _is_required.reset(token)


def run_caged(
    words: Words,
    *,
    reads: Sequence[Path] = (),
    writes: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    timeout_seconds: float,
    most_bytes: int | None = None,
    asks_what_is_mounted: bool = False,
    ok: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    input_bytes: bytes | None = None,
    capture_bytes: int = CAPTURE_LIMIT_BYTES,
) -> Completed:
    """Run a program to its end, shut in with its files alone as far as this machine can.

    Args:
        words: Makes the program's arguments; it is given what tells the path by which the program sees a file.
        reads: Files that it reads.
        writes: Files that it writes as well.
        folders: Folders in which it reads all files.
        timeout_seconds: After this time it is ended.
        most_bytes: No file that it writes gets longer; None: no file gets longer than the longest is.
        asks_what_is_mounted: Whether it refuses to work where it cannot read that, or see that nothing is.
        ok: Exit statuses that mean success.
        env: Variables that it finds, beside what is the same everywhere.
        input_bytes: Its standard input.
        capture_bytes: How much of its output is kept.

    Raises:
        BuildError: A file that is to be read is not there.
        CageError: A full cage is required and cannot be had, or a cage could not be set up.
        StorageError: A file that is to be written cannot be.
        ToolMissingError: The program is not installed.
        ToolFailedError: It ended with another status, or wrote more than it may.
        ToolTimeoutError: Time was up.
    """
    means: Means | None = None
    if asks_what_is_mounted and find_means().walls is Walls.LANDLOCK:
        # Landlock would refuse it the answer, and cannot tell it that there is none. It is nobody's all the same.
        means = replace(find_means(), walls=Walls.NONE)
    cage = Cage(reads=reads, writes=writes, folders=folders, is_required=_is_required.get(), means=means)
    if most_bytes is None:
        most_bytes = max((path.stat().st_size for path in writes if path.exists()), default=0)
    try:
        return cage.run(
            words(cage.inside),
            timeout_seconds=timeout_seconds,
            limits=Limits(file_size_bytes=most_bytes),
            ok=ok,
            env=env,
            input_bytes=input_bytes,
            capture_bytes=capture_bytes,
        )
    except UnreadableFileError as problem:
        raise BuildError(problem.message, details=problem.details, context=problem.context) from problem
