# SPDX-License-Identifier: Apache-2.0
"""Real builds that are killed, starved, and lied to: what they leave, what they say, and that the next one is whole.

The packages are those of the build that ``COPPICE_TEST_CACHE`` (default ``.cache/tests``) keeps, in a mirror of a
folder, signed with a throw-away key. Builds with a stand-in for the packages are in ``test_bootstrap_builds.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.factory.build import build
from coppice.factory.model import BuildOptions
from coppice.monitor import SILENT
from coppice.testing.factory_site import FactorySite, fill
from coppice.testing.openpgp import GnuPg
from coppice.testing.repository import PackageMirror
from coppice.testing.server import LoopbackServer, stall

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"
BASE = """\
[appliance]
title = "Base"
description = "For a test."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
builder = "bootstrap"
disk-size = "4 GiB"
firmware = ["bios"]
formats = ["qcow2"]
user = "debian"
"""
CHILD = """\
from = "base"
[appliance]
title = "Child"
[build]
packages = ["page"]
"""
DEFINITIONS = {"base": BASE, "child": CHILD}
CANARY = "canary-93"


@pytest.fixture(scope="module")
def gnupg():
    with GnuPg() as found:
        yield found


@pytest.fixture(scope="module")
def archive(gnupg):
    return gnupg.make_key("Archive")


@pytest.fixture(scope="module")
def real_mirror(gnupg, archive, tmp_path_factory):
    """Return a mirror of just what Debian 12 is made of, and one package more."""
    definition = read_definition(CHECKOUT / "definitions" / "debian-12")
    built = build(definition, root=CACHE, options=BuildOptions(), clock=SystemClock(), monitor=SILENT)
    mirror = PackageMirror(tmp_path_factory.mktemp("mirror"), gnupg, archive)
    fill(mirror.main, built.packages, CACHE / "parents" / "packages" / "debian")
    mirror.main.add("page", "1.0")
    mirror.publish()
    return mirror


@pytest.fixture
def small_mirror(gnupg, archive, tmp_path):
    """Return a mirror that has next to nothing."""
    mirror = PackageMirror(tmp_path / "mirror", gnupg, archive)
    mirror.main.add("page", "1.0")
    mirror.publish()
    return mirror


class Look:
    """What of a command's is on the machine: its processes and all that run in namespaces of theirs, its mounts.

    The system gives the numbers of processes and of namespaces that are gone to others, as to other builds beside this
    one: a process is known by when it started as well, and a namespace as long as one of the command's is in it.
    """

    def __init__(self, site, child) -> None:
        self.site, self.pid = site, child.pid
        self.own = namespaces("self")
        self.seen: set[tuple[str, int]] = set()
        self.spaces: set[str] = set()
        self.last = 0

    def remember(self) -> None:
        """See which processes belong to the command now."""
        found = processes()
        parents = {pid: parent for pid, parent in ((pid, parent_of(pid)) for pid in found) if parent}
        mine, grew = {str(self.pid)}, True
        while grew:
            more = {pid for pid, parent in parents.items() if parent in mine} - mine
            mine |= more
            grew = bool(more)
        self.seen |= {(pid, start_of(pid)) for pid in mine}
        here = [pid for pid in found if (pid, start_of(pid)) in self.seen]
        self.spaces = set().union(*(namespaces(pid) for pid in here)) - self.own
        self.last = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

    def left(self):
        """Return what of it still runs or is mounted."""
        mark = str(self.site.root)
        found = [pid for pid in processes() if self.is_its(pid) or mark in read(pid, "cmdline")]
        found = [pid for pid in found if pid != str(os.getpid()) and read(pid, "stat").rpartition(")")[2][1:2] != "Z"]
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if mark in line]
        return [f"{pid} {read(pid, 'cmdline')[:200]}" for pid in found] + mounts + loops()

    def is_its(self, pid):
        """Tell whether a process is the command's, or was in a namespace of its when it was last looked at."""
        start = start_of(pid)
        return (pid, start) in self.seen or (start <= self.last and bool(namespaces(pid) & self.spaces))

    def is_clear(self, seconds=10.0):
        """Wait until nothing is left; tell what is, when the time is up."""
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def processes():
    return [path.name for path in Path("/proc").glob("[0-9]*")]


