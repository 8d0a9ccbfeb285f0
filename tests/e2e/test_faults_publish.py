# SPDX-License-Identifier: Apache-2.0
"""A publication that is killed, or loses its power, at any call: whoever reads meanwhile finds one whole list.

A list is never there before its images, no version has two contents, and the next run ends what was begun.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
from collections import Counter, defaultdict
from urllib.parse import urlsplit

import pytest

from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.model.version import Version
from coppice.testing import images
from coppice.testing.authority import Authority
from coppice.testing.forked import injection
from coppice.testing.powercut import OPTIONS, Loss, PowerCut

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
PUBLISH = ("imagelist", "publish", "general")
SETTINGS = """
state_directory = "{root}/state"

[publishers.web]
driver = "directory"
path = "{root}/web"
url = "https://images.example.org"
"""
_LINE = re.compile(r"(\d+) +(\w+)\(")


class Publisher:
    """A publisher with version 1 of a list in a folder, and changes that wait to be published as version 2."""

    def __init__(self, root, forge) -> None:
        self.root, self.forge = root / "site", forge
        self.web, self.state, self.saved = self.root / "web", self.root / "state", root / "saved"
        self.root.mkdir()
        (self.root / "coppice.toml").write_text(SETTINGS.format(root=self.root))
        certificate, key = Authority.create("Example CA").issue("Jane").write_to(self.root / "keys", "jane")
        self.ok("endorser", "add", "jane", "--certificate", certificate, "--key", key, "--email", "jane@x.example")
        self.add("alpha", "1")
        self.ok("imagelist", "create", "general", "--endorser", "jane", "--publisher", "web", "--title", "General")
        self.ok("imagelist", "add", "general", "alpha")
        self.ok(*PUBLISH)
        (self.web / "notes.txt").write_text("somebody else's")
        self.add("alpha", "2")
        self.add("beta", "1")
        self.ok("imagelist", "add", "general", "beta")
        shutil.copytree(self.root, self.saved, symlinks=True)
        self.seen = {}

    def run(self, *arguments, strace=()):
        argv = ("--config", str(self.root / "coppice.toml"), "--json", *map(str, arguments))
        environment = {"HOME": str(self.root), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        return self.forge.run(*argv, environment=environment, strace=strace)

    def ok(self, *arguments):
        ended = self.run(*arguments)
        assert ended.code == 0, ended
        return ended.said["data"]

    def add(self, name, version):
        content = images.raw_disk() + f"{name} {version}".encode() * 512
        content += bytes(-len(content) % 512)
        folder = self.root / "made" / f"{name}-{version}"
        folder.mkdir(parents=True)
        (folder / "disk.raw").write_bytes(content)
        disk = {"path": "disk.raw", "format": "raw", "sha512": hashlib.sha512(content).hexdigest()}
        disk |= {"size_bytes": len(content), "virtual_size_bytes": len(content)}
        document = {"action": "registration", "identifier": name, "version": version, "title": name.title()}
        document |= {"os": {"distribution": "Debian", "version": "12"}, "created": "2026-11-20T00:00:00Z"}
        (folder / "descriptor.json").write_text(json.dumps({**document, "disks": [disk]}))
        self.ok("appliance", "add", "--descriptor", folder / "descriptor.json")

    def again(self):
        """Have everything as it was before the publication."""
        shutil.rmtree(self.root)
        shutil.copytree(self.saved, self.root, symlinks=True)
        self.seen = {}

    def check(self):
        """Check what a subscriber finds at this moment; return title → version."""
        opened = open_message((self.web / "general.list").read_bytes(), limits=DEFAULT_LIMITS)
        content = read_list(opened.payload)
        assert self.seen.setdefault(content.version, opened.payload) == opened.payload
        assert max(map(Version, self.seen)) == Version(content.version)
        for image in content.images:
            data = (self.web / urlsplit(image.uri).path.lstrip("/")).read_bytes()
            assert (len(data), hashlib.sha512(data).hexdigest()) == (image.size_bytes, image.checksum.hexdigest)
        assert (self.web / "notes.txt").read_text() == "somebody else's"
        return {image.title: image.version for image in content.images}

    def check_after_rerun(self, options):
        """Publish again, which must end what was begun."""
        ended = self.run(*PUBLISH, *options)
        assert ended.code == 0, ended
        assert self.check() == {"Alpha": "2", "Beta": "1"}
        entries = self.ok("imagelist", "history", "general")
        assert len({entry["version"] for entry in entries}) == len(entries)
        assert not list(self.state.glob("log/defect-*"))


@pytest.fixture(scope="module")
def publisher(tmp_path_factory, forge):
    return Publisher(tmp_path_factory.mktemp("publisher"), forge)


def points_of(lines, number, seed):
    """Return call and number of so many of a command's calls; rare calls first, since each of them is a step."""
    counts = defaultdict(Counter)
    for line in lines:
        if match := _LINE.match(line):
            counts[match[2]][match[1]] += 1
    pool = [(call, at) for call, threads in counts.items() for at in range(1, max(threads.values()) + 1)]
    chooser = random.Random(seed)  # noqa: S311 - which points are tried
    chooser.shuffle(pool)
    steps = [point for point in pool if point[0].startswith(("rename", "link", "unlink", "fsync", "fdatasync"))]
    mixed = [point for pair in zip(steps, pool, strict=False) for point in pair]
    return list(dict.fromkeys([*mixed, *pool]))[:number]


