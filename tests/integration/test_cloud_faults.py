# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong while a site syncs: the next run converges, and there is always a version to start.

`TABLE` says of each fault in which test each cloud meets it. What a driver alone can be asked stands in its own tests,
and what concerns whole runs stands here: each run is compared with an undisturbed one, which is that of the cloud in
memory that is kept fresh by the same runs; a user looks for a version to start meanwhile.
"""

from __future__ import annotations

import ast
import itertools
import random
import signal
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import CoppiceError, LockedError
from coppice.testing.cloud_user import CloudUser
from coppice.testing.fault_proxy import answers_after, answers_before, cuts_after, cuts_before, cuts_upload, stalls
from coppice.testing.forked import CommandForge
from coppice.testing.opennebula.faults import Act, Copying, Fault, When
from coppice.testing.site_world import World
from coppice.testing.used_clouds import UsedDirectory, UsedMemory
from coppice.testing.used_servers import UsedLibvirt, UsedOpenNebula, UsedOpenStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coppice.testing.libvirtd import Libvirtd
    from coppice.testing.openstack import OpenStack
    from coppice.testing.used_clouds import UsedCloud

pytestmark = [pytest.mark.integration, pytest.mark.threat("T90"), pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
SUITE = "src/coppice/testing/contracts/cloud_faults.py"
STACK, ONE, VIRT = (
    "tests/integration/test_openstack_faults.py",
    "tests/contract/test_opennebula_faults.py",
    "tests/integration/test_libvirt.py",
)
ONE_LIFE, FOLDER, HERE = (
    "tests/contract/test_opennebula_life.py",
    "tests/contract/test_clouds.py",
    "tests/integration/test_cloud_faults.py",
)
ALL, NAMES = "all", ("directory", "libvirt", "memory", "opennebula", "openstack")
NO_USERS = "it knows no users of its own: files' owners are the system's"
IN_PROCESS = "it is in this process"
NO_CALLS = "nothing is asked over a wire"
TABLE: dict[str, dict[str, str]] = {
    "titles with quotes, newlines, ], ${…}, 4-byte characters, 10 kB": {
        ALL: f"{SUITE}::test_hostile_titles_do_no_harm",
    },
    "other texts of a list with the same": {ALL: f"{SUITE}::test_hostile_facts_do_no_harm"},
    "wrong credentials": {
        "openstack": f"{STACK}::test_wrong_credentials_are_told_and_change_nothing",
        "opennebula": f"{ONE}::test_a_pool_that_cannot_be_had_whole_is_an_error_and_no_absence",
        "libvirt": f"{VIRT}::test_nobody_there_is_an_error_and_no_absence",
        "directory": NO_USERS,
        "memory": IN_PROCESS,
    },
    "no rights": {
        "openstack": f"{STACK}::test_a_reader_may_look_and_not_register",
        "opennebula": f"{ONE_LIFE}::test_a_user_who_may_not_create_images_is_told_so",
        "libvirt": NO_USERS,
        "directory": f"{FOLDER}::test_a_directory_that_cannot_be_made_is_an_error_of_storage",
        "memory": IN_PROCESS,
    },
    "quota, or no room": {
        "openstack": f"{STACK}::test_a_refusal_is_not_tried_again_and_leaves_nothing",
        "opennebula": f"{ONE}::test_an_image_that_is_refused_says_why_and_leaves_nothing",
        "libvirt": f"{VIRT}::test_a_pool_that_is_full_while_an_image_is_sent_keeps_nothing_of_it",
        "directory": "tests/e2e/test_faults_kill.py::test_a_disk_that_fails_is_told_and_nothing_is_lost",
        "memory": IN_PROCESS,
    },
    "duplicate names": {ALL: f"{SUITE}::test_two_images_of_one_title_are_two_images"},
    "500, 502, 503, time-outs at every call of registration, update and removal": {
        "openstack": f"{HERE}::test_a_run_that_fails_at_any_call_is_ended_by_the_next_one",
        "opennebula": f"{HERE}::test_a_run_that_fails_at_any_call_is_ended_by_the_next_one",
        "libvirt": f"{HERE}::test_a_libvirtd_that_is_killed_during_a_run_is_made_up_for_by_the_next_one",
        "directory": NO_CALLS,
        "memory": IN_PROCESS,
    },
    "connection cut in mid-upload": {
        "openstack": f"{STACK}::test_a_connection_cut_in_mid_upload_is_tried_again",
        "opennebula": f"{ONE}::test_a_copy_that_fails_says_why_and_is_cleared_away",
        "libvirt": f"{VIRT}::test_a_daemon_that_is_killed_while_an_image_is_sent_leaves_what_the_next_run_makes_whole",
        "directory": NO_CALLS,
        "memory": IN_PROCESS,
    },
    "an image in an ERROR state": {
        "openstack": f"{STACK}::test_an_image_that_got_stuck_is_recognised_and_made_anew",
        "opennebula": f"{HERE}::test_a_copy_that_goes_wrong_costs_nobody_the_version_that_they_have",
        "libvirt": f"{SUITE}::test_a_registration_that_did_not_end_is_recognised_and_made_anew",
        "directory": f"{SUITE}::test_a_registration_that_did_not_end_is_recognised_and_made_anew",
        "memory": f"{SUITE}::test_a_registration_that_did_not_end_is_recognised_and_made_anew",
    },
    "slow LOCKED, and LOCKED for ever": {
        "openstack": f"{STACK}::test_an_answer_that_does_not_come_is_not_waited_for",
        "opennebula": f"{HERE}::test_a_copy_that_goes_wrong_costs_nobody_the_version_that_they_have",
        "libvirt": f"{VIRT}::test_a_daemon_that_hangs_is_given_up_and_nothing_is_changed_afterwards",
        "directory": NO_CALLS,
        "memory": IN_PROCESS,
    },
    "an image deleted behind our back": {ALL: f"{HERE}::test_images_deleted_behind_our_back_come_again"},
    "an image of someone else with our name": {
        ALL: f"{HERE}::test_images_of_others_with_our_names_stay_and_hinder_nothing"
    },
    "a cloud that lists half": {
        "openstack": f"{HERE}::test_a_cloud_that_lists_half_is_left_alone",
        "opennebula": f"{HERE}::test_a_cloud_that_lists_half_is_left_alone",
        "libvirt": f"{VIRT}::test_a_pool_that_cannot_be_looked_into_is_an_error_and_no_absence",
        "directory": NO_CALLS,
        "memory": IN_PROCESS,
    },
    "clock moved back": {ALL: f"{HERE}::test_a_clock_that_is_moved_back_takes_nothing_away"},
    "two syncs at once": {ALL: f"{HERE}::test_of_two_syncs_at_once_one_is_refused_and_both_clouds_converge"},
    "kill -9 at random points": {
        "openstack": f"{HERE}::test_syncs_killed_at_some_points_are_ended_by_the_next_ones",
        "opennebula": f"{HERE}::test_syncs_killed_at_some_points_are_ended_by_the_next_ones",
        "libvirt": f"{HERE}::test_syncs_killed_at_some_points_are_ended_by_the_next_ones",
        "directory": f"{HERE}::test_syncs_killed_at_some_points_are_ended_by_the_next_ones",
        "memory": IN_PROCESS,
    },
}
"""Fault → cloud, or `ALL` of them → the test in which it is met; or why it cannot be."""


def test_the_table_names_every_cloud_and_tests_that_there_are():
    tests: dict[str, set[str]] = {}
    for case, row in TABLE.items():
        assert set(row) in ({ALL}, set(NAMES)), case
        for where in row.values():
            path, has_test, name = where.partition("::")
            if has_test:
                if path not in tests:
                    nodes = ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
                    tests[path] = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
                assert name in tests[path], where


# -- worlds ----------------------------------------------------------------------------------------


@pytest.fixture
def making(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Return what makes a world of clouds by their names; Glance is asked through the proxy."""
    with ExitStack() as stack:

        def make(*names: str, **options: Any) -> World:
            clouds: list[UsedCloud] = []
            for name in names:
                if name == "openstack":
                    openstack: OpenStack = request.getfixturevalue("openstack")
                    stack.callback(openstack.faults.clear)
                    clouds.append(UsedOpenStack(openstack, "faulty", "attempts = 2"))
                elif name == "opennebula":
                    opennebula = UsedOpenNebula(tmp_path / "one")
                    stack.enter_context(opennebula.running())
                    clouds.append(opennebula)
                elif name == "libvirt":
                    libvirtd: Libvirtd = request.getfixturevalue("libvirtd")
                    clouds.append(UsedLibvirt(libvirtd))
                else:
                    clouds.append(UsedDirectory(tmp_path / "cloud") if name == "directory" else UsedMemory())
            world = World(tmp_path, *clouds, **options)
            stack.callback(world.close)
            return world

        yield make


