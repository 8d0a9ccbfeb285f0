# SPDX-License-Identifier: Apache-2.0
"""Encrypted disks, made by QEMU (tests)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_TRIES: Final = 100
_OPTIONS: Final = {
    "luks": "key-secret=s,iter-time=10",
    "qcow2": "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
}
_UNMEASURED: Final = "Unable to get accurate CPU usage"


def encrypted_disk(path: Path, disk_format: str, size: str) -> None:
    """Make an empty encrypted disk.

    QEMU measures how fast this machine derives keys. Where the kernel counts processor time in ticks, a measure may
    fall between two of them, and QEMU gives up: that says nothing of the disk, and the next try measures anew.

    Args:
        path: Where to.
        disk_format: "luks", or "qcow2" with LUKS within.
        size: As `qemu-img` takes it.

    Raises:
        AssertionError: QEMU cannot make it.
    """
    secret = ("--object", "secret,id=s,data=x")
    argv = ["qemu-img", "create", "-q", "-f", disk_format, *secret, "-o", _OPTIONS[disk_format]]
    for _ in range(_TRIES):
        ended = subprocess.run([*argv, str(path), size], capture_output=True, text=True, check=False, timeout=60)
        if _UNMEASURED not in ended.stderr:
            break
    assert ended.returncode == 0, ended.stderr
