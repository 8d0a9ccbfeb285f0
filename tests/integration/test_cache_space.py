# SPDX-License-Identifier: Apache-2.0
"""A cache on a file system of 64 MiB: what does not fit is not fetched, and a disk that others fill is left clean.

Each test runs in a user and mount namespace of its own, where it may mount a tmpfs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.model.checksum import Checksum
from coppice.testing import server as behave
from coppice.testing.behaviours import Ranged
from coppice.testing.images import MIB
from coppice.testing.server import LoopbackServer

pytestmark = [pytest.mark.integration, pytest.mark.threat("T81")]

INSIDE = """
import json, subprocess, sys
from pathlib import Path
sys.path.insert(0, {root!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", {place!r}], check=True)
from coppice.cache.store import ImageCache
from coppice.errors import CoppiceError
from coppice.testing.client import loopback_client
from coppice.testing.desired import desired_image
from dataclasses import replace
from coppice.model.checksum import Checksum

def used():
    import os
    figures = os.statvfs({place!r})
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize

place = Path({place!r})
cache = ImageCache(place / "cache", client=loopback_client(read_timeout_seconds=10.0))
listed = replace(
    desired_image().listed, uri={uri!r}, size_bytes={size}, checksum=Checksum.parse({checksum!r})
)
said = {{}}
{before}
try:
    cache.obtain(desired_image().key, listed)
except CoppiceError as problem:
    said["code"] = problem.code
said["used"] = used() - said.get("others", 0)
said["partial"] = sorted(path.name for path in (place / "cache" / "partial").glob("*")) if place.exists() else []
print(json.dumps(said))
"""

FILL = """
import threading, time
def fill():
    partial = place / "cache" / "partial"
    while not any(path.stat().st_size > 1024**2 for path in partial.glob("*.partial")):
        time.sleep(0.01)
    with (place / "others").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1024**2))
        except OSError:
            pass
    said["others"] = (place / "others").stat().st_size
threading.Thread(target=fill, daemon=True).start()
"""


def inside(directory, **facts):
    place = directory / "disk"
    place.mkdir()
    root = str(Path(__file__).parents[2] / "src")
    program = INSIDE.format(root=root, place=str(place), before=facts.pop("before", ""), **facts)
    argv = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_image_that_is_larger_than_the_disk_is_not_asked_for(tmp_path):
    with LoopbackServer() as server:
        uri = server.set("image", behave.endless())
        said = inside(tmp_path, uri=uri, size=100 * MIB, checksum="sha512:" + "0" * 128)
        assert server.requests == []
    assert said["code"] == "storage-full"
    assert said["partial"] == []


def test_a_disk_that_others_fill_meanwhile_is_a_clean_failure_and_is_not_kept_full(tmp_path):
    data = bytes(range(256)) * (40 * MIB // 256)
    with LoopbackServer() as server:
        uri = server.set("image", Ranged(data=data, bytes_per_second=20 * MIB))
        said = inside(tmp_path, uri=uri, size=len(data), checksum=str(Checksum.of(data)), before=FILL)
    assert said["code"] == "storage-full"
    assert said["partial"] == []
    assert said["used"] < MIB