def begin(world: World) -> dict[str, Any]:
    """Register an image in all clouds; return its entry."""
    debian = world.add("Debian 12")
    world.publish()
    world.subscribe()
    world.synced()
    assert_same(world)
    return debian


def assert_same(world: World) -> None:
    """Assert that all clouds have what that in memory, or else the first of them, has."""
    found = world.states()
    expected = found.get("memory", next(iter(found.values())))
    assert found == dict.fromkeys(found, expected)
    assert not any("but" in state for versions in expected.values() for state in versions.values())


def attempt(world: World) -> None:
    """Sync, come what may; whatever comes is one of Coppice's own errors."""
    report = world.sync()
    assert all(isinstance(error, CoppiceError) and error.message for error in report.errors)


# -- faults at every call --------------------------------------------------------------------------

GLANCE = {
    "500": lambda times: answers_before(500, times=times),
    "502": lambda times: answers_before(502, b"<html>bad gateway</html>", times=times),
    "503": lambda times: answers_before(503, times=times),
    "500 after it was done": lambda times: answers_after(500, times=times),
    "504 after it was done": lambda times: answers_after(504, times=times),
    "cut": lambda times: cuts_before(times=times),
    "cut after it was done": lambda times: cuts_after(times=times),
    "cut in mid-upload": lambda times: cuts_upload(5000, times=times),
    "time-out": lambda times: stalls(30, times=times),
}
NEBULA: Mapping[str, dict[str, Any]] = {
    "500": {"act": Act.STATUS, "code": 500},
    "502": {"act": Act.STATUS, "code": 502},
    "503": {"act": Act.STATUS, "code": 503},
    "500 after it was done": {"act": Act.STATUS, "code": 500, "when": When.AFTER},
    "504 after it was done": {"act": Act.STATUS, "code": 504, "when": When.AFTER},
    "cut": {"act": Act.CUT},
    "cut after it was done": {"act": Act.CUT, "when": When.AFTER},
    "cut in mid-upload": {"act": Act.CUT_ANSWER, "when": When.AFTER},
    "time-out": {"act": Act.STALL, "seconds": 30},
}
KINDS = sorted(GLANCE)
SLOW = "time-out"


