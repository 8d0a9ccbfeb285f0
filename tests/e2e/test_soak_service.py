# SPDX-License-Identifier: Apache-2.0
"""``coppice run`` beside a publisher that makes version after version, while whatever can go wrong does.

The service is killed and started again, its jobs are killed, the source fails in every way, images are deleted behind
its back. In the end everything is as it should be, and nothing has leaked. What the metrics say is kept as CSV, for
``benchmarks/plot_soak.py``: COPPICE_SOAK_CSV says where.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from coppice.testing.server import cut, drip, serve, stall, status
from coppice.testing.service import RunningService, is_running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.threat("T82"), pytest.mark.threat("T90")]

CLOUD = """
grace_days = {grace_days}

[plan]
keep_versions = 0
maximum_withdrawn_share = 1.0

[cache]
keep_unneeded_days = 0

[service]
listen = "127.0.0.1:0"
sync_seconds = {sync}
retire_seconds = {retire}
prune_seconds = {retire}
jitter = 0.2
stop_seconds = 10
"""
TITLE = "Debian 12"
GROWTH_BYTES = 48 * 1024 * 1024
"""How much more memory a service may have in the end than when it had warmed up."""


class Publisher:
    """Makes versions at their time, and lets its server fail in between."""

    def __init__(self, site, kit, place, seed) -> None:
        self.site, self.kit, self.place = site, kit, place
        self.random = random.Random(seed)  # noqa: S311 - what goes wrong when can be had again
        self.version = 1
        self.faults = {}

    def publish(self):
        self.version += 1
        data = self.kit.tiny_qcow2(self.place, seed=self.version, size_bytes=4 * 1024 * 1024)
        self.site.renew(self.site.first, data, str(self.version))
        self.site.next_version()
        self.site.publish()

    def fail(self):
        """Have the list or the newest image fail in some way."""
        name = self.site.first["hv:uri"].rpartition("/")[2]
        data = self.site.publisher.files.get(name)
        where, what, behaviour = self.random.choice(
            [
                ("/lists/demo.list", "list refused", status(503)),
                ("/lists/demo.list", "list cut", cut(self.site.publisher.message(), 300)),
                ("/lists/demo.list", "list stalls", stall(self.site.publisher.message(), 100, seconds=3)),
                ("/lists/demo.list", "list forged", serve(self.site.publisher.message().replace(b"a", b"b", 1))),
                *(
                    ()
                    if data is None
                    else (
                        (f"/lists/images/{name}", "image refused", status(500)),
                        (f"/lists/images/{name}", "image cut", cut(data, len(data) // 2, reset=True)),
                        (f"/lists/images/{name}", "image forged", serve(data[:-1] + b"!")),
                        (f"/lists/images/{name}", "image drips", drip(data[:64], 0.05)),
                    )
                ),
            ]
        )
        self.faults[what] = self.faults.get(what, 0) + 1
        self.site.server.set(where, behaviour)

    def heal(self):
        self.site.publish()


class Watch:
    """Looks at the cloud every 50 ms, and at the metrics every second."""

    def __init__(self, site, table) -> None:
        self.site, self.table = site, table
        self.service = None
        self.looks = self.without = 0
        self.rows, self.longest = [], 0.0
        self.begun = time.monotonic()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._look, self._scrape)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=120)
        if self.service is not None and self.service.program.poll() is None:
            # The test failed: its service, and the jobs of that, are left no more than when it passes.
            self.service.kill()
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in self.rows for key in row)))
            writer.writeheader()
            writer.writerows(self.rows)

    def _look(self):
        while not self._end.wait(0.05):
            found = [path for path in self.site.cloud.glob("current/*/disk.*") if path.stat().st_size]
            self.looks += 1
            self.without += not found

    def _scrape(self):
        while not self._end.wait(1.0):
            service = self.service
            row = {"seconds": round(time.monotonic() - self.begun, 1), "up": 0}
            # It may be killed just now.
            with suppress(OSError, IndexError, AssertionError):
                row |= self._row(service.metrics(), service.pid)
            self.rows.append(row)

    def _row(self, found, pid):
        def total(name):
            return sum(value for (each, _), value in found.items() if each == name)

        return {
            "up": 1,
            "pid": pid,
            "ready": total("coppice_ready"),
            "behind_seconds": total("coppice_image_behind_seconds"),
            "images": total("coppice_images"),
            "job_runs": total("coppice_job_runs_total"),
            "job_failures": total("coppice_job_failures_total"),
            "store_bytes": total("coppice_store_bytes"),
            "memory_bytes": total("process_resident_memory_bytes"),
            "open_files": total("process_open_fds"),
            "list_age_seconds": time.time() - total("coppice_list_checked_timestamp_seconds"),
        }


def campaign(site, kit, place, table, *, seconds, every, kills, seed):
    """Publish a version ``every`` so many seconds, for ``seconds``; kill the service ``kills`` times meanwhile."""
    publisher, chance = Publisher(site, kit, place, seed), random.Random(seed + 1)  # noqa: S311 - likewise
    moments = sorted(chance.uniform(every, seconds - every / 2) for _ in range(kills))
    pids, jobs_killed, deleted = set(), 0, 0

    def start():
        service = RunningService(site.argv(), env=site.environment(), log=site.root / "service.log")
        service.wait_for(lambda: service.logged("listening"))
        return service

    service = start()
    with Watch(site, table) as watch:
        watch.service = service
        begun = time.monotonic()
        publish_at = fault_at = 0.0
        while (now := time.monotonic() - begun) < seconds:
            if now >= publish_at:
                publisher.publish()
                # Half of the faults are there before anybody has asked for the new version.
                publish_at, fault_at = publish_at + every, now + every * chance.choice([0.0, chance.uniform(0.1, 0.6)])
            if now >= fault_at:
                publisher.fail()
                fault_at = publish_at + every
                heal_at = now + every * chance.uniform(0.1, 0.3)
                time.sleep(max(0.0, min(heal_at, seconds) - now) / 2)
                for child in service.children()[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                        jobs_killed += 1
                deleted += delete_superseded(site, chance)
                publisher.heal()
            if moments and now >= moments[0]:
                moments.pop(0)
                pids |= {service.pid, *service.descendants()}
                service.kill()
                watch.service = service = start()
            time.sleep(0.1)
        publisher.heal()
        wait_for(lambda: newest(site) == str(publisher.version), seconds=120)
        # What was superseded last has its grace, and is removed then.
        wait_for(lambda: list(site.images(is_at_work=True).values()) == ["available"], seconds=120)
        open_files, warm = settled(watch, service)
        pids |= {service.pid, *service.descendants()}
        assert service.stop() == 0
    with suppress(AssertionError):
        wait_for(lambda: not any(is_running(pid) for pid in pids), seconds=30)
    return {
        "publisher": publisher,
        "watch": watch,
        "running": [pid for pid in pids if is_running(pid)],
        "jobs_killed": jobs_killed,
        "deleted": deleted,
        "open_files": open_files,
        "memory": warm,
    }


def newest(site):
    return next(
        (version for (title, version), state in site.images(is_at_work=True).items() if state == "available"), None
    )


def delete_superseded(site, chance):
    """Take away, behind Coppice's back, a version that nobody is shown."""
    shown = {path.resolve().name for path in site.cloud.glob("current/*")}
    others = sorted(path for path in site.cloud.iterdir() if path.name not in {*shown, "current"} and path.is_dir())
    if not others or chance.random() < 0.5:
        return 0
    shutil.rmtree(chance.choice(others), ignore_errors=True)
    return 1


