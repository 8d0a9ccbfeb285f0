# SPDX-License-Identifier: Apache-2.0
"""``coppice sync`` ended with SIGKILL all over its run: the next run ends where an undisturbed one does."""

from __future__ import annotations

import os
import signal
import time

import pytest

from coppice.testing.images import MIB

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PIECES = 20
STEPS = {
    "it was fetched": lambda site: len(list(site.state.glob("cache/objects/*/*.json"))) == 2,
    "it was converted": lambda site: len(list(site.state.glob("conversion/objects/*.json"))) == 2,
    "its folder came": lambda site: len(list(site.cloud.glob("debian*/image.json"))) == 2,
    "it became the current one": lambda site: any("-2-" in name for name in startable(site)),
}
RAW_ONLY = 'formats = ["raw"]'


class Pace:
    """How long the server takes for an image; it can be changed between runs."""

    def __init__(self, seconds) -> None:
        self.seconds = seconds

    def serve(self, data):
        def behave(talk):
            talk.head(200, {"Content-Length": str(len(data))})
            step = -(-len(data) // PIECES)
            for start in range(0, len(data), step):
                talk.body(data[start : start + step])
                if self.seconds and not talk.pause(self.seconds / PIECES):
                    return

        return behave

    def apply(self, site):
        for name, data in site.publisher.files.items():
            site.server.set(f"/lists/images/{name}", self.serve(data))


def kill_after(kit, site, seconds):
    """Start a sync and kill it, with all of its group, after some time; False: it had ended before."""
    with kit.running(site.start("--json", "sync")) as child:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.005)
        if child.poll() is not None:
            assert child.returncode == 0
            return False
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=30)
        return True


def progress(site):
    """Say how far a killed run had come."""
    partial = sum(path.stat().st_size for path in site.state.glob("cache/partial/*.partial"))
    counts = {
        "cached": len(list(site.state.glob("cache/objects/*/*.json"))),
        "converted": len(list(site.state.glob("conversion/objects/*.json"))),
        "registered": len(list(site.cloud.glob("*/image.json"))),
        "current": len(list(site.cloud.glob("current/*"))),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items()) + f", {partial} bytes half-fetched"


def timed_sync(site):
    begun = time.monotonic()
    site.synced()
    return time.monotonic() - begun


def killed_at(kit, seed, place, share, seconds):
    """Return a copy of ``seed`` whose sync was killed at a share of its run, and when that was."""
    for attempt in range(4):
        site = seed.copy_to(place / f"{share:.2f}-{attempt}")
        moment = seconds * share * 0.7**attempt
        if kill_after(kit, site, moment):
            return site, moment
    pytest.fail("the run always ended before it was killed")


@pytest.mark.threat("T79")
@pytest.mark.parametrize("points", [pytest.param(4, id="4"), pytest.param(24, id="24", marks=pytest.mark.soak)])
def test_sync_killed_at_some_points_of_its_run_ends_as_an_undisturbed_run_does(kit, tmp_path, server, points):
    seed = kit.Site(tmp_path / "seed", server, cloud=RAW_ONLY)
    for number in (2, 3):
        data = kit.tiny_qcow2(tmp_path, size_bytes=16 * MIB, seed=number)
        seed.publisher.add_image(title=f"Image {number}", data=data)
    seed.publish()
    seed.subscribe()
    pace = Pace(0.6)
    pace.apply(seed)

    undisturbed = seed.copy_to(tmp_path / "undisturbed")
    seconds = timed_sync(undisturbed)
    expected, states = undisturbed.essence(), undisturbed.images()
    assert len(states) == 3
    assert set(states.values()) == {"available"}
    print(f"undisturbed: {seconds:.1f} s, {progress(undisturbed)}")  # noqa: T201 - what was measured

    def kill_and_run_again(share):
        pace.seconds = 0.6
        site, moment = killed_at(kit, seed, tmp_path / "killed", share, seconds)
        where = progress(site)
        pace.seconds = 0
        again = timed_sync(site)
        print(f"killed after {moment:.2f} s ({where}); the next run took {again:.1f} s")  # noqa: T201 - likewise
        assert site.essence() == expected
        assert site.leftovers() == []
        return where

    seen = {kill_and_run_again((number + 0.5) / points) for number in range(points)}
    # A machine that has become busier since a run was measured has come less far at each point: go on behind them.
    for number in range(points, 4 * points):
        if len(seen) >= 2:
            break
        seen.add(kill_and_run_again((number + 0.5) / points))
    assert len(seen) >= 2
    assert undisturbed.sync().data["clouds"][0]["plan"]["actions"] == []


def startable(site):
    """Return the versions that can be started now, by the folder alone."""
    return {path.resolve().parent.name for path in site.cloud.glob("current/*/disk.raw") if path.stat().st_size}


@pytest.mark.threat("T90")
@pytest.mark.parametrize("points", [pytest.param(2, id="2"), pytest.param(12, id="12", marks=pytest.mark.soak)])
def test_while_a_version_replaces_another_there_is_always_one_to_start_wherever_the_run_is_killed(
    kit, tmp_path, server, points
):
    seed = kit.Site(tmp_path / "seed", server, cloud=RAW_ONLY)
    seed.subscribe()
    seed.synced()
    seed.renew(seed.first, kit.tiny_qcow2(tmp_path, size_bytes=16 * MIB, seed=2), "2")
    seed.next_version()
    seed.publish()
    pace = Pace(0.5)
    pace.apply(seed)

    undisturbed = seed.copy_to(tmp_path / "undisturbed")
    begun, seen = time.monotonic(), set()
    with kit.running(undisturbed.start("sync")) as child:
        while child.poll() is None:
            there = startable(undisturbed)
            # The link is replaced in one step: what it leads to may change between two looks, not be absent.
            assert there or startable(undisturbed)
            seen |= there
            time.sleep(0.01)
        assert child.returncode == 0
    seconds = time.monotonic() - begun
    expected = undisturbed.essence()
    assert len(seen) == 2
    assert undisturbed.images() == {("Debian 12", "1"): "superseded", ("Debian 12", "2"): "available"}

    def check(site, told):
        where = progress(site)
        assert len(startable(site)) == 1
        pace.seconds = 0
        site.synced()
        print(f"killed {told} ({where})")  # noqa: T201 - what was measured
        assert site.essence() == expected
        assert site.leftovers() == []

    for number in range(points):
        pace.seconds = 0.5
        site, moment = killed_at(kit, seed, tmp_path / "killed", (number + 0.5) / points, seconds)
        check(site, f"after {moment:.2f} s")
    for told, has_come in STEPS.items():
        site = seed.copy_to(tmp_path / "killed" / told.replace(" ", "-"))
        with kit.running(site.start("sync")) as child:
            while child.poll() is None and not has_come(site):
                pass
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        check(site, f"when {told}")
