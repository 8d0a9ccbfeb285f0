# SPDX-License-Identifier: Apache-2.0
"""There is always a version to start: in each cloud, through updates during which whatever can go wrong does.

One site keeps four clouds fresh by ``coppice sync``, as a process of its own. That is killed at any moment; Glance is
asked through a proxy that fails, the front-end of OpenNebula fails, its copies fail, libvirtd is killed and started
again. A user of each cloud looks all the time for a version that can be started.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import pytest

from coppice.testing.cloud_user import CloudUser
from coppice.testing.fault_proxy import (
    answers_after,
    answers_before,
    cuts_after,
    cuts_answer,
    cuts_before,
    cuts_upload,
    stalls,
)
from coppice.testing.opennebula.faults import Act, Copying, Fault, When
from coppice.testing.site_world import World
from coppice.testing.used_clouds import UsedDirectory
from coppice.testing.used_servers import UsedLibvirt, UsedOpenNebula, UsedOpenStack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.testing.libvirtd import Libvirtd
    from coppice.testing.openstack import OpenStack

pytestmark = [pytest.mark.integration, pytest.mark.threat("T90"), pytest.mark.timeout(3600)]
RUN_SECONDS = 300
SOAK_SEED, SEED = 20, 4


class Trouble:
    """What goes wrong during a run, by chance."""

    def __init__(self, seed: int, openstack: UsedOpenStack, opennebula: UsedOpenNebula, libvirt: UsedLibvirt) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - what goes wrong when can be had again
        self.openstack, self.opennebula, self.libvirt = openstack, opennebula, libvirt
        self.done: dict[str, int] = {}

    def begin(self) -> None:
        """Set faults in Glance and OpenNebula."""
        for _ in range(self.chance.randrange(1, 4)):
            self._in_glance()
        for _ in range(self.chance.randrange(1, 3)):
            self._in_opennebula()

    def end(self) -> None:
        """Let all go well again."""
        self.openstack.faults.clear()
        self.opennebula.simulator.faults.clear()

    def run(self, world: World, seconds: float) -> None:
        """Run a sync that is killed, or during which libvirtd is; or that only meets the faults.

        Args:
            world: The site.
            seconds: How long an undisturbed run takes.
        """
        child = world.start("sync")
        try:
            kind = self.chance.choice(["kill", "kill", "libvirtd", "nothing"])
            moment = time.monotonic() + self.chance.uniform(0.2, 1.1) * seconds
            while time.monotonic() < moment and child.poll() is None:
                time.sleep(0.01)
            if kind == "kill":
                self._count("sync killed" if world.kill(child) else "sync ended before it was killed")
            elif kind == "libvirtd":
                self._count("libvirtd killed")
                self.libvirt.libvirtd.kill()
                self.libvirt.libvirtd.resume()
            said, _ = child.communicate(timeout=RUN_SECONDS)
            assert "Traceback" not in said
        finally:
            world.kill(child)
            child.communicate(timeout=60)

    def _in_glance(self) -> None:
        chance = self.chance
        times, body = chance.choice([1, 3, None]), b"<html>bad gateway</html>"
        what, fault = chance.choice(
            [
                ("500 before", answers_before(500, times=times)),
                ("502 before", answers_before(502, body, times=times)),
                ("503 before", answers_before(503, times=times)),
                ("500 after", answers_after(500, times=times)),
                ("504 after", answers_after(504, times=times)),
                ("cut before", cuts_before(times=times)),
                ("cut after", cuts_after(times=times)),
                ("cut upload", cuts_upload(5000, times=times)),
                ("cut answer", cuts_answer(50, times=times)),
                ("late", stalls(0.5, times=times)),
            ]
        )
        self._count(f"Glance: {what}")
        self.openstack.faults.add(fault, nth=chance.randrange(1, 25))

    def _in_opennebula(self) -> None:
        chance, faults = self.chance, self.opennebula.simulator.faults
        if chance.random() < 1 / 4:
            what = chance.choice(["error", "slow"])
            faults.copying = Copying(seconds=2) if what == "slow" else Copying(error="No space left on device")
            self._count(f"OpenNebula: copy {what}")
            return
        act = chance.choice([Act.CUT, Act.CUT_ANSWER, Act.STATUS, Act.REFUSE])
        self._count(f"OpenNebula: {act}")
        faults.add(
            Fault(
                method="*",
                act=act,
                when=chance.choice([When.BEFORE, When.AFTER]),
                skip=chance.randrange(30),
                times=chance.choice([1, 3, None]),
                code=0x2000 if act is Act.REFUSE else chance.choice([500, 502, 503]),
            )
        )

    def _count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1


def run_whole(world: World) -> float:
    """Run a sync that nothing disturbs; it must end well. Return how many seconds it took."""
    begun = time.monotonic()
    child = world.start("sync")
    try:
        said, _ = child.communicate(timeout=RUN_SECONDS)
    finally:
        world.kill(child)
        child.communicate(timeout=60)
    assert child.returncode == 0, said
    return time.monotonic() - begun


@pytest.fixture
def clouds(
    openstack: OpenStack, libvirtd: Libvirtd, tmp_path: Path
) -> Iterator[tuple[UsedDirectory, UsedLibvirt, UsedOpenNebula, UsedOpenStack]]:
    opennebula = UsedOpenNebula(tmp_path / "one")
    with opennebula.running():
        yield (
            UsedDirectory(tmp_path / "cloud"),
            UsedLibvirt(libvirtd),
            opennebula,
            UsedOpenStack(openstack, "faulty"),
        )
    openstack.faults.clear()


def check(
    clouds: tuple[UsedDirectory, UsedLibvirt, UsedOpenNebula, UsedOpenStack], path: Path, *, updates: int, seed: int
) -> None:
    directory, libvirt, opennebula, openstack = clouds
    world = World(path, *clouds, grace_days=0, plan="keep_versions = 1")
    trouble = Trouble(seed, openstack, opennebula, libvirt)
    debian = world.add("Debian 12")
    image = debian["dc:identifier"]
    world.publish()
    world.subscribe()
    seconds = run_whole(world)
    runs = 0
    users = [CloudUser(cloud, image) for cloud in clouds]
    try:
        with users[0], users[1], users[2], users[3]:
            for version in range(2, updates + 2):
                world.renew(debian, str(version))
                world.publish()
                for _ in range(trouble.chance.randrange(1, 3)):
                    trouble.begin()
                    trouble.run(world, seconds)
                    runs += 1
                trouble.end()
                seconds = run_whole(world)
                assert {cloud.name: cloud.usable(image) for cloud in clouds} == dict.fromkeys(
                    (cloud.name for cloud in clouds), str(version)
                )
            # While a version comes, its predecessors wait for their removal.
            run_whole(world)
    finally:
        world.close()
    print(f"seed {seed}: {updates} updates, {runs} disturbed runs, {json.dumps(trouble.done, sort_keys=True)}")  # noqa: T201 - figures of the long form
    for user in users:
        print(f"{user.cloud.name}: {user.looks} looks, {user.unanswered} unanswered, {user.versions}")  # noqa: T201 - the same
    assert {user.cloud.name: user.without for user in users} == {cloud.name: [] for cloud in clouds}
    for user in users:
        assert user.looks > updates
        assert user.versions[-1] == str(updates + 1)
        assert set(user.versions) <= {str(number) for number in range(1, updates + 2)}
    # Nothing was left: the newest version, the one that is kept, and no more.
    for cloud in clouds:
        assert cloud.states() == {image: {str(updates): "superseded", str(updates + 1): "available"}}
    # A front-end leaves what it had of a copy that failed; that is told of, and nobody's to remove but its own.
    assert {path.read_bytes() for path in opennebula.simulator.stray_files()} <= {b"begun"}
    assert len(opennebula.simulator.images()) == 2
    assert len(openstack.owned()) == 2
    assert len(list(libvirt.libvirtd.scratch_files())) == 2
    assert not [each for each in directory.path.iterdir() if each.name.startswith(".")]


def test_through_some_updates_with_faults_and_kills_each_cloud_always_has_a_version_to_start(
    clouds: tuple[UsedDirectory, UsedLibvirt, UsedOpenNebula, UsedOpenStack], tmp_path: Path
):
    check(clouds, tmp_path, updates=2, seed=SEED)


@pytest.mark.soak
def test_through_twenty_updates_with_faults_and_kills_each_cloud_always_has_a_version_to_start(
    clouds: tuple[UsedDirectory, UsedLibvirt, UsedOpenNebula, UsedOpenStack], tmp_path: Path
):
    check(clouds, tmp_path, updates=20, seed=SOAK_SEED)
