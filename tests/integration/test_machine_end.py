# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

START = """
import sys, time
from pathlib import Path
from coppice.factory.machine import Acceleration, Machine, running
from coppice.model.image import DiskFormat
work = Path(sys.argv[1])
machine = Machine(disk=work / "disk.raw", disk_format=DiskFormat.RAW, acceleration=Acceleration.TCG, memory_mib=64,
                  cores=1, seed=work / "disk.raw", uefi=None, ssh_port=None, serial_log=work / "serial.log")
with running(machine, work) as guest:
    (work / "pid").write_text(str(guest._child.pid))
    time.sleep(300)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def eventually(condition, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_machine_does_not_outlive_a_killed_run(tmp_path):
    (tmp_path / "disk.raw").write_bytes(bytes(1024 * 1024))
    parent = subprocess.Popen([sys.executable, "-c", START, tmp_path])
    pid_file = tmp_path / "pid"
    assert eventually(lambda: pid_file.exists() and pid_file.read_text().isdigit())
    pid = int(pid_file.read_text())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    assert eventually(lambda: not is_alive(pid))
