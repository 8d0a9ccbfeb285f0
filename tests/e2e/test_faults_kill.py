# SPDX-License-Identifier: Apache-2.0
"""Commands killed at the calls that change files, and calls that fail: by the kernel, with strace.

Points are spread over all such calls of all threads. The gate strikes at some dozen of them; the campaign (marker
``soak``) at some hundred.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest

from coppice.testing.forked import CommandForge, injection
from coppice.testing.oracle import SECRET, Oracle
from coppice.testing.server import LoopbackServer

pytestmark = pytest.mark.timeout(3600)
HOOKS = """
[hooks.told]
kind = "file"
path = "{root}/told.jsonl"

[hooks.program]
kind = "program"
command = ["/bin/sh", "-c", "cat >> {root}/program.jsonl"]

[cache]
keep_unneeded_days = 0
"""
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
COMMANDS = {
    "sync": ("--json", "sync"),
    "fetch": ("--json", "cache", "fetch", "--refresh"),
    "deliver": ("--json", "event", "deliver"),
}


@dataclass
class Seed:
    """A site that has version 1 of an image in its cloud, and version 2 of it and another image waiting."""

    site: object
    forge: CommandForge
    directory: object
    count: int = 0
    known: dict = field(default_factory=dict)

    def run(self, site, *arguments, **options):
        return self.forge.run("--config", str(site.settings), *arguments, environment=self.environment(site), **options)

    def environment(self, site):
        return site.environment({"CANARY": SECRET})

    def twin(self):
        self.count += 1
        site = self.site.copy_to(self.directory / f"twin-{self.count}")
        site.settings.write_text(self.site.settings.read_text().replace(str(self.site.root), str(site.root)))
        oracle = Oracle(state=site.state, cloud=site.cloud, disks=self.disks)
        oracle.foreign = tuple(site.root / path.relative_to(self.site.root) for path in self.oracle.foreign)
        oracle.note()
        return site, oracle

    def prepare(self, command):
        """Learn what an undisturbed run leaves, and which calls it makes; once for all tests."""
        if command not in self.known:
            self.known[command] = self._learn(command)
        self.expected, calls = self.known[command]
        return calls

    def _learn(self, command):
        site, oracle = self.twin()
        ended = self.run(site, *COMMANDS[command])
        assert ended.code == 0, ended
        expected = oracle.essence()
        oracle.check_after_rerun(expected)
        site, oracle = self.twin()
        lines = self.forge.trace("--config", str(site.settings), *COMMANDS[command], environment=self.environment(site))
        assert oracle.essence() == expected
        return expected, _points(lines)


def _points(lines):
    """Return call → how often the thread that makes it most often does."""
    counts = defaultdict(Counter)
    for line in lines:
        match = _LINE.match(line)
        if match is not None:
            counts[match[2]][match[1]] += 1
    return {call: max(threads.values()) for call, threads in counts.items()}


def _spread(calls, number, seed, *, without=()):
    """Return so many points, spread over the calls; those of rare calls first, since each of them is a step."""
    pool = [(call, at) for call, most in calls.items() if call not in without for at in range(1, most + 1)]
    chooser = random.Random(seed)  # noqa: S311 - which points are tried
    rare = [point for point in pool if calls[point[0]] <= 12]
    chooser.shuffle(rare)
    common = [point for point in pool if calls[point[0]] > 12]
    chooser.shuffle(common)
    mixed = [point for pair in zip(rare, common, strict=False) for point in pair]
    rest = [point for point in [*rare, *common] if point not in set(mixed)]
    return [*mixed, *rest][:number]


@pytest.fixture(scope="module")
def seed(kit, forge, tmp_path_factory):
    directory = tmp_path_factory.mktemp("faults")
    with LoopbackServer() as server:
        site = kit.Site(directory / "seed", server, cloud=HOOKS.format(root=directory / "seed"))
        site.subscribe()
        made = Seed(site=site, forge=forge, directory=directory)
        assert made.run(site, "--json", "sync").code == 0
        oracle = Oracle(state=site.state, cloud=site.cloud)
        oracle.plant()
        before = {each.disk for each in oracle.registered()}
        site.renew(site.first, kit.tiny_qcow2(directory, seed=2), "2")
        site.publisher.add_image(title="Debian 13", data=kit.tiny_qcow2(directory, seed=3))
        site.next_version()
        site.publish()
        for _ in range(3):
            # What is due to be told when the run begins.
            assert made.run(site, "--json", "subscription", "pause", "demo").code == 0
            assert made.run(site, "--json", "subscription", "resume", "demo").code == 0
        made.oracle, made.disks = oracle, frozenset()
        twin, oracle = made.twin()
        assert made.run(twin, "--json", "sync").code == 0
        made.disks = frozenset(before | {each.disk for each in oracle.registered()})
        yield made


def strike(seed, command, options, effect, *, code):
    """Strike at one point, then run again."""
    site, oracle = seed.twin()
    ended = seed.run(site, *COMMANDS[command], strace=options)
    oracle.check_after_fault()
    assert not list(site.state.glob("log/defect-*")), ended
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    code(ended)
    again = seed.run(site, *COMMANDS[command])
    assert again.code == 0, (options, ended, again)
    oracle.check_after_rerun(seed.expected)
    check_told(site, oracle, all_of_it=effect.startswith("signal"))
    return ended


def check_told(site, oracle, *, all_of_it):
    """Check that whatever counts as told was told; a hook that failed is told later, and nothing is given up."""
    for hook in ("told", "program"):
        told = told_numbers(site.root / f"{hook}.jsonl")
        states = oracle.rows(f"SELECT event, state FROM delivery WHERE hook = '{hook}'")  # noqa: S608 - two names
        assert {state for _, state in states} <= {"waiting", "delivered"}, states
        assert told >= {number for number, state in states if state == "delivered"}, hook
        if all_of_it:
            assert told >= {row[0] for row in oracle.rows("SELECT number FROM event")}, hook


def told_numbers(path):
    """Return the events that a hook was told of, whole; a line that a kill cut off is told once more."""
    found = set()
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.add(json.loads(line)["number"])
    return found


def campaign(seed, command, points, effect, *, code, lasting=False):
    """Strike at many points; all that fail are told together."""
    failed, struck = [], 0
    for call, at in points:
        try:
            ended = strike(seed, command, injection(call, at, effect, lasting=lasting), effect, code=code)
            struck += ended.code != 0
        except AssertionError as problem:
            failed.append(f"{call} {at}: {str(problem)[:2000]}")
    print(f"{command}, {effect}: {len(points)} points, {struck} runs ended early")  # noqa: T201 - what was done
    assert not failed, "\n".join(failed)
    return struck


def killed(ended):
    # A point behind the end of a run that took another way than the one that was traced.
    assert ended.code in {-signal.SIGKILL, 0}, ended


def told(ended):
    """An error is told by its code, or the run did not need what failed."""
    if ended.code == 0 or not ended.stdout:
        return
    assert 0 < ended.code != 70, ended
    try:
        said = json.loads(ended.stdout)
    except json.JSONDecodeError:
        # The call that failed was the one that prints.
        return
    assert said["errors"], ended
    assert all(error["code"] != "internal-error" for error in said["errors"]), ended


GATE = {"sync": 6, "fetch": 4, "deliver": 2}
SOAK = {"sync": 140, "fetch": 120, "deliver": 40}
SOAK_OF_ERRORS = 4
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE")


@pytest.mark.e2e
@pytest.mark.threat("T79")
@pytest.mark.parametrize("command", GATE)
def test_a_command_killed_at_a_call_that_changes_files_is_made_good_by_the_next_run(seed, command):
    points = _spread(seed.prepare(command), GATE[command], seed=command)
    assert campaign(seed, command, points, "signal=KILL", code=killed) >= len(points) // 2


@pytest.mark.soak
@pytest.mark.threat("T79")
@pytest.mark.parametrize("command", SOAK)
def test_a_command_killed_at_any_of_hundreds_of_calls_is_made_good_by_the_next_run(seed, command):
    points = _spread(seed.prepare(command), SOAK[command], seed=f"{command} soak")
    campaign(seed, command, points, "signal=KILL", code=killed)


def error_points(calls, error, number, seed):
    if error == "EMFILE":
        return _spread({"openat": calls["openat"]}, number, seed)
    return _spread(calls, number, seed, without=("openat",))


@pytest.mark.e2e
@pytest.mark.threat("T80")
@pytest.mark.parametrize("error", ERRORS)
def test_a_disk_that_fails_is_told_and_nothing_is_lost(seed, error):
    points = error_points(seed.prepare("sync"), error, 2, seed=error)
    lasting = error in {"ENOSPC", "EDQUOT", "EROFS"}
    campaign(seed, "sync", points, f"error={error}", code=told, lasting=lasting)


@pytest.mark.soak
@pytest.mark.threat("T80")
@pytest.mark.parametrize("command", SOAK)
@pytest.mark.parametrize("error", ERRORS)
def test_a_disk_that_fails_at_any_call_is_told_and_nothing_is_lost(seed, command, error):
    calls = seed.prepare(command)
    for lasting in (True, False):
        points = error_points(calls, error, SOAK_OF_ERRORS, seed=f"{error} {command} {lasting}")
        campaign(seed, command, points, f"error={error}", code=told, lasting=lasting)