SHORT_DAYS = 0.005


class Busy:
    """A world in which each run registers one image, updates another, withdraws a third and removes old ones."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.debian = begin(world)
        self.passing: dict[str, Any] | None = None
        self.version = 1

    def next(self) -> None:
        """Publish so that the next run has all of that to do."""
        self.version += 1
        self.world.renew(self.debian, str(self.version))
        if self.passing is not None:
            self.world.publisher.images.remove(self.passing)
        self.passing = self.world.add(f"Passing {self.version}")
        self.world.advance(timedelta(days=2 * SHORT_DAYS))
        self.world.renew_dates()
        self.world.publish()


def calls_of(cloud: UsedCloud) -> int:
    """Return how many calls a cloud was asked since it was asked last; it counts anew."""
    if isinstance(cloud, UsedOpenStack):
        made = len(cloud.faults.asked)
        cloud.faults.clear()
        return made
    assert isinstance(cloud, UsedOpenNebula)
    made = len(cloud.simulator.calls)
    cloud.simulator.calls.clear()
    return made


def set_fault(cloud: UsedCloud, kind: str, *, place: int, times: int | None) -> None:
    """Let a cloud go wrong at its call number ``place``, and at those after it."""
    if isinstance(cloud, UsedOpenStack):
        cloud.faults.add(GLANCE[kind](times), nth=place + 1)
    elif isinstance(cloud, UsedOpenNebula):
        cloud.simulator.faults.add(Fault(method="*", skip=place, times=times, **NEBULA[kind]))


def clear(cloud: UsedCloud) -> None:
    """Let all go well again."""
    if isinstance(cloud, UsedOpenStack):
        cloud.faults.clear()
    elif isinstance(cloud, UsedOpenNebula):
        cloud.simulator.faults.clear()


def settle(world: World) -> None:
    """Sync twice, which must go well, and compare: while a version comes, its predecessors wait for their removal."""
    world.synced(allow_withdrawals=True)
    world.synced(allow_withdrawals=True)
    assert_same(world)


def check_faults(world: World, points: Callable[[int], list[tuple[str, int, int | None]]]) -> None:
    """Strike at points, and compare; a user looks for the image that is updated, all the time."""
    cloud = world.used[0]
    busy = Busy(world)
    for _ in range(2):
        busy.next()
        calls_of(cloud)
        world.synced(allow_withdrawals=True)
        calls = calls_of(cloud)
        settle(world)
    # Seldom: the real Glance has other things to do, and what shows only for a moment is looked for elsewhere.
    with CloudUser(cloud, busy.debian["dc:identifier"], look_seconds=0.5) as user:
        for kind, place, times in points(calls):
            busy.next()
            set_fault(cloud, kind, place=place, times=times)
            world.sync(allow_withdrawals=True)
            clear(cloud)
            settle(world)
    assert user.without == []
    assert user.looks > 0


def spread(calls: int, number: int) -> list[tuple[str, int, int | None]]:
    """Return points that are spread over all calls, each with another fault; some faults last."""
    kinds = [kind for kind in KINDS if kind != SLOW]
    return [(kinds[each * len(kinds) // number], each * calls // number, (None, 1)[each % 2]) for each in range(number)]


def every(calls: int) -> list[tuple[str, int, int | None]]:
    """Return every call with every fault, that which lasts among them; one that is slow at few calls."""
    points: list[tuple[str, int, int | None]] = []
    for kind, place in itertools.product(KINDS, range(calls)):
        if kind != SLOW or place % 10 == 0:
            points.append((kind, place, 1 if (kind == SLOW or place % 2) else None))
    return points


@pytest.mark.parametrize(("name", "number"), [("opennebula", 8), ("openstack", 3)])
def test_a_run_that_fails_at_any_call_is_ended_by_the_next_one(making: Callable[..., World], name: str, number: int):
    check_faults(making(name, "memory", grace_days=SHORT_DAYS), lambda calls: spread(calls, number))


@pytest.mark.soak
@pytest.mark.parametrize("name", ["opennebula", "openstack"])
def test_a_run_that_fails_at_every_call_in_every_way_is_ended_by_the_next_one(making: Callable[..., World], name: str):
    check_faults(making(name, "memory", grace_days=SHORT_DAYS), every)


def test_a_libvirtd_that_is_killed_during_a_run_is_made_up_for_by_the_next_one(
    making: Callable[..., World], libvirtd: Libvirtd
):
    world = making("libvirt", "memory", grace_days=SHORT_DAYS)
    busy = Busy(world)
    with CloudUser(world.used[0], busy.debian["dc:identifier"]) as user:
        for delay in (0.05, 0.2, 0.5):
            busy.next()
            run = threading.Thread(target=world.sync, kwargs={"allow_withdrawals": True})
            run.start()
            time.sleep(delay)
            libvirtd.kill()
            libvirtd.resume()
            run.join()
            settle(world)
    assert user.without == []


# -- what OpenNebula's copies do -------------------------------------------------------------------


@pytest.mark.parametrize("copying", [Copying(error="No space left on device"), Copying(held=True), Copying(seconds=1)])
def test_a_copy_that_goes_wrong_costs_nobody_the_version_that_they_have(making: Callable[..., World], copying: Copying):
    world = making("opennebula", "memory")
    (cloud, _) = world.used
    assert isinstance(cloud, UsedOpenNebula)
    world.clouds["opennebula"] = cloud.opened(image_seconds=2.0)
    debian = begin(world)
    world.renew(debian, "2")
    world.publish()
    with CloudUser(cloud, debian["dc:identifier"]) as user:
        cloud.simulator.faults.copying = copying
        report = world.sync()
        assert (report.failure() is None) is (copying.seconds > 0)
        cloud.simulator.faults.clear()
        world.synced()
    assert user.without == []
    assert_same(world)
    assert len(cloud.simulator.images()) == 2
    assert not any(cloud.stand.transport.directory.iterdir())


# -- what others do --------------------------------------------------------------------------------


def delete_behind(world: World, image: str, version: str) -> None:
    """Remove a version in each cloud, as an administrator does."""
    for cloud in world.used:
        cloud.delete(image, version)


def test_images_deleted_behind_our_back_come_again(making: Callable[..., World]):
    world = making(*NAMES)
    debian = begin(world)
    world.renew(debian, "2")
    world.publish()
    world.synced()
    delete_behind(world, debian["dc:identifier"], "2")
    assert all("2" not in versions for found in world.states().values() for versions in found.values())
    world.synced()
    assert_same(world)
    assert {cloud.usable(debian["dc:identifier"]) for cloud in world.used} == {"2"}
    # The last one that there was, too.
    world.advance(timedelta(days=8))
    world.renew_dates()
    world.publish()
    world.synced()
    delete_behind(world, debian["dc:identifier"], "2")
    world.synced()
    assert_same(world)


def test_images_of_others_with_our_names_stay_and_hinder_nothing(making: Callable[..., World]):
    world = making(*NAMES)
    theirs = {cloud.name: cloud.add_foreign("Debian 12") for cloud in world.used}
    debian = begin(world)
    theirs |= {
        f"{cloud.name} again": cloud.add_foreign("Debian 12") for cloud in world.used if cloud.name == "openstack"
    }
    world.renew(debian, "2")
    world.publish()
    world.synced()
    assert_same(world)
    world.publisher.images.clear()
    world.publish()
    world.synced(allow_withdrawals=True)
    world.advance(timedelta(days=8))
    world.sync()
    world.retire()
    assert all(cloud.seen() == {} for cloud in world.used)
    assert [name for name, is_whole in theirs.items() if not is_whole()] == []


@pytest.mark.threat("T88")
@pytest.mark.parametrize("name", ["opennebula", "openstack"])
def test_a_cloud_that_lists_half_is_left_alone(making: Callable[..., World], name: str):
    world = making(name, "memory")
    (cloud, _) = world.used
    debian = begin(world)
    world.add("Alma 9")
    world.add("Rocky 9")
    world.publish()
    world.synced()
    before = world.states()[name]
    world.renew(debian, "2")
    world.publish()
    assert isinstance(cloud, UsedOpenStack | UsedOpenNebula)
    cloud.list_half()
    report = world.sync()
    assert [each.cloud for each in report.clouds if each.error is not None] == [name]
    clear(cloud)
    assert world.states()[name] == before
    world.synced()
    assert_same(world)


@pytest.mark.threat("T87")
def test_a_clock_that_is_moved_back_takes_nothing_away(making: Callable[..., World]):
    world = making(*NAMES)
    debian = begin(world)
    world.renew(debian, "2")
    world.publish()
    world.synced()
    before = world.states()
    for back in (timedelta(hours=3), timedelta(days=400)):
        world.advance(-back)
        # What is signed in the future is not believed; whatever is said of it, nothing is taken away.
        attempt(world)
        world.retire()
        assert world.states() == before
        assert {cloud.usable(debian["dc:identifier"]) for cloud in world.used} == {"2"}
        world.advance(back)
        world.synced()
        assert world.states() == before


# -- two at once, and kills ------------------------------------------------------------------------


@pytest.mark.threat("T84")
def test_of_two_syncs_at_once_one_is_refused_and_both_clouds_converge(making: Callable[..., World]):
    world = making(*NAMES)
    debian = begin(world)
    world.renew(debian, "2")
    world.publish()
    refused: list[str] = []
    together = threading.Barrier(2, timeout=60)

    def run() -> None:
        together.wait()
        try:
            world.synced()
        except LockedError as problem:
            refused.append(problem.code)

    users = [CloudUser(cloud, debian["dc:identifier"]) for cloud in world.used]
    with ExitStack() as stack:
        for user in users:
            stack.enter_context(user)
        runs = [threading.Thread(target=run) for _ in range(2)]
        for each in runs:
            each.start()
        for each in runs:
            each.join()
    assert len(refused) <= 1
    assert [user.without for user in users] == [[]] * len(users)
    assert_same(world)
    assert {cloud.usable(debian["dc:identifier"]) for cloud in world.used} == {"2"}


def spawned(world: World, kill_after: float | None = None) -> tuple[float, bool]:
    """Sync as a process of its own; return how many seconds it took, and whether it was killed."""
    begun = time.monotonic()
    child = world.start("sync")
    while kill_after is not None and time.monotonic() < begun + kill_after and child.poll() is None:
        time.sleep(0.01)
    killed = kill_after is not None and world.kill(child)
    said, _ = child.communicate(timeout=300)
    assert killed or child.returncode == 0, said
    return time.monotonic() - begun, killed


def forked(forge: CommandForge, world: World, kill_after: float | None = None) -> tuple[float, bool]:
    """Do the same in a child that has everything loaded: what it takes to start is no matter here."""
    interrupt = None if kill_after is None else (int(signal.SIGKILL), kill_after)
    ended = forge.run(*world.argv("sync"), environment=world.environment(), interrupt=interrupt)
    killed = ended.code == -signal.SIGKILL
    assert killed or ended.code == 0, ended
    return ended.seconds, killed


def check_kills(
    world: World, run: Callable[[World, float | None], tuple[float, bool]], *, points: int, seed: int
) -> None:
    """Kill a sync at points by chance; after each, the next one ends where an undisturbed one does."""
    chance = random.Random(seed)  # noqa: S311 - when it is killed can be had again
    debian = world.add("Debian 12")
    image = debian["dc:identifier"]
    world.publish()
    world.subscribe()
    seconds, _ = run(world, None)
    users, killed = [CloudUser(cloud, image, look_seconds=0.2) for cloud in world.used], 0
    with ExitStack() as stack:
        for user in users:
            stack.enter_context(user)
        for version in range(2, points + 2):
            world.renew(debian, str(version))
            world.publish()
            killed += run(world, chance.uniform(0.1, 1.0) * seconds)[1]
            run(world, None)
            for found in world.states().values():
                assert found[image].pop(str(version)) == "available"
                assert found[image].pop(str(version - 1)) == "superseded"
                # While a version comes, its predecessors wait for their removal.
                assert set(found[image].values()) <= {"superseded"}
    run(world, None)
    assert_same(world)
    assert set(world.states()["directory"][image]) == {str(points), str(points + 1)}
    print(f"seed {seed}: {points} points, {killed} killed, {[user.looks for user in users]} looks")  # noqa: T201 - figures of the long form
    assert killed > 0
    assert [user.without for user in users] == [[]] * len(users)


KILLED = tuple(sorted(set(NAMES) - {"memory"}))


@pytest.mark.threat("T79")
def test_syncs_killed_at_some_points_are_ended_by_the_next_ones(making: Callable[..., World], tmp_path: Path):
    world = making(*KILLED, grace_days=0, plan="keep_versions = 1")
    with CommandForge(tmp_path / "forge") as forge:
        check_kills(world, partial(forked, forge), points=4, seed=8)


@pytest.mark.soak
@pytest.mark.threat("T79")
def test_syncs_killed_at_forty_points_are_ended_by_the_next_ones(making: Callable[..., World]):
    check_kills(making(*KILLED, grace_days=0, plan="keep_versions = 1"), spawned, points=40, seed=40)