def read(pid, what):
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def parent_of(pid):
    fields = read(pid, "stat").rpartition(")")[2].split()
    return fields[1] if fields else ""


def start_of(pid):
    """Return when a process started, in ticks since this machine did (proc_pid_stat(5), field 22); 0: it is gone."""
    fields = read(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) if fields else 0


def namespaces(pid):
    found = set()
    for kind in ("pid", "mnt"):
        with contextlib.suppress(OSError):
            found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
    return found


def loops():
    """Return the devices that stand for files below a test's directory."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return [each for each in found if "coppice" in each or "pytest" in each]


def trees_of(site):
    """Return what lies in the temporary directory, and what is half-made beside the builds."""
    places = (site.home, site.state / "factory" / "builds", site.state / "factory" / "parents")
    return [
        path.name
        for place in places
        if place.exists()
        for path in place.iterdir()
        if path.name.startswith((".coppice-new-", "coppice-work-")) or ".partial" in path.name
    ]


def works_of(site):
    return {each for each in trees_of(site) if each.startswith("coppice-work-")}


def digest(site, name):
    return site.ok("build", name, "--no-boot-test")["images"][0]["image"]["checksum"]


def killed(site, words, seconds, how=signal.SIGKILL):
    """Run a command, and end it after so many seconds; return what is left and its exit code."""
    child = site.start(*words)
    look = Look(site, child)
    deadline = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < deadline:
        look.remember()
        time.sleep(0.02)
    look.remember()
    child.send_signal(how)
    began = time.monotonic()
    said = child.communicate(timeout=60)
    took = time.monotonic() - began
    return look.is_clear(), child.returncode, took, "".join(said)


def timed(do):
    started = time.monotonic()
    done = do()
    return done, time.monotonic() - started


@pytest.mark.soak
@pytest.mark.threat("T79")
def test_a_real_build_that_is_killed_anywhere_leaves_nothing_that_runs_and_the_next_one_has_the_same_bytes(
    real_mirror, tmp_path
):
    chance = random.Random(79)  # noqa: S311 - moments, not secrets
    site = FactorySite(tmp_path / "site", real_mirror, DEFINITIONS)
    base, whole_seconds = timed(lambda: digest(site, "base"))
    child, child_seconds = timed(lambda: digest(site, "child"))
    site.forget_builds(base=False)
    again, rest_seconds = timed(lambda: digest(site, "base"))
    assert again == base
    kept = site.state / "factory" / "parents"
    # From nothing, from the tree of the release, and upon a parent.
    kinds = [("base", whole_seconds, True), ("base", rest_seconds, False), ("child", child_seconds, None)]
    points = [kinds[number % 3] for number in range(24)]
    told = []
    for number, (name, lasts, base_too) in enumerate(points):
        if base_too is not None:
            site.forget_builds(base=base_too)
        else:
            digest(site, "base")
        at = chance.uniform(0.02, 0.98) * lasts
        before = works_of(site)
        left, code, _, said = killed(site, ("build", name, "--no-boot-test"), at)
        assert left == [], (number, name, at)
        assert code in {-signal.SIGKILL, 0}, said
        told.append(f"{number + 1:2} {name:5} {at:6.1f} of {lasts:5.1f} s: {'killed' if code else 'done before'}")
        # What a dead run had in hand is the next one's to sweep, before it has anything in hand itself. A run works in
        # at most two places: where all of it is kept together, and where its builder is at work.
        now = works_of(site)
        assert now <= before or not now & before, (number, name, at)
        assert len(now) <= 2
    site.forget_builds(base=False)
    assert list(kept.glob("*.tar.zst")), "a layer that was finished is what the next run starts from"
    assert (digest(site, "base"), digest(site, "child")) == (base, child)
    assert trees_of(site) == []
    site.forget_builds(base=True)
    assert (digest(site, "base"), digest(site, "child")) == (base, child)
    assert trees_of(site) == []
    told.append(f"whole {whole_seconds:.1f} s, sha512 {base}")
    print("", *told, sep="\n")  # noqa: T201 - figures of the long form


@pytest.fixture
def hung(small_mirror, tmp_path):
    """Return a site whose mirror takes questions and never answers."""
    with LoopbackServer() as server:
        for suite in ("debian/dists/bookworm", "debian/dists/bookworm-updates"):
            server.set(f"/{suite}/InRelease", stall(b"-----BEGIN PGP SIGNED MESSAGE-----", 10))
        yield FactorySite(
            tmp_path / "site",
            small_mirror,
            DEFINITIONS,
            uri=server.url("/debian").replace("://", f"://builder:{CANARY}@"),
            factory="build_timeout_seconds = 4",
        )


def is_at_work(site):
    """Tell whether the bootstrapper runs for a site: it has made its tree's first folders."""
    return any("mmdebstrap" in read(pid, "cmdline") and str(site.home) in read(pid, "cmdline") for pid in processes())


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.mark.threat("T93")
def test_a_mirror_that_never_answers_ends_the_build_in_its_time_and_its_password_is_nowhere(hung):
    child = hung.start("build", "base", "--no-boot-test")
    look, seen = Look(hung, child), []
    wait_for(lambda: is_at_work(hung))
    while child.poll() is None:
        look.remember()
        seen += [line for line in (read(pid, "cmdline") for pid, _ in look.seen) if CANARY in line]
        time.sleep(0.1)
    said = "".join(child.communicate(timeout=60))
    [error] = json.loads(said)["errors"]
    assert (child.returncode, error["code"]) == (11, "build-failed")
    assert error["message"].startswith("bootstrapping bookworm failed: ")
    assert "did not end within 4 s" in error["message"]
    assert trees_of(hung) == []
    assert seen == []
    assert CANARY not in said
    kept = [path for place in (hung.state, hung.home) for path in place.rglob("*") if path.is_file()]
    assert [path for path in kept if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.threat("T82")
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGTERM, id="TERM"), pytest.param(signal.SIGINT, id="INT", marks=pytest.mark.soak)]
)
def test_a_build_that_is_told_to_stop_ends_at_once_and_leaves_nothing(hung, how):
    child = hung.start("build", "base", "--no-boot-test")
    look = Look(hung, child)
    wait_for(lambda: is_at_work(hung))
    look.remember()
    child.send_signal(how)
    (said, _), seconds = timed(lambda: child.communicate(timeout=60))
    assert seconds < 5
    assert child.returncode not in {0, None}, said
    assert look.is_clear() == []
    assert trees_of(hung) == []


