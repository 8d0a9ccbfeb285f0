# SPDX-License-Identifier: Apache-2.0
"""How much memory a tree may stand in while it is made: a disk would be slower by more than all else."""

from __future__ import annotations

from pathlib import Path

_ENOUGH_BYTES = 4 * 1024**3
_LEAST_BYTES = 3 * 1024**3 // 2
_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def room_in_memory(
    *, always: bool = False, memory: Path = _MEMORY, group: Path = _GROUP, own_group: Path = _OWN_GROUP
) -> int:
    """Return how many bytes a tree may take in memory: half of what is free; 0 where that is too little.

    Args:
        always: Never 0.
        memory: What the kernel says of the machine's memory.
        group: What it says of control groups.
        own_group: What it says of where in them this process is.
    """
    free = min(_available(memory), *(_left_in_group(each) for each in _groups(group, own_group)))
    if free >= _ENOUGH_BYTES:
        return free // 2
    return _LEAST_BYTES if always else 0


def _available(memory: Path) -> int:
    try:
        lines = memory.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _groups(top: Path, own: Path) -> tuple[Path, ...]:
    """Return the groups that this process is in: a container's is at the top of what is seen, a service's below."""
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    place = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    parts = [part for part in place.split("/") if part]
    # What lies beyond the top cannot be seen.
    below = [] if ".." in parts else [top.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return (top, *below)


def _left_in_group(group: Path) -> int:
    # "max", or nothing, is no limit.
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _ENOUGH_BYTES * 1024
    return max(0, limit - used)
