# SPDX-License-Identifier: Apache-2.0
"""Walls by namespaces: bubblewrap makes a tree of files with nothing in it but what is named, and no network.

The tree is read-only but for the files that are to be written; it has no /proc, /sys, /tmp, no home, and of /etc the
loader's cache alone. Root's program becomes nobody's on its way in, so that limits on processes hold for it; it keeps
the one right of reading and writing what it was given, whoever owns that.
"""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from coppice import process
from coppice.cage.landlock import NOBODY
from coppice.cage.needs import needs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coppice.cage.needs import Needs

_OWN_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_USER_NAMESPACE = ("--unshare-user", *_OWN_NAMESPACES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A file, or a folder, in the tree.

    Attributes:
        outside: Its real path.
        inside: Its path there.
        is_written: Whether the program may write it.
    """

    outside: str
    inside: str
    is_written: bool


def wrapped(
    argv: Sequence[str],
    bindings: Sequence[Binding],
    *,
    devices: Sequence[str],
    filter_handle: int | None,
    told_to: int,
    processes: int | None,
    is_privileged: bool,
) -> list[str]:
    """Return the arguments of bwrap that run ``argv``.

    Args:
        argv: The program and its arguments, which name files by their paths inside.
        bindings: What it sees.
        devices: Device files that it may use.
        filter_handle: An open file with the filter of calls; None: there is none.
        told_to: An open file to which bwrap tells what it started.
        processes: How many processes and threads it may have; None: that is not limited from inside.
        is_privileged: Whether namespaces are made with root's rights and not within a user namespace.

    Raises:
        ToolMissingError: bwrap, the program, or one that it takes to start it so, is not installed.
    """
    needs = needs_of(argv[0])
    entry, helpers = _entry(processes, is_privileged=is_privileged)
    words = [process.find_tool("bwrap"), *(_OWN_NAMESPACES if is_privileged else _USER_NAMESPACE)]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if is_privileged:
        # All but the first are given up by `setpriv`.
        for right in ("DAC_OVERRIDE", "SETUID", "SETGID", "SETPCAP"):
            words += ["--cap-add", f"CAP_{right}"]
    tree = _tree(needs, *(needs_of(helper) for helper in helpers))
    tree += [("--dev-bind-try", device, device) for device in devices]
    tree += [("--bind" if each.is_written else "--ro-bind", each.outside, each.inside) for each in bindings]
    # Where programs look for what is mounted (btrfs insists): nothing is.
    tree.append(("--dev-bind-try", "/dev/null", "/proc/self/mounts"))
    for folder in _folders(place for _, _, place in tree):
        words += ["--dir", folder]
    words += [word for entry in tree for word in entry]
    words += ["--remount-ro", "/", "--chdir", "/", "--info-fd", str(told_to)]
    if filter_handle is not None:
        words += ["--seccomp", str(filter_handle)]
    return [*words, "--", *entry, needs.program, *argv[1:]]


def _tree(*all_needs: Needs) -> list[tuple[str, str, str]]:
    """Return how, what and where."""
    trees = dict.fromkeys(tree for needs in all_needs for tree in needs.trees)
    links = dict.fromkeys(pair for needs in all_needs for pair in needs.links)
    covered = tuple(f"{tree}/" for tree in trees)
    programs = dict.fromkeys(needs.program for needs in all_needs if not needs.program.startswith(covered))
    return [
        *(("--ro-bind", tree, tree) for tree in (*trees, *programs)),
        *(("--symlink", target, link) for link, target in links),
    ]


def _folders(places: Iterable[str]) -> list[str]:
    # bwrap would make them itself, for their owner alone: a program that asks whether it may use a file is told no.
    folders = {str(parent) for place in places for parent in PurePosixPath(place).parents}
    return sorted(folders - {"/"})


def can_limit_processes() -> bool:
    """Return whether a limit on processes can be set inside."""
    return shutil.which("prlimit", path=process.search_path()) is not None


def _entry(processes: int | None, *, is_privileged: bool) -> tuple[list[str], list[str]]:
    """Return what stands before the program, and which programs that takes.

    The limit on processes is set inside: there it counts those of the cage alone (Linux 5.14; before, all of the user).
    """
    entry: list[str] = []
    helpers: list[str] = []
    if processes is not None:
        helpers.append(process.find_tool("prlimit"))
        limit = process_limit(processes, is_privileged=is_privileged)
        entry += [needs_of(helpers[-1]).program, f"--nproc={limit}", "--"]
    if is_privileged:
        helpers.append(process.find_tool("setpriv"))
        entry += [needs_of(helpers[-1]).program, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        entry += [f"--{which}=-all,+dac_override" for which in ("inh-caps", "ambient-caps", "bounding-set")]
        entry += ["--no-new-privs", "--"]
    return entry, helpers


def process_limit(processes: int, *, is_privileged: bool) -> int:
    """Return how many processes and threads its user may have, so that a program may have ``processes`` of them."""
    user = NOBODY if is_privileged else os.geteuid()
    wanted = processes + tasks_of(user)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def tasks_of(user: int) -> int:
    """Return how many processes and threads a user has on this machine, as far as they can be seen."""
    count = 0
    with os.scandir("/proc") as entries:
        for entry in entries:
            try:
                if entry.name.isdecimal() and entry.stat().st_uid == user:
                    count += max(1, os.stat(f"{entry.path}/task").st_nlink - 2)  # noqa: PTH116 - of all processes
            except OSError:
                # It has ended.
                continue
    return count
