# SPDX-License-Identifier: Apache-2.0
"""`Cage`: runs one program with the files that it is given, under limits, and nothing else."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import process
from coppice.atomic import storage_errors
from coppice.cage.bubblewrap import Binding
from coppice.cage.folder import is_more_below
from coppice.cage.means import Means, Strength, Walls
from coppice.cage.room import DEFAULT_LIMITS, Stay, stay
from coppice.cage.trial import find_means
from coppice.errors import CageError, ToolFailedError, ToolTimeoutError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_NEW_FILE_MODE = 0o600
_COMPLAINTS = (b"bwrap: ", b"prlimit: ", b"setpriv: ")
"""How those complain that lead a program into its tree, when they do not come so far."""
_NOT_STARTED = frozenset({1, 126, 127})


class Cage:
    """What one program, or several in turn, may read and write.

    Args:
        reads: Files that it reads.
        writes: Files that it writes, and may read; those that are not there are made, empty, when it runs. A link is
            not followed: where others may write, it is theirs. A folder may be given where a program insists on one;
            what is written into it is looked at once a second.
        folders: Folders in which it reads all files.
        is_required: Whether nothing runs where the program cannot be shut in fully.
        means: With what it is shut in; the strongest that this machine has when None.
    """

    def __init__(
        self,
        *,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
        folders: Sequence[Path] = (),
        is_required: bool = False,
        means: Means | None = None,
    ) -> None:
        written = dict.fromkeys(map(_in_its_folder, writes))
        self._folders = frozenset(map(_resolved, folders))
        read = dict.fromkeys(path for path in (*map(_resolved, reads), *self._folders) if path not in written)
        self._bindings = {
            path: Binding(outside=str(path), inside=f"/{folder}/{number}/{_plain_name(path)}", is_written=is_written)
            for folder, paths, is_written in (("in", read, False), ("out", written, True))
            for number, path in enumerate(paths)
        }
        self._is_required = is_required
        self._means = means

    @property
    def means(self) -> Means:
        """With what the program is shut in.

        Raises:
            CageError: They are not enough for a full cage, and that is required.
        """
        if self._means is None:
            self._means = find_means()
        if self._is_required and self._means.strength is not Strength.FULL:
            raise CageError(
                f"programs that read images cannot be shut in fully on this machine: {self._means.told()}",
                details="\n".join(self._means.lacking) or None,
                resolution="Install bubblewrap (`coppice doctor` says what else is lacking), or set "
                "conversion.require_cage = false to go on with what there is.",
            )
        return self._means

    def inside(self, path: Path) -> str:
        """Return the path by which the program sees a file that it was given.

        Its last part stays as it is where it is a plain name.

        Raises:
            KeyError: The file was not given to this cage.
            CageError: A full cage is required and cannot be had.
        """
        binding = self._bindings.get(_in_its_folder(path)) or self._bindings[_resolved(path)]
        return binding.inside if self.means.walls is Walls.BUBBLEWRAP else binding.outside

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        limits: process.Limits = DEFAULT_LIMITS,
        env: Mapping[str, str] | None = None,
        input_bytes: bytes | None = None,
        ok: Sequence[int] = (0,),
        on_output: Callable[[str], None] | None = None,
        capture_bytes: int = process.CAPTURE_LIMIT_BYTES,
        stopped: Callable[[], bool] | None = None,
    ) -> process.Completed:
        """Run a program to its end, shut in; when this returns or raises, it has ended.

        It cannot start another program.

        Args:
            argv: The program and its arguments, which name files as `inside` does.
            timeout_seconds: After this time it is ended.
            limits: Its bounds; what is None there is as in `DEFAULT_LIMITS`.
            env: Variables added to an environment that is the same everywhere.
            input_bytes: Written to its standard input, which is empty otherwise.
            ok: Exit statuses that mean success.
            on_output: Called with each piece of output as it comes (progress).
            capture_bytes: How much of its output is kept, of each stream.
            stopped: Asked about once a second; when it says so, the program is ended.

        Raises:
            CageError: A full cage is required and cannot be had, or a cage could not be set up.
            UnreadableFileError: A file that is to be read is not there.
            StorageError: A file that is to be written cannot be made, or another took its place meanwhile.
            ToolMissingError: The program is not installed.
            ToolTimeoutError: Time was up.
            ToolFailedError: It ended with another status than those in ``ok``, or wrote more than it may.
            InterruptedRunError: ``stopped`` said so.
        """
        means = self.means
        bounds = _complete(limits)
        made = self._prepare_files()

        def watch() -> bool:
            self._check_folders(argv[0], bounds)
            return stopped is not None and stopped()

        what = Stay(
            argv=tuple(argv),
            timeout_seconds=timeout_seconds,
            bindings=tuple(self._bindings.values()),
            limits=bounds,
            env=env or {},
            input_bytes=input_bytes,
            on_output=on_output,
            capture_bytes=capture_bytes,
            stopped=watch,
        )
        try:
            done = stay(means, what)
        except ToolTimeoutError as problem:
            raise ToolTimeoutError(
                f"{argv[0]} did not end within {timeout_seconds:.0f} s and was stopped",
                details=self._outside(f"$ {shlex.join(argv)}\n{_said(problem)}"),
                context={"argv": list(argv)},
            ) from problem
        self._check_folders(argv[0], bounds)
        self._check_was_set_up(done, means)
        if done.returncode not in ok:
            process.raise_failed(self._told(done))
        _require_same(made)
        return done

    def _prepare_files(self) -> dict[Path, tuple[int, int]]:
        """Make what is to be written; return which files these are."""
        made = {}
        for path, binding in self._bindings.items():
            if binding.is_written:
                made[path] = _make(path)
            else:
                _look_at(path, is_folder=path in self._folders)
        return made

    def _check_folders(self, program: str, limits: process.Limits) -> None:
        most = limits.file_size_bytes or 0
        for path, binding in self._bindings.items():
            if binding.is_written and path.is_dir() and is_more_below(path, most):
                raise ToolFailedError(
                    f"{program} wrote more than {most} bytes, or what cannot be counted, and was stopped",
                    context={"path": str(path)},
                )

    def _check_was_set_up(self, done: process.Completed, means: Means) -> None:
        # Before anything is made of its status: that may be one that the program's own success has as well.
        if means.walls is Walls.BUBBLEWRAP and done.returncode in _NOT_STARTED and done.stderr.startswith(_COMPLAINTS):
            raise CageError(
                f"a cage for {done.argv[0]} could not be set up",
                details=self._outside(done.combined.strip()),
                context={"argv": list(done.argv)},
            )

    def _told(self, done: process.Completed) -> process.Completed:
        return replace(done, argv=tuple(map(self._outside, done.argv)), combined=self._outside(done.combined))

    def _outside(self, text: str) -> str:
        # People know their files by the paths that those have here.
        if self.means.walls is Walls.BUBBLEWRAP:
            for binding in self._bindings.values():
                text = text.replace(binding.inside, binding.outside)
        return text


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _in_its_folder(path: Path) -> Path:
    """Return a path whose folders are the real ones; what lies there, if it is a link, is not followed."""
    return _resolved(path.parent) / path.name if path.name not in {"", ".."} else _resolved(path)


def _make(path: Path) -> tuple[int, int]:
    with storage_errors("making", path):
        if path.is_dir() and not path.is_symlink():
            return _identity(path.lstat())
        # Not waited for where it is a pipe that nobody reads from.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, _NEW_FILE_MODE)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            return _identity(os.fstat(handle))
        finally:
            os.close(handle)


def _require_same(made: Mapping[Path, tuple[int, int]]) -> None:
    for path, identity in made.items():
        with storage_errors("writing", path):
            if _identity(path.lstat()) != identity:
                raise OSError(errno.EEXIST, "another file took its place")


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _look_at(path: Path, *, is_folder: bool) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise UnreadableFileError(f"cannot read {path}: {problem.strerror}", context={"path": str(path)}) from problem
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        wanted = "folder" if is_folder else "regular file"
        raise UnreadableFileError(f"cannot read {path}: it is no {wanted}", context={"path": str(path)})


def _plain_name(path: Path) -> str:
    return path.name if _PLAIN_NAME.fullmatch(path.name) else "file"


def _complete(limits: process.Limits) -> process.Limits:
    given = {field.name: getattr(limits, field.name) for field in fields(limits)}
    return replace(DEFAULT_LIMITS, **{name: value for name, value in given.items() if value is not None})


def _said(problem: ToolTimeoutError) -> str:
    # The command line is that of bwrap.
    command = shlex.join(map(str, problem.context.get("argv", ())))  # type: ignore[call-overload]
    return (problem.details or "").removeprefix(f"$ {command}\n")
