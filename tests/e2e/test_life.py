# SPDX-License-Identifier: Apache-2.0
"""A whole life on tiny disks, by the command line alone: catalogued, signed, published, followed, replaced, gone."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from coppice.testing.authority import Authority
from coppice.testing.images import MIB
from coppice.testing.server import StaticServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PUBLISHER = """
state_directory = "{root}/publisher-state"

[publishers.web]
driver = "directory"
path = "{root}/web"
{url}
"""
SITE = """
state_directory = "{root}/site-state"

[transfer]
allow_private_addresses = true

[clouds.here]
driver = "directory"
site = "e2e"
path = "{root}/cloud"
formats = ["{format}"]
"""


class World:
    """A publisher and a site, each with its settings; both are only ever spoken to by commands."""

    def __init__(self, kit, root, *, url="", disk_format="raw") -> None:
        self.kit, self.root = kit, root
        self.publisher = kit.CommandLine(root / "publisher", PUBLISHER.format(root=root, url=url))
        self.site = kit.CommandLine(root / "site", SITE.format(root=root, format=disk_format))
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(root / "anchors")
        self.certificate, self.key = authority.issue("Jane Doe").write_to(root / "keys", "jane")

    def describe(self, name, version, seed):
        """Write an image and the descriptor of it; return the descriptor's path."""
        folder = self.root / "drafts" / f"{name}-{version}"
        folder.mkdir(parents=True)
        data = self.kit.tiny_qcow2(folder, seed=seed)
        (folder / "disk.qcow2").write_bytes(data)
        document = {
            "action": "registration",
            "title": name.title(),
            "identifier": name,
            "version": version,
            "os": {"distribution": "Debian", "version": "12", "arch": "x86_64"},
            "created": "2026-01-01T00:00:00Z",
            "disks": [
                {
                    "type": "os",
                    "format": "qcow2",
                    "path": "disk.qcow2",
                    "size_bytes": len(data),
                    "virtual_size_bytes": 2 * MIB,
                    "sha512": hashlib.sha512(data).hexdigest(),
                }
            ],
        }
        path = folder / "descriptor.json"
        path.write_text(json.dumps(document))
        return path

    def catalogue(self, name, version, seed):
        return self.publisher.ok("appliance", "add", "--descriptor", self.describe(name, version, seed))

    def set_up(self, *names):
        run = self.publisher.ok
        run("endorser", "add", "jane", "--certificate", self.certificate, "--key", self.key, "--email", "j@example.org")
        run("imagelist", "create", "demo", "--endorser", "jane", "--publisher", "web", "--title", "Demo")
        for seed, name in enumerate(names):
            self.catalogue(name, "1", seed)
            run("imagelist", "add", "demo", name)
        return run("imagelist", "publish", "demo")["uri"]

    def subscribe(self, uri):
        return self.site.ok(
            *("subscription", "add", "demo", uri, "--anchors", self.anchors),
            *("--endorser-certificate", self.certificate),
        )

    def actions(self, *words, ok=True, environ=None):
        """Run a command that plans; return what it planned, as (kind, version, state)."""
        ended = self.site.run("--json", *words, environ=environ)
        assert (ended.code == 0) is ok, ended
        plan = ended.data["clouds"][0]["plan"]
        return [(each["kind"], each["version"], each["state"]) for each in plan["actions"]], ended

    def states(self):
        images = self.site.ok("cloud", "images")["images"]
        assert all(image["ready"] for image in images)
        markers = [(image["name"].split("-")[0], image["marker"]) for image in images]
        return sorted((name, marker["version"], marker["state"]) for name, marker in markers)


@pytest.fixture
def world(kit, tmp_path):
    return World(kit, tmp_path)


def test_a_whole_life_by_file_through_the_command_line_alone(world, kit):
    uri = world.set_up("alpha", "beta", "gamma")
    assert uri.startswith("file://")
    world.subscribe(uri)

    register = [("register", "1", "available")] * 3
    assert world.actions("sync", "--dry-run")[0] == register
    assert world.actions("plan")[0] == register
    assert world.states() == []
    assert world.actions("sync")[0] == register
    assert world.states() == [(name, "1", "available") for name in ("alpha", "beta", "gamma")]
    status = world.site.ok("status")
    assert [each["name"] for each in status["subscriptions"]] == ["demo"]

    before = kit.tree(world.root / "cloud"), kit.tree(world.root / "site-state" / "conversion")
    assert world.actions("plan")[0] == []
    assert world.actions("sync")[0] == []
    assert (kit.tree(world.root / "cloud"), kit.tree(world.root / "site-state" / "conversion")) == before

    world.catalogue("alpha", "2", 12)
    world.publisher.ok("imagelist", "publish", "demo")
    planned, _ = world.actions("sync")
    assert planned[0] == ("register", "2", "available")
    assert ("change-state", "1", "superseded") in planned
    assert [each for each in world.states() if each[0] == "alpha"] == [
        ("alpha", "1", "superseded"),
        ("alpha", "2", "available"),
    ]
    assert len(list((world.root / "cloud" / "current").iterdir())) == 3

    for name in ("alpha", "beta"):
        world.publisher.ok("imagelist", "remove", "demo", name)
    world.publisher.ok("imagelist", "publish", "demo")
    before_states = world.states()
    _, held = world.actions("sync", ok=False)
    assert held.codes == ["plan-deletion-cap"]
    assert world.states() == before_states
    world.actions("sync", "--allow-withdrawals")
    assert world.states() == [
        ("alpha", "1", "withdrawn"),
        ("alpha", "2", "withdrawn"),
        ("beta", "1", "withdrawn"),
        ("gamma", "1", "available"),
    ]

    assert world.actions("retire", "--dry-run")[0] == []
    no_grace = {"COPPICE_PLAN__GRACE_DAYS": "0"}
    removals = [("remove", "1", None), ("remove", "1", None), ("remove", "2", None)]
    assert sorted(world.actions("retire", "--dry-run", environ=no_grace)[0]) == removals
    assert len(world.states()) == 4
    world.actions("retire", environ=no_grace)
    assert world.states() == [("gamma", "1", "available")]
    assert len([path for path in (world.root / "cloud").iterdir() if path.name != "current"]) == 1
    assert not list(world.root.rglob("*.partial"))


def test_a_list_and_its_images_are_followed_over_http_and_the_disk_is_the_published_one(kit, tmp_path):
    (tmp_path / "web").mkdir()
    with StaticServer(tmp_path / "web") as server:
        world = World(kit, tmp_path, url=f'url = "{server.url("/")}"', disk_format="qcow2")
        uri = world.set_up("alpha")
        assert uri.startswith("http://127.0.0.1:")
        world.subscribe(uri)
        assert world.site.ok("subscription", "refresh")["lists"][0]["fresh"] is True
        world.actions("sync")
    (disk,) = tmp_path.glob("cloud/current/*/disk.qcow2")
    (published,) = (tmp_path / "web" / "images").iterdir()
    assert disk.read_bytes() == published.read_bytes()
    assert subprocess.run(["qemu-img", "check", "-q", disk], check=False).returncode == 0
    assert world.site.ok("cache", "verify")["quarantined"] == []


def test_what_a_site_is_asked_is_answered_for_people_too(site):
    for words in (("plan",), ("sync",), ("status",), ("cloud", "images")):
        ended = site.run(*words)
        assert ended.code == 0, ended
        assert ended.stdout
