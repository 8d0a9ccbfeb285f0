# SPDX-License-Identifier: Apache-2.0
"""One stay of a program within given walls: how it is started in them, and that it has ended when it is over."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import process
from coppice.cage import landlock
from coppice.cage.bubblewrap import Binding, can_limit_processes, process_limit, wrapped
from coppice.cage.ending import Ending
from coppice.cage.filter import filter_program
from coppice.cage.means import Means, Walls
from coppice.cage.needs import needs_of
from coppice.errors import CageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEFAULT_LIMITS = process.Limits(
    address_space_bytes=2 * 1024**3, cpu_seconds=3600, file_size_bytes=1024**4, open_files=64, processes=256
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_ANY_STATUS = range(-255, 256)
_SIGNALLED = 128
_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """What is run, and within which bounds; see `coppice.process.run`.

    Attributes:
        argv: The program and its arguments.
        timeout_seconds: Wall time.
        bindings: The files that it may read and write.
        limits: Its bounds; all of them are set.
        env: Variables beside `ENVIRONMENT`.
        input_bytes: Its standard input.
        on_output: Called with what it says.
        capture_bytes: How much of that is kept.
        stopped: Asked about once a second.
    """

    argv: tuple[str, ...]
    timeout_seconds: float
    bindings: tuple[Binding, ...] = ()
    limits: process.Limits = DEFAULT_LIMITS
    env: Mapping[str, str] = field(default_factory=dict)
    input_bytes: bytes | None = None
    on_output: Callable[[str], None] | None = None
    capture_bytes: int = process.CAPTURE_LIMIT_BYTES
    stopped: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """How a program gets in: what is run, what it is handed, what the child does first, its limits from outside."""

    words: tuple[str, ...]
    limits: process.Limits
    handles: tuple[int, ...] = ()
    stopped: Callable[[], bool] | None = None
    enter: Callable[[], None] | None = None


def stay(means: Means, what: Stay) -> process.Completed:
    """Run a program within walls; when this returns or raises, it has ended, and all of it.

    Raises:
        ToolMissingError: The program, or bwrap, is not installed.
        ToolTimeoutError: Time was up.
        ToolFailedError: It cannot be started.
        CageError: The kernel does not have the walls.
        InterruptedRunError: ``stopped`` said so.
    """
    with _entry(means, what) as entry:
        done = process.run(
            entry.words,
            timeout_seconds=what.timeout_seconds,
            cwd=Path("/"),
            env={**ENVIRONMENT, **what.env},
            whole_environment=True,
            input_bytes=what.input_bytes,
            ok=_ANY_STATUS,
            on_output=what.on_output,
            limits=entry.limits,
            capture_bytes=what.capture_bytes,
            stopped=entry.stopped,
            handed_on=entry.handles,
            before_start=entry.enter,
        )
    if means.walls is Walls.BUBBLEWRAP and _SIGNALLED < done.returncode <= _SIGNALLED + _LAST_SIGNAL:
        # bwrap tells of a signal as a shell does.
        done = replace(done, returncode=_SIGNALLED - done.returncode)
    return replace(done, argv=what.argv)


@contextlib.contextmanager
def _entry(means: Means, what: Stay) -> Iterator[_Entry]:
    processes = what.limits.processes
    is_set_inside = means.walls is Walls.BUBBLEWRAP and can_limit_processes()
    limits = what.limits
    if processes is not None:
        most = None if is_set_inside else process_limit(processes, is_privileged=means.is_privileged)
        limits = replace(limits, processes=most)
    if means.walls is Walls.BUBBLEWRAP:
        with told_as_cage_error():
            ending = Ending()
        with ending, _filter_file(means) as handle:
            words = wrapped(
                what.argv,
                what.bindings,
                devices=DEVICES,
                filter_handle=handle,
                told_to=ending.handed_on,
                processes=processes if is_set_inside else None,
                is_privileged=means.is_privileged,
            )
            yield _Entry(
                words=tuple(words),
                limits=limits,
                handles=(ending.handed_on, *(() if handle is None else (handle,))),
                stopped=ending.watch(what.stopped),
            )
        return
    needs = needs_of(what.argv[0])
    ruleset = landlock.open_ruleset(_rights(needs.paths(), what.bindings)) if means.walls is Walls.LANDLOCK else None
    try:
        enter = landlock.entering(ruleset, becomes_nobody=means.is_privileged) if means.is_filtered else None
        yield _Entry(words=(needs.program, *what.argv[1:]), limits=limits, stopped=what.stopped, enter=enter)
    finally:
        if ruleset is not None:
            os.close(ruleset)


@contextlib.contextmanager
def told_as_cage_error() -> Iterator[None]:
    """Tell of what the machine does not have (open files, a call of the kernel) as of a cage that cannot be had.

    Raises:
        CageError: The block raised an `OSError`.
    """
    try:
        yield
    except OSError as problem:
        raise CageError(f"a cage cannot be set up: {problem.strerror}") from problem


@contextlib.contextmanager
def _filter_file(means: Means) -> Iterator[int | None]:
    if not means.is_filtered:
        yield None
        return
    with told_as_cage_error():
        handle = os.memfd_create("filter")
    try:
        os.write(handle, filter_program(may_become_another=means.is_privileged))
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


def _rights(needed: tuple[str, ...], bindings: tuple[Binding, ...]) -> Iterator[tuple[str, int]]:
    for path in needed:
        yield path, landlock.RUN
    for device in DEVICES:
        yield device, landlock.WRITE
    for binding in bindings:
        is_folder = Path(binding.outside).is_dir()
        yield binding.outside, (landlock.FILL if is_folder else landlock.WRITE) if binding.is_written else landlock.READ
