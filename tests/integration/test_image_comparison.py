# SPDX-License-Identifier: Apache-2.0
"""A file against what a followed list says of an image, through the command line; nothing is fetched for it."""

from __future__ import annotations

import json
import shutil

import pytest

from coppice.cli.main import main
from coppice.testing import guests
from coppice.testing.authority import Authority
from coppice.testing.guests import Part
from coppice.testing.images import qcow2, raw_disk
from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.integration


class Site:
    """A site that follows lists, which are gone from where they were."""

    def __init__(self, root, capture) -> None:
        self.root, self.capture = root, capture
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(root / "anchors", crl=self.authority.crl())
        self.lists = {}

    def publisher(self, name="lab"):
        self.lists[name] = made = Simulator.create(self.authority, uri=f"file://{self.root}/web-{name}/demo.list")
        return made

    def follow(self):
        for name, publisher in self.lists.items():
            place = self.root / publisher.uri.removeprefix(f"file://{self.root}/")
            publisher.write_to(place.parent)
            self.subscribe(name, publisher)
            assert self.run("subscription", "refresh", name)[0] == 0
            shutil.rmtree(place.parent)

    def subscribe(self, name, publisher, uri=None):
        certificate, _ = publisher.endorser.write_to(self.root / "keys", name)
        words = ("--endorser-certificate", certificate, "--anchors", self.anchors)
        assert self.run("subscription", "add", name, uri or publisher.uri, *words)[0] == 0

    def run(self, *arguments):
        code = main(["--json", *map(str, arguments)])
        return code, json.loads(self.capture.readouterr().out)

    def text(self, *arguments):
        assert main([*map(str, arguments)]) == 0
        return self.capture.readouterr()

    def compared(self, path, listed, *more):
        code, said = self.run("image", "inspect", path, "--listed", listed, *more)
        assert (code, said["status"]) == (0, "success"), said
        found = said["data"]["comparison"]
        return found, {each["name"]: each["verdict"] for each in found["claims"]}, said["messages"]

    def refused(self, path, listed):
        code, said = self.run("image", "inspect", path, "--listed", listed, "--no-guest")
        assert code == 12, said
        return said["errors"][0]


@pytest.fixture
def site(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    return Site(tmp_path, capsys)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(qcow2())
    return path


def test_a_disk_with_a_guest_is_compared_in_everything_that_the_list_says(site, tmp_path):
    tree = guests.write_tree(tmp_path / "tree", guests.debian())
    path = guests.disk(tmp_path / "disk.raw", [Part(content=guests.file_system(tmp_path / "root", "ext4", tree))])
    publisher = site.publisher()
    good = publisher.add_image(data=path.read_bytes(), hv_format="raw")["dc:identifier"]
    bad = publisher.add_image(
        data=b"else", hv_format="vmdk", sl_osname="Ubuntu", sl_osversion="24.04", sl_arch="aarch64"
    )["dc:identifier"]
    site.follow()
    names = ("size", "checksum", "format", "architecture", "distribution", "version")
    found, verdicts, messages = site.compared(path, good.upper())
    assert (found["subscription"], found["list_identifier"]) == ("lab", publisher.identifier)
    assert (verdicts, messages) == (dict.fromkeys(names, "same"), [])
    _, verdicts, messages = site.compared(path, bad)
    assert verdicts == dict.fromkeys(names, "differs")
    assert len(messages) == 1
    assert "the list says Ubuntu, and the disk has Debian GNU/Linux 12 (bookworm)" in messages[0]
    _, verdicts, _ = site.compared(path, bad, "--no-guest")
    assert [verdicts[name] for name in names[3:]] == ["not-known"] * 3


def test_a_list_that_calls_a_disk_raw_is_told_so_and_the_disk_is_not_refused(site, disk):
    identifier = site.publisher().add_image(data=disk.read_bytes(), hv_format="raw")["dc:identifier"]
    site.follow()
    _, verdicts, messages = site.compared(disk, identifier, "--no-guest")
    assert (verdicts["format"], verdicts["checksum"]) == ("differs", "same")
    assert "image disk.img is qcow2, and its list says 'raw'" in messages[0]
    told = site.text("image", "inspect", disk, "--listed", identifier, "--no-guest")
    assert "compared with the list\n" in told.out
    assert "its list says 'raw'" in told.err
    assert "its list says" not in told.out


def test_an_image_that_two_lists_name_is_named_with_its_list_or_subscription(site, disk):
    first, second = site.publisher("one"), site.publisher("two")
    image = first.add_image(data=disk.read_bytes())
    second.add_image(data=raw_disk(), dc_identifier=image["dc:identifier"])
    site.follow()
    identifier = image["dc:identifier"]
    error = site.refused(disk, identifier)
    assert (error["code"], error["resolution"]) == ("state-invalid", "Write SUBSCRIPTION/IDENTIFIER.")
    assert error["details"].splitlines() == [f"one/{identifier}: Debian 12 1", f"two/{identifier}: Debian 12 1"]
    for owner, verdict in (("one", "same"), (first.identifier.upper(), "same"), ("two", "differs")):
        _, verdicts, _ = site.compared(disk, f"{owner}/{identifier}", "--no-guest")
        assert verdicts["checksum"] == verdict


def test_two_subscriptions_to_one_list_that_say_the_same_need_no_more(site, disk):
    publisher = site.publisher("one")
    identifier = publisher.add_image(data=disk.read_bytes())["dc:identifier"]
    site.lists["two"] = publisher
    site.follow()
    assert site.compared(disk, identifier, "--no-guest")[1]["checksum"] == "same"


def test_an_image_that_no_followed_list_names_is_not_found_with_what_is_in_the_way(site, disk):
    error = site.refused(disk, "8a1f2f60-0000-4000-8000-000000000001")
    assert (error["code"], error["details"]) == ("not-found", None)
    assert not (site.root / "state").exists()
    publisher = site.publisher()
    publisher.add_image()
    broken = publisher.add_image(hv_size="many")["dc:identifier"]
    site.follow()
    details = site.refused(disk, broken)["details"]
    assert details.startswith("lab: its list names it, and what it says of it cannot be read: ")
    site.subscribe("later", publisher, "https://h.example/list")
    error = site.refused(site.root / "none.img", "8a1f2f60-0000-4000-8000-000000000001")
    assert error["code"] == "not-found"
    assert error["details"].startswith("later: ")
    assert "coppice image list" in error["resolution"]


def test_what_was_not_asked_for_is_not_compared(site, disk):
    code, said = site.run("image", "inspect", disk, "--no-guest")
    assert (code, said["data"]["comparison"]) == (0, None)
