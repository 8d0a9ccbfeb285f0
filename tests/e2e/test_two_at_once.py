# SPDX-License-Identifier: Apache-2.0
"""Two runs of ``coppice sync`` at once: one works, the other says so and leaves."""

from __future__ import annotations

import os
import signal

import pytest

from coppice.schedule.lock import run_lock
from coppice.testing.server import serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.threat("T84")]


@pytest.fixture
def busy(kit, tmp_path, server):
    """Return a site whose server gives images only when it is told to, and the run that waits for one."""
    site = kit.Site(tmp_path / "site", server)
    site.subscribe()
    name = f"/lists/images/{site.first['dc:identifier']}.qcow2"
    (data,) = site.publisher.files.values()
    held = []

    def hold(talk):
        talk.head(200, {"Content-Length": str(len(data))})
        talk.body(data[:100])
        held.append(talk)
        while not site.released and talk.pause(0.05):
            pass
        talk.body(data[100:])

    site.released = False
    server.set(name, hold)
    site.release = lambda: (setattr(site, "released", True), server.set(name, serve(data)))
    with kit.running(site.start("--json", "sync")) as first:
        kit.wait_until(lambda: held)
        yield site, first


def test_of_two_runs_one_works_and_the_other_says_who_is_at_work(busy):
    site, first = busy
    second = site.sync()
    assert (second.code, second.codes) == (75, ["locked"])
    assert f"pid {first.pid}" in second.said["errors"][0]["message"]
    assert second.said["errors"][0]["resolution"]
    for_people = site.run("sync")
    assert for_people.code == 75
    assert for_people.stderr.startswith("error[locked]: another run is at work (pid")
    assert not site.cloud.exists()
    site.release()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert site.images() == {("Debian 12", "1"): "available"}


def test_what_a_date_or_an_administrator_demands_need_not_wait_for_a_download(busy):
    site, first = busy
    site.ok("retire")
    assert first.poll() is None


def test_a_cloud_that_another_run_changes_is_left_alone_and_the_holder_is_named(busy):
    site, _ = busy
    with run_lock(site.state / "locks" / "cloud-here.lock"):
        ended = site.run("--json", "retire")
    assert (ended.code, ended.codes) == (75, ["locked"])
    assert f"cloud here: another run is at work (pid {os.getpid()}" in ended.said["errors"][0]["message"]


def test_what_only_asks_is_answered_while_a_run_is_at_work(busy):
    site, _ = busy
    for words in (("status",), ("cloud", "images"), ("subscription", "list"), ("cache", "list")):
        site.ok(*words)


def test_a_run_that_was_killed_leaves_no_lock(busy):
    site, first = busy
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(timeout=30)
    site.release()
    site.synced()
    assert site.images() == {("Debian 12", "1"): "available"}
    assert site.leftovers() == []


def test_a_run_that_waits_goes_on_when_the_other_has_ended(busy, kit):
    site, first = busy
    with kit.running(site.start("--json", "sync", "--wait", "60")) as second:
        site.release()
        first.communicate(timeout=60)
        second.communicate(timeout=90)
    assert (first.returncode, second.returncode) == (0, 0)
    assert site.images() == {("Debian 12", "1"): "available"}