@pytest.mark.threat("T82")
def test_a_bootstrapper_that_the_system_ends_for_want_of_memory_fails_the_build_and_says_so(hung):
    child = hung.start("build", "base", "--no-boot-test")
    look = Look(hung, child)
    wait_for(lambda: is_at_work(hung))
    look.remember()
    mine = [pid for pid, _ in look.seen if read(pid, "comm").strip() == "mmdebstrap"]
    assert mine
    os.kill(int(mine[0]), signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 11
    assert '"build-failed"' in said
    assert "memory" in said
    assert look.is_clear() == []
    assert trees_of(hung) == []


@pytest.mark.threat("T35")
def test_packages_that_another_key_signed_are_not_built_from(small_mirror, gnupg, tmp_path):
    small_mirror.security.publish(key=gnupg.make_key("Mallory"))
    site = FactorySite(tmp_path / "site", small_mirror, DEFINITIONS)
    ended = site.run("build", "base", "--no-boot-test")
    assert (ended.code, ended.codes) == (11, ["build-failed"])
    assert "NO_PUBKEY" in ended.document["errors"][0]["details"]
    assert "bookworm-security" in ended.document["errors"][0]["details"]
    assert trees_of(site) == []


@pytest.mark.soak
@pytest.mark.threat("T81")
def test_a_real_build_for_which_there_is_too_little_room_says_so_and_is_whole_once_there_is(real_mirror, tmp_path):
    site = FactorySite(tmp_path / "site", real_mirror, DEFINITIONS)
    small = f'mount -t tmpfs -o size=48m none "{site.home}" && cd / && exec "$@"'
    own = ("unshare", "--mount", "--propagation=private", "sh", "-c", small, "sh")
    ended = site.run("build", "base", "--no-boot-test", before=own)
    assert ended.codes == ["storage-full"], ended.document["errors"][0]["details"]
    assert str(site.home) in ended.document["errors"][0]["message"]
    assert trees_of(site) == []
    assert digest(site, "base")
    assert trees_of(site) == []
