# SPDX-License-Identifier: Apache-2.0
"""Let a tree for other processors run its own programs on this machine, by an emulator that the kernel starts for them.

Which programs an emulator is for stands in a list of the kernel's (binfmt_misc). This machine's own list is used where
the emulator is in it, and never changed: else the tree gets a list of its own, which Linux keeps for each user
namespace since 6.7, and which is gone with it.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import BuildError, ToolFailedError
from coppice.process import find_tool, run

if TYPE_CHECKING:
    from coppice.factory.bootstrap.processors import Processor

RULES = Path("/usr/lib/binfmt.d")
KNOWN = Path("/proc/sys/fs/binfmt_misc")
_MOUNT_SECONDS = 60.0
_MOST_RULE_BYTES = 1920


def is_foreign(processor: Processor, *, machine: str | None = None) -> bool:
    """Tell whether programs for ``processor`` are emulated here; ``machine``: as `emulation_rule`."""
    return processor.architecture.value != (machine or platform.machine())


def emulation_rule(
    processor: Processor, *, machine: str | None = None, rules: Path = RULES, known: Path = KNOWN
) -> str:
    """Return what makes the emulator of ``processor`` known to a kernel; empty: there is nothing to be made known.

    Args:
        processor: That programs are for.
        machine: What this machine is; None: as the kernel says.
        rules: Where emulators say what they are for.
        known: The list of this machine.

    Raises:
        ToolMissingError: The emulator is not installed.
        BuildError: It cannot be used for trees.
    """
    architecture = processor.architecture.value
    if not is_foreign(processor, machine=machine) or _is_known(known / f"qemu-{architecture}"):
        return ""
    find_tool(f"qemu-{architecture}-static")
    try:
        rule = (rules / f"qemu-{architecture}.conf").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        rule = ""
    # With F the kernel opens the emulator now: programs in the tree do not see this machine's files.
    if not rule.startswith(f":qemu-{architecture}:M:") or "F" not in rule.rpartition(":")[2] or "\n" in rule:
        raise BuildError(
            f"{rules} does not say how programs for {architecture} are run",
            resolution="Install Debian's package qemu-user-static anew, or make its emulator known to this machine.",
        )
    return rule[:_MOST_RULE_BYTES]


def make_known(rule: str) -> None:
    """Make an emulator known in this process's user namespace, which is no other's.

    Raises:
        BuildError: The kernel does not keep such a list for it.
    """
    try:
        run(["mount", "--no-mtab", "-t", "binfmt_misc", "binfmt_misc", KNOWN], timeout_seconds=_MOUNT_SECONDS)
        (KNOWN / "register").write_text(f"{rule}\n", encoding="ascii")
    except (ToolFailedError, OSError) as problem:
        name = rule.split(":")[1]
        raise BuildError(
            f"{name} cannot be made known for this build alone, which needs Linux 6.7 or newer: {problem}. Make it "
            "known to this machine: apt-get install qemu-user-static binfmt-support"
        ) from problem


def _is_known(entry: Path) -> bool:
    try:
        lines = entry.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
    return "enabled" in lines and "F" in flags
