# SPDX-License-Identifier: Apache-2.0
"""``coppice sync`` with downloads and a delta, ended with SIGKILL anywhere: it converges, and no byte comes twice.

By the server's count: what the next run is sent, and what lay on the disk when the run before was killed, are together
no more than what an undisturbed run is sent.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from coppice.cache.spool import Spool, note_of
from coppice.formats.hepix_delta import write_delta
from coppice.testing.behaviours import Conversation, Ranged
from coppice.testing.deltas import make_delta
from coppice.testing.images import MIB

pytestmark = [pytest.mark.e2e, pytest.mark.threat("T79")]

DISK_BYTES = 8 * MIB
BLOCK = 4096
RUN_SECONDS = 1.2
SEED = 20_261_125


class Counted(Conversation):
    """A conversation that says how many bytes of a body went out."""

    def __init__(self, talk, count) -> None:
        super().__init__(talk.handler, talk.stopping)
        self.count = count

    def body(self, data):
        super().body(data)
        self.count(len(data))


class Counting:
    """Serves files at a pace and counts what goes out, by path."""

    def __init__(self, server) -> None:
        self.server = server
        self.sent = Counter()
        self.files = {}
        self.seconds = 0.0
        self._lock = threading.Lock()

    def put(self, path, data):
        self.files[path] = data
        self.server.set(path, lambda talk: self._answer(talk, path, data))

    def _answer(self, talk, path, data):
        pace = max(1, int(len(data) / self.seconds)) if self.seconds else None

        def count(size):
            with self._lock:
                self.sent[path] += size

        Ranged(data=data, bytes_per_second=pace)(Counted(talk, count))

    def taken(self):
        """Return what went out since it was asked last."""
        # A connection whose client was killed is noticed a moment later.
        time.sleep(0.1)
        with self._lock:
            taken, self.sent = self.sent, Counter()
        return taken


def as_qcow2(directory, raw):
    source, made = directory / "x.raw", directory / "x.qcow2"
    source.write_bytes(raw)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(made)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return made.read_bytes()


@pytest.fixture
def world(kit, tmp_path, server):
    """A site that has version 1 of an image; version 2 is offered with a delta, and two more images whole."""
    noise = random.Random(SEED)  # noqa: S311 - content for tests
    old = noise.randbytes(DISK_BYTES // 2) + bytes(DISK_BYTES // 2)
    new = bytearray(old)
    for number in range(0, DISK_BYTES // 2 // BLOCK, 3):
        new[number * BLOCK : (number + 1) * BLOCK] = noise.randbytes(BLOCK)
    site = kit.Site(tmp_path / "seed", server, cloud='formats = ["raw"]')
    counting = Counting(server)
    site.publisher.images.clear()
    site.publisher.files.clear()
    first = site.publisher.add_image(title="Changing", data=as_qcow2(tmp_path, old))
    site.publish()
    site.subscribe()
    site.synced()
    site.renew(first, as_qcow2(tmp_path, bytes(new)), "2")
    made = make_delta(bytes(new), origins=[old], uri=server.url("/deltas/"), frame_blocks=4)
    first["coppice:delta"] = write_delta(made.delta)
    for number in (2, 3):
        site.publisher.add_image(
            title=f"Image {number}", data=kit.tiny_qcow2(tmp_path, size_bytes=MIB * 4, seed=number, full=True)
        )
    site.next_version()
    site.publish()
    for name, data in site.publisher.files.items():
        counting.put(f"/lists/images/{name}", data)
    for uri, data in made.files.items():
        counting.put("/" + uri.split("/", 3)[3], data)
    return site, counting


def kept(site):
    """Return how many bytes lie half-fetched: of whole files by what they become, and of all of the delta together."""
    partial = site.state / "cache" / "partial"
    whole, delta = {}, 0
    for path in partial.rglob("*"):
        if not path.is_file() or path.suffix in {".progress", ".note"}:
            continue
        if note_of(path).exists():
            with Spool(path, path.stat().st_size) as spool:
                delta += sum(length for _, length in spool.whole)
        elif path.name.startswith("sha512-"):
            whole[path.name.removeprefix("sha512-").removesuffix(".partial")] = path.stat().st_size
        elif "deltas" in path.parts and path.with_name(path.name + ".progress").exists():
            delta += path.stat().st_size
    return whole, delta


def essence(site):
    """Return what two runs that end in the same state have in common: what is known of seeds can be lost.

    A record that was being written when the run was killed leaves its half; it goes when it is an hour old, and the
    record is written anew.
    """
    found = site.essence()
    found["cache"] = {
        path: what
        for path, what in found["cache"].items()
        if not path.startswith("blocks/") and not is_half_of_record(site.state / "cache" / path)
    }
    return found


def is_half_of_record(path):
    return path.parent.parent.name == "objects" and path.name.startswith(".coppice-") and path.stat().st_size < 16384


def killed(kit, site, counting, seconds):
    """Start a sync and kill it, with all of its group, so long after the first byte came; False: it ended before."""
    with kit.running(site.start("--json", "sync")) as child:
        while not counting.sent and child.poll() is None:
            time.sleep(0.01)
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(timeout=30)
            return True
    assert child.returncode == 0
    return False


def check_point(kit, world, place, seconds, expected):
    """Kill at a moment and run again; return what was kept, for the record."""
    seed, counting = world
    site = seed.copy_to(place)
    counting.seconds = RUN_SECONDS
    was_killed = killed(kit, site, counting, seconds)
    counting.taken()
    whole, delta = kept(site)
    counting.seconds = 0
    site.synced()
    sent = counting.taken()
    found, wanted = essence(site), expected["essence"]
    cache = {
        path: (found["cache"].get(path), wanted["cache"].get(path))
        for path in found["cache"].keys() | wanted["cache"].keys()
        if found["cache"].get(path) != wanted["cache"].get(path)
    }
    assert cache == {}, f"killed after {seconds:.2f} s"
    assert found == wanted, f"killed after {seconds:.2f} s"
    assert [path for path in site.leftovers() if not is_half_of_record(path)] == []
    for image in site.publisher.images:
        path = "/" + image["hv:uri"].split("/", 3)[3]
        had = whole.get(image["sl:checksum:sha512"], 0)
        assert sent[path] + had <= expected["sent"][path], (path, had)
    deltas = sum(count for path, count in sent.items() if path.startswith("/deltas/"))
    assert deltas + delta <= expected["deltas"], delta
    print(  # noqa: T201 - what was measured
        f"killed after {seconds:.2f} s: {was_killed}, {sum(whole.values())} bytes of files and {delta} of the delta "
        f"kept, {sum(sent.values())} sent afterwards"
    )
    return was_killed, sum(whole.values()) + delta


@pytest.mark.parametrize("points", [pytest.param(3, id="3"), pytest.param(30, id="30", marks=pytest.mark.soak)])
@pytest.mark.timeout(1200)
def test_no_byte_that_was_written_is_fetched_twice_wherever_a_sync_is_killed(kit, tmp_path, world, points):
    seed, counting = world
    counting.seconds = RUN_SECONDS
    undisturbed = seed.copy_to(tmp_path / "undisturbed")
    counting.taken()
    undisturbed.synced()
    sent = counting.taken()
    deltas = sum(count for path, count in sent.items() if path.startswith("/deltas/"))
    (changing,) = (each for each in seed.publisher.images if each["dc:title"] == "Changing")
    # The delta served: its file was not asked for.
    assert deltas > 0
    assert sent["/" + changing["hv:uri"].split("/", 3)[3]] == 0
    expected = {"essence": essence(undisturbed), "sent": sent, "deltas": deltas}

    moments = random.Random(SEED)  # noqa: S311 - moments, told when one fails
    seen = []
    for number in range(points * 2):
        # Most while bytes come, some while they are verified, converted and registered.
        moment = RUN_SECONDS * moments.uniform(0.0, 3.0)
        seen.append(check_point(kit, world, tmp_path / "killed" / str(number), moment, expected))
        if sum(was_killed for was_killed, _ in seen) >= points:
            break
    assert sum(was_killed for was_killed, _ in seen) >= points
    assert any(count for _, count in seen)
