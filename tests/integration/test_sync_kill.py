# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.properties import presentation_of
from coppice.errors import LockedError
from coppice.monitor import SILENT
from coppice.schedule.lock import run_lock
from coppice.testing.desired import SITE, content_of, converted_image, desired_image, marker_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

HOLD = """
import sys, time
from pathlib import Path
from coppice.schedule.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

# Counts the calls that change the file system and dies at the one that is asked for.
DIE_AT = """
import os, signal, sys
from pathlib import Path
from coppice.cloud.directory import DirectoryCloud
from coppice.cloud.model import ImageState
from coppice.cloud.properties import presentation_of
from coppice.monitor import SILENT
from coppice.testing.desired import SITE, converted_image, desired_image, marker_of

root, doing, remaining = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}

def count(event, arguments):
    global remaining
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (event in CHANGES or writes) and str(root / "cloud") in str(arguments[0]):
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

cloud = DirectoryCloud("test", SITE, root / "cloud")
desired = desired_image()
converted = converted_image(desired, root / "store")
sys.addaudithook(count)
if doing == "register":
    cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
else:
    (image,) = cloud.describe()
    if doing == "remove":
        cloud.remove(image)
    else:
        cloud.change_state(image, marker_of(desired, state=ImageState.EXPIRED))
print("done")
"""


@pytest.mark.threat("T84")
def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path):
    lock = tmp_path / "run.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"pid {holder.pid},"), run_lock(lock):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with run_lock(lock):
        pass


@pytest.mark.threat("T37")
def test_a_disk_that_another_process_has_open_is_in_use(tmp_path: Path):
    cloud = DirectoryCloud("test", SITE, tmp_path / "cloud")
    desired = desired_image()
    converted = converted_image(desired, tmp_path / "store")
    image = cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    disk = tmp_path / "cloud" / image.cloud_identifier / "disk.qcow2"
    assert not cloud.in_use(image)
    with disk.open("rb") as stream:
        reader = subprocess.Popen(["sleep", "60"], stdin=stream)
    try:
        deadline = time.monotonic() + 10
        while not cloud.in_use(image) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert cloud.in_use(image)
    finally:
        reader.kill()
        reader.wait()
    assert not cloud.in_use(image)


def die_at(root: Path, doing: str, point: int) -> bool:
    argv = [sys.executable, "-c", DIE_AT, str(root), doing, str(point)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
    return ended.returncode == 0


@pytest.mark.threat("T79")
@pytest.mark.parametrize("doing", ["register", "remove", "expire"])
def test_a_directory_cloud_killed_at_any_change_is_described_and_made_whole_by_the_next_run(tmp_path: Path, doing: str):
    desired = desired_image()
    point = 0
    while True:
        point += 1
        root = tmp_path / str(point)
        converted = converted_image(desired, root / "store")
        cloud = DirectoryCloud("test", SITE, root / "cloud")
        if doing != "register":
            cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
        ended = die_at(root, doing, point)
        images = cloud.describe()
        assert len(images) <= 1
        again = cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
        assert again.ready
        assert len(cloud.describe()) == 1
        if again.marker == marker_of(desired):
            disk = root / "cloud" / again.cloud_identifier / "disk.qcow2"
            assert disk.read_bytes() == content_of("debian", "1")
        cloud.remove(again)
        left = [path for path in (root / "cloud").iterdir() if path.name != "current" and any(path.iterdir())]
        assert left == []
        if ended:
            break
    assert point > 5