def settled(watch, service):
    """Return how many files the service has open, and its memory when it had warmed up and now."""
    mine = [row for row in watch.rows if row.get("pid") == service.pid]
    found = service.metrics()
    memory = found["process_resident_memory_bytes", ()]
    return found["process_open_fds", ()], (mine[min(20, len(mine) - 1)]["memory_bytes"] if mine else memory, memory)


def check(site, result):
    publisher, watch = result["publisher"], result["watch"]
    figures = (
        f"{publisher.version - 1} versions, faults {publisher.faults}, {result['jobs_killed']} jobs killed, "
        f"{result['deleted']} images deleted, {watch.looks} looks, {watch.without} without a usable version, "
        f"{len(watch.rows)} scrapes, {result['open_files']:.0f} files open, memory {result['memory']}"
    )
    print(figures)  # noqa: T201 - what was measured
    assert watch.looks > 100
    assert watch.without == 0, figures
    assert result["running"] == []
    assert site.images() == {(TITLE, str(publisher.version)): "available"}
    assert site.leftovers() == []
    folders = [path for path in site.cloud.iterdir() if path.name != "current"]
    assert len(folders) == 1
    # One published file is needed; what was cached, fetched half or moved aside before was pruned.
    objects = [path for path in (site.state / "cache" / "objects").rglob("*") if path.suffix == ".json"]
    assert len(objects) <= 2
    assert result["open_files"] < 40
    warm, memory = result["memory"]
    assert memory - warm < GROWTH_BYTES
    assert sum(row["up"] for row in watch.rows) > len(watch.rows) / 2


def make(kit, tmp_path, server, **pace):
    site = kit.Site(
        tmp_path / "site", server, cloud=CLOUD.format(**pace), transfer="attempts = 2\nread_timeout_seconds = 5"
    )
    site.subscribe()
    site.synced()
    return site


@pytest.mark.timeout(400)
def test_in_some_seconds_of_versions_faults_and_kills_everything_converges_and_nothing_leaks(kit, tmp_path, server):
    site = make(kit, tmp_path, server, sync=1, retire=4, grace_days=0.00005)
    result = campaign(site, kit, tmp_path, tmp_path / "soak.csv", seconds=15, every=5, kills=2, seed=6)
    check(site, result)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_in_ten_minutes_of_versions_faults_and_kills_everything_converges_and_nothing_leaks(kit, tmp_path, server):
    site = make(kit, tmp_path, server, sync=5, retire=20, grace_days=0.0005)
    table = Path(os.environ.get("COPPICE_SOAK_CSV", tmp_path / "soak.csv"))
    result = campaign(site, kit, tmp_path, table, seconds=600, every=60, kills=5, seed=int(os.environ.get("SEED", "6")))
    check(site, result)
    assert result["publisher"].version >= 11
