# SPDX-License-Identifier: Apache-2.0
"""Run programs of a tree, in the tree: own mounts, processes and host name; nothing else of this machine is seen.

It is `bwrap` that shuts them in. They are root there, with the few rights that packages and scripts need; they cannot
make devices or mounts, and what they left running ends with them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cage.ending import Ending
from coppice.errors import BuildError, ToolFailedError, ToolTimeoutError
from coppice.process import find_tool, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from coppice.process import Completed

MATERIALS = "/run/coppice"
SEEN = "seen"
FIRST_PROCESS = "first-process"
MAX_LOG_BYTES = 16 * 1024 * 1024
_SECONDS = 300.0
_RIGHTS = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
# root may write here without any further right, and bwrap leaves /proc/sys as it is.
_ONLY_READ = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_HIDDEN_FOLDERS = ("/proc/acpi", "/proc/scsi")
_HIDDEN_FILES = ("/proc/kcore", "/proc/keys", "/proc/mtrr", "/proc/timer_list")
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy")


class FloodError(Exception):
    """A program says more than is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCage:
    """A tree whose programs can be run.

    Attributes:
        root: Of the tree.
        materials: Has what is seen, not written, as `MATERIALS` (`SEEN`), and the name of what will be the first
            process (`FIRST_PROCESS`).
        epoch: What is made in the tree says that it is from then.
        tell: Gets what programs say, as it comes.
    """

    root: Path
    materials: Path
    epoch: int
    tell: Callable[[str], None]

    def ask(self, *words: str, ok: Sequence[int] = (0,), input_bytes: bytes | None = None) -> Completed:
        """Run a program that needs no network, and return what it said; it is not told to anybody.

        Raises:
            BuildError: It failed.
        """
        try:
            return run(
                self._words(words, network=False),
                timeout_seconds=_SECONDS,
                env=self._environment({}),
                whole_environment=True,
                input_bytes=input_bytes,
                ok=ok,
            )
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise BuildError(f"{words[0]} failed in the tree: {problem.message}", details=problem.details) from problem

    def perform(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str,
        timeout_seconds: float,
        ok: Sequence[int],
    ) -> Completed:
        """Run a program with the build's network, and tell what it says.

        Raises:
            ToolFailedError: It ended badly.
            ToolTimeoutError: It did not end in time.
            FloodError: It said more than `MAX_LOG_BYTES`.
        """
        said = 0

        def take(piece: str) -> None:
            nonlocal said
            said += len(piece)
            if said > MAX_LOG_BYTES:
                raise FloodError
            self.tell(piece)

        # The tree is not left alone before the last of its processes has ended.
        with Ending() as ending:
            return run(
                self._words(words, network=True, folder=folder, told_to=ending.handed_on),
                timeout_seconds=timeout_seconds,
                env=self._environment(environment),
                whole_environment=True,
                ok=ok,
                on_output=take,
                handed_on=(ending.handed_on,),
                stopped=ending.watch(None),
            )

    def _words(
        self, words: Sequence[str], *, network: bool, folder: str = "/", told_to: int | None = None
    ) -> list[str | Path]:
        argv: list[str | Path] = [find_tool("bwrap"), "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
        argv += ["--unshare-cgroup-try", "--hostname", "localhost", "--die-with-parent", "--new-session"]
        argv += [] if network else ["--unshare-net"]
        argv += [] if told_to is None else ["--info-fd", str(told_to)]
        argv += ["--cap-drop", "ALL"]
        for right in _RIGHTS:
            argv += ["--cap-add", f"CAP_{right}"]
        argv += ["--bind", self.root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/sys", "--tmpfs", "/run"]
        argv += _covers()
        for place in ("/tmp", "/var/tmp"):  # noqa: S108 - of the cage
            argv += ["--perms", "1777", "--tmpfs", place]
        argv += ["--dir", "/run/lock", "--ro-bind", self.materials / SEEN, MATERIALS]
        # Puppet and others look here for what will start services in the booted appliance.
        argv += ["--ro-bind", self.materials / FIRST_PROCESS, "/proc/1/comm"]
        if network:
            # Where systemd-resolved is installed, the tree's /etc/resolv.conf leads here. Folders that bwrap makes by
            # itself are for root alone, and apt fetches as another.
            argv += ["--dir", "/run/systemd", "--dir", "/run/systemd/resolve"]
            argv += ["--ro-bind-try", "/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"]
        return [*argv, "--chdir", folder, "--", *words]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "DEBIAN_FRONTEND": "noninteractive",
            "SOURCE_DATE_EPOCH": str(self.epoch),
            # Nothing is started in a tree: units are only linked.
            "SYSTEMD_OFFLINE": "1",
            **passed_on,
            **more,
        }


def _covers() -> list[str]:
    covers: list[str] = []
    for path in filter(os.path.exists, _ONLY_READ):
        covers += ["--ro-bind", path, path]
    for path in filter(os.path.isdir, _HIDDEN_FOLDERS):
        covers += ["--tmpfs", path, "--remount-ro", path]
    for path in filter(os.path.isfile, _HIDDEN_FILES):
        covers += ["--ro-bind", "/dev/null", path]
    return covers
