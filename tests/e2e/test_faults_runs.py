# SPDX-License-Identifier: Apache-2.0
"""Runs that are ended by a signal in the middle of a download, and many runs at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from coppice.testing.images import MIB
from coppice.testing.oracle import Oracle
from coppice.testing.server import serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
PIECES = 40


class Slow:
    """Serves a file in pieces, with ranges, and counts the bytes that it gave away."""

    def __init__(self, data) -> None:
        self.data, self.given, self.seconds = data, 0, 20.0

    def __call__(self, talk) -> None:
        begin = 0
        asked = talk.handler.headers.get("Range", "")
        if asked.startswith("bytes="):
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
        head = {"Content-Length": str(len(self.data) - begin), "ETag": '"one"', "Accept-Ranges": "bytes"}
        if begin:
            head["Content-Range"] = f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}"
        talk.head(206 if begin else 200, head)
        step = len(self.data) // PIECES + 1
        for start in range(begin, len(self.data), step):
            piece = self.data[start : start + step]
            talk.body(piece)
            self.given += len(piece)
            if self.seconds and not talk.pause(self.seconds / PIECES):
                return


@pytest.fixture
def slow(site, kit, tmp_path):
    """Have version 2 wait at a slow server."""
    data = kit.tiny_qcow2(tmp_path, size_bytes=8 * MIB, seed=2, full=True)
    site.renew(site.first, data, "2")
    site.next_version()
    site.publish()
    made = Slow(data)
    site.server.set(f"/lists/images/{site.first['dc:identifier']}-2.qcow2", made)
    return made


@pytest.mark.threat("T82")
@pytest.mark.parametrize("command", [("sync",), ("cache", "fetch", "--refresh")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_download_ends_the_run_soon_and_the_next_one_goes_on(
    site, slow, kit, number, command
):
    code = 143 if number == signal.SIGTERM else 130
    oracle = Oracle(state=site.state, cloud=site.cloud)
    oracle.disks = frozenset(each.disk for each in oracle.registered())
    oracle.plant()
    with kit.running(site.start("--json", *command)) as child:
        kit.wait_until(lambda: slow.given > len(slow.data) // 4, 60)
        began = time.monotonic()
        os.kill(child.pid, number)
        stdout, stderr = child.communicate(timeout=30)
        assert time.monotonic() - began < 5
    assert child.returncode == code, stdout + stderr
    ended = kit.Ended(["--json", *command], child.returncode, stdout, stderr)
    assert ended.codes == ["interrupted"]
    oracle.check_after_fault()
    (partial,) = (site.state / "cache" / "partial").glob("sha512-*.partial")
    kept = partial.stat().st_size
    assert 0 < kept < len(slow.data)
    slow.seconds = 0
    assert site.run("--json", *command).code == 0
    # What was written stays, to the byte: that is where the next run goes on.
    asked = [each.headers.get("Range") for each in site.server.requests if each.path.endswith("-2.qcow2")]
    assert asked[-1] == f"bytes={kept}-{len(slow.data) - 1}"
    assert site.sync().code == 0
    oracle.disks |= {each.disk for each in oracle.registered()}
    oracle.check_after_fault()
    assert sorted(each.version for each in oracle.registered() if each.is_current) == ["2"]


@pytest.mark.threat("T84")
@pytest.mark.parametrize("many", [2, 20])
def test_of_many_runs_at_once_one_works_and_the_others_say_so_or_wait(site, kit, many):
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    name = f"/lists/images/{site.first['dc:identifier']}-2.qcow2"
    site.server.set(name, serve(site.publisher.files[name.rpartition("/")[2]]))
    commands = [("sync",), ("cache", "fetch", "--refresh"), ("sync", "--wait", "120"), ("subscription", "refresh")]
    earlier = len(site.server.requests)
    children = [site.start("--json", *commands[number % len(commands)]) for number in range(many)]
    codes = []
    for child in children:
        stdout, stderr = child.communicate(timeout=240)
        assert "Traceback" not in stderr, stderr
        assert child.returncode in {0, 75}, stdout + stderr
        codes.append(child.returncode)
    assert 0 in codes
    assert all(code == 0 for number, code in enumerate(codes) if commands[number % len(commands)][-1] == "120")
    oracle = Oracle(state=site.state, cloud=site.cloud)
    oracle.disks = frozenset(each.disk for each in oracle.registered())
    assert site.sync().code == 0
    oracle.check_after_fault()
    available = [(each.image, each.version) for each in oracle.registered() if each.state == "available"]
    assert available == [(site.first["dc:identifier"], "2")]
    fetched = [each for each in site.server.requests[earlier:] if each.path == name and each.method == "GET"]
    # Runs that find it locked wait for whoever fetches it, and then find it.
    assert len(fetched) == 1, [each.headers for each in fetched]
    assert site.leftovers() == []
