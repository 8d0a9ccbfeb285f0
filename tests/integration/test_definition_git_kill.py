# SPDX-License-Identifier: Apache-2.0
"""Definitions from git, killed while they are added and moved: by the kernel, at calls that change files."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import Counter, defaultdict

import pytest

from coppice.testing.forked import CommandForge, injection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

TOML = """\
[appliance]
title = "Base"
description = "From git."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
disk-size = "4 GiB"
user = "debian"
packages = ["{package}"]
"""
_LINE = re.compile(r"(\d+) +(\w+)\(")


class Place:
    """A repository, and sites that follow it."""

    def __init__(self, root, forge) -> None:
        self.root, self.forge, self.count = root, forge, 0
        self.repository = root / "repository"
        self.repository.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("curl")

    def git(self, *words):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "GIT_CONFIG_GLOBAL": "/dev/null"}
        done = subprocess.run(
            ["git", *who, *words], cwd=self.repository, env=environment, capture_output=True, check=True, timeout=60
        )
        return done.stdout.decode().strip()

    def commit(self, package):
        for name in ("base", "web"):
            (self.repository / name).mkdir(exist_ok=True)
            (self.repository / name / "appliance.toml").write_text(TOML.format(package=package))
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", package)

    def site(self):
        self.count += 1
        home = self.root / f"site-{self.count}"
        (home / "own").mkdir(parents=True)
        return home

    def environment(self, home):
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "COPPICE_STATE_DIRECTORY": str(home / "state"),
            "COPPICE_DEFINITIONS_DIRECTORY": str(home / "own"),
        }

    def run(self, home, *words, **options):
        return self.forge.run("--json", "definition", *words, environment=self.environment(home), **options)

    def add(self, home, **options):
        return self.run(home, "add", f"git+file://{self.repository}#main", "--name", "ours", **options)

    def points(self, home, *words):
        lines = self.forge.trace("--json", "definition", *words, environment=self.environment(home))
        counts = defaultdict(Counter)
        for match in filter(None, map(_LINE.match, lines)):
            counts[match[2]][match[1]] += 1
        return [(call, at) for call, each in sorted(counts.items()) for at in range(1, max(each.values()) + 1)]

    def packages(self, home):
        listed = self.run(home, "list")
        assert listed.code == 0, listed
        return {each["name"]: each["packages"] for each in listed.said["data"]["definitions"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("git-kill")
    with CommandForge(root / "forge") as forge:
        yield Place(root, forge)


def added_after_kills(place, number):
    points = place.points(place.site(), "add", f"git+file://{place.repository}#main", "--name", "ours")
    random.Random(7).shuffle(points)  # noqa: S311 - which points are tried
    for call, at in points[:number]:
        home = place.site()
        place.add(home, strace=injection(call, at, "signal=KILL"))
        # What is there is whole, or nothing is there.
        assert place.packages(home) in ({}, {"base": ["curl"], "web": ["curl"]}), (call, at)
        again = place.add(home)
        assert again.code in {0, 12}, (call, at, again)
        assert place.packages(home) == {"base": ["curl"], "web": ["curl"]}, (call, at)
        assert place.run(home, "update").code == 0
        left = [path.name for path in (home / "state" / "definitions").rglob(".coppice-*")]
        assert left == [], (call, at)
        assert len(list((home / "state" / "definitions" / "trees").glob("*/*"))) == 1, (call, at)
    return len(points)


@pytest.mark.threat("T79")
def test_a_source_that_was_killed_while_it_was_added_is_added_by_the_next_run(place):
    assert added_after_kills(place, 3) > 20


@pytest.mark.soak
@pytest.mark.threat("T79")
def test_a_source_that_was_killed_anywhere_is_added_by_the_next_run(place):
    assert added_after_kills(place, 60) > 20


@pytest.mark.soak
@pytest.mark.threat("T79")
def test_a_pin_that_was_being_moved_when_it_was_killed_is_the_old_or_the_new(place):
    old, new = {"base": ["curl"], "web": ["curl"]}, {"base": ["wget"], "web": ["wget"]}
    homes = [place.site() for _ in range(41)]
    for home in homes:
        assert place.add(home).code == 0
    place.commit("wget")
    points = place.points(homes[0], "update", "--accept")
    random.Random(8).shuffle(points)  # noqa: S311 - which points are tried
    for home, (call, at) in zip(homes[1:], points, strict=False):
        place.run(home, "update", "--accept", strace=injection(call, at, "signal=KILL"))
        assert place.packages(home) in (old, new), (call, at)
        assert place.run(home, "update", "--accept").code == 0
        assert place.packages(home) == new, (call, at)
        assert not list((home / "state" / "definitions").rglob(".coppice-*")), (call, at)
        assert len(list((home / "state" / "definitions" / "trees").glob("*/*"))) == 1, (call, at)
