# SPDX-License-Identifier: Apache-2.0
"""How much memory a build takes at its peak: that of all its processes, and of the file systems that it keeps there.

Pages that several of its processes have in common are counted once (``Pss``). It is looked at four times a second by a
process of its own, whose CPU time is not the build's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 0.25
_PARENT = 1
"""Index of the parent's number in ``/proc/…/stat``, after the name of the program."""


@dataclass(slots=True)
class Peak:
    """The most memory that was seen in use at once."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch what this process and all that it starts take while the block runs; the peak is known after it."""
    peak = Peak()
    argv = [sys.executable, str(Path(__file__)), str(os.getpid())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            yield peak
        finally:
            # It ends as well when this process does, and never closes its end.
            peak.bytes = int(watcher.communicate()[0])


def used_bytes(root: int, *, apart_from: int) -> int:
    """Return what the process ``root`` and its descendants have in memory."""
    parents = dict(_parents())
    family = {root}
    while more := {each for each, parent in parents.items() if parent in family} - family - {apart_from}:
        family |= more
    own = _memory_mounts(root).keys()
    elsewhere: dict[str, int] = {}
    for member in family:
        elsewhere |= {device: size for device, size in _memory_mounts(member).items() if device not in own}
    return sum(map(_process_bytes, family)) + sum(elsewhere.values())


def _parents() -> Iterator[tuple[int, int]]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                yield (
                    int(directory.name),
                    int((directory / "stat").read_text("utf-8").rpartition(")")[2].split()[_PARENT]),
                )
            except OSError:
                # It has ended.
                continue


def _process_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _memory_mounts(process: int) -> dict[str, int]:
    """Return device → bytes used of the file systems in memory that a process sees."""
    found = {}
    try:
        for line in Path(f"/proc/{process}/mountinfo").read_text("utf-8").splitlines():
            words = line.split()
            if words[words.index("-") + 1] == "tmpfs":
                state = os.statvfs(f"/proc/{process}/root{words[4]}")
                found[words[2]] = (state.f_blocks - state.f_bfree) * state.f_frsize
    except OSError:
        # It has ended, or something is mounted over it.
        return found
    return found


def _watch(root: int) -> int:
    """Watch until nobody wants to know any more."""
    peak = 0
    os.set_blocking(0, False)
    while True:
        peak = max(peak, used_bytes(root, apart_from=os.getpid()))
        try:
            if not os.read(0, 1):
                return peak
        except BlockingIOError:
            time.sleep(_SECONDS)


if __name__ == "__main__" and len(sys.argv) > 1:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(_watch(int(sys.argv[1])))
