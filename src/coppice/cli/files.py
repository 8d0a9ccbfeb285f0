# SPDX-License-Identifier: Apache-2.0
"""Files that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import InputError, UnreadableFileError

if TYPE_CHECKING:
    from pathlib import Path


def unreadable(path: Path, problem: OSError | ValueError) -> UnreadableFileError:
    """Return the error of a file that could not be read, without Python's own words around the reason."""
    why = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    if isinstance(problem, UnicodeDecodeError):
        why = f"it is not UTF-8 text (byte {problem.start})"
    return UnreadableFileError(
        f"cannot read {path}: {why}",
        resolution="Check the path, and that this user may read the file.",
        context={"path": str(path)},
    )


def require_directory(path: Path, *, resolution: str = "Check the path, or make the directory, and run again.") -> None:
    """Make sure that a file can be written to ``path``: a directory that was mistyped is not made.

    Raises:
        InputError: Its directory is not there.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"there is no directory {path.absolute().parent} to write {path.name} to",
            resolution=resolution,
            context={"path": str(path)},
        )