@pytest.mark.threat("T79")
@pytest.mark.parametrize("options", [(), ("--deltas",)], ids=["plain", "deltas"])
@pytest.mark.parametrize("number", [pytest.param(6, id="6"), pytest.param(150, id="150", marks=pytest.mark.soak)])
def test_a_publication_that_is_killed_at_a_call_leaves_one_whole_list_and_is_ended_by_the_next(
    publisher, options, number
):
    publisher.again()
    before = publisher.check()
    environment = {"HOME": str(publisher.root), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    argv = ("--config", str(publisher.root / "coppice.toml"), "--json", *PUBLISH, *options)
    lines = publisher.forge.trace(*argv, environment=environment)
    struck = 0
    for call, at in points_of(lines, number, seed=f"publish {options}"):
        publisher.again()
        publisher.check()
        ended = publisher.run(*PUBLISH, *options, strace=injection(call, at, "signal=KILL"))
        assert ended.code in {-signal.SIGKILL, 0}, ended
        struck += ended.code != 0
        assert publisher.check() in (before, {"Alpha": "2", "Beta": "1"}), (call, at)
        publisher.check_after_rerun(options)
    assert struck >= number // 2


@pytest.mark.threat("T83")
@pytest.mark.parametrize("options", [(), ("--deltas",)], ids=["plain", "deltas"])
@pytest.mark.parametrize("number", [pytest.param(6, id="6"), pytest.param(120, id="120", marks=pytest.mark.soak)])
def test_a_publication_that_loses_its_power_leaves_one_whole_list_and_is_ended_by_the_next(
    publisher, tmp_path, options, number
):
    publisher.again()
    before = publisher.check()
    power = PowerCut([publisher.state, publisher.web])
    trace = tmp_path / "trace"
    ended = publisher.run(*PUBLISH, *options, strace=[*OPTIONS, "-o", str(trace)])
    assert ended.code == 0, ended
    power.follow(trace.read_text(encoding="ascii").splitlines())
    chooser = random.Random(83)  # noqa: S311 - where power is lost
    for turn, cut in enumerate(sorted(chooser.sample(range(power.calls), number))):
        publisher.again()
        publisher.check()
        loss = (Loss.DATA, Loss.ALL, Loss.SOME)[turn % 3]
        power.restore(cut, loss, seed=turn)
        assert publisher.check() in (before, {"Alpha": "2", "Beta": "1"}), (cut, loss)
        publisher.check_after_rerun(options)
