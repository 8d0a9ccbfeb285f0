# SPDX-License-Identifier: Apache-2.0
"""Whole syncs over deltas: what is fetched, and that clouds cannot tell the difference."""

from __future__ import annotations

import os

import pytest

from coppice.cache.model import Held
from coppice.cache.shelf import Shelf
from coppice.events.model import EventKind
from coppice.testing.nginx import Nginx
from coppice.testing.versions import VersionsPublisher, VersionsSite, file_system

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("disks")
    files = {f"file-{number}": os.urandom(60_000) for number in range(60)}
    made = []
    for version in range(3):
        files |= {f"file-{number}": os.urandom(60_000) for number in range(2 * version)}
        made.append(file_system(directory, str(version), files))
    return made


def cached_events(site):
    return [event.facts for event in site.journal.events() if event.kind is EventKind.IMAGE_CACHED]


@pytest.mark.parametrize("with_patch", [True, False])
def test_updates_come_as_their_difference_and_clouds_cannot_tell(tmp_path, disks, with_patch):
    (tmp_path / "nginx").mkdir()
    publisher = VersionsPublisher(tmp_path / "publisher", base=None)
    with Nginx(tmp_path / "nginx") as server:
        server.root.rmdir()
        server.root.symlink_to(publisher.www)
        publisher.base = server.url("/").rstrip("/")
        publisher.simulator.uri = f"{publisher.base}/demo.list"
        site = VersionsSite(tmp_path / "site", publisher)
        image = publisher.add("Debian 12", disks[0])
        publisher.publish()
        assert site.sync().failure() is None
        for number in (1, 2):
            origins = disks[:number] if with_patch else []
            publisher.renew(image, str(number + 1), disks[number], origins)
            publisher.publish()
            assert site.sync().failure() is None
    assert site.registered() == {"1": "superseded", "2": "superseded", "3": "available"}
    told = cached_events(site)
    method = "patch" if with_patch else "blocks"
    assert [facts["method"] for facts in told] == ["whole", method, method]
    whole = int(image["hv:size"])
    assert all(int(facts["fetched_bytes"]) < whole / 4 for facts in told[1:])
    # What is registered is the version that was listed, under the listed file's digest.
    newest = next(each for each in site.cloud.describe() if each.marker.version == "3")
    assert newest.marker.digest.hexdigest == image["sl:checksum:sha512"]
    (link,) = (tmp_path / "site" / "cloud" / "current").iterdir()
    (disk,) = link.glob("disk.*")
    assert disk.suffix == ".raw"
    assert disk.read_bytes() == disks[2]
    held = {entry.held for entry in Shelf(tmp_path / "site" / "state" / "cache").layout.entries()}
    assert held == {Held.PUBLISHED, Held.GUEST}
    again = site.sync()
    assert all(report.plan is not None and report.plan.actions == () for report in again.clouds)
    site.close()


def test_a_delta_that_is_broken_costs_the_whole_file_and_is_told(tmp_path, disks):
    publisher = VersionsPublisher(tmp_path / "publisher")
    site = VersionsSite(tmp_path / "site", publisher)
    image = publisher.add("Debian 12", disks[0])
    publisher.publish()
    assert site.sync().failure() is None
    publisher.renew(image, "2", disks[1], [disks[0]])
    for path in (publisher.www / "deltas").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    publisher.publish()
    assert site.sync().failure() is None
    assert site.registered() == {"1": "superseded", "2": "available"}
    facts = cached_events(site)[-1]
    assert facts["method"] == "whole"
    assert "delta-invalid" in str(facts["fallback"])
    site.close()
