# SPDX-License-Identifier: Apache-2.0
"""What runs cost in which nothing changed: 1,000 small images are listed.

    python benchmarks/noop.py [--json]

The first is `coppice cache fetch` of half of them without the process around it: the list is judged anew, what is
handed out is compared with it, what nothing needs is looked for. Every read of a cached file would show: bytes that
this process reads are counted by the kernel, and each call of the cache's hashing by a count around it.

The second is `coppice sync` into a cloud that has all of them, likewise: every call of the cloud is counted, and must
be as many as with a tenth of the images. Prints a table, or with ``--json`` one line a figure: ``{"name", "figure",
"goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from coppice.cache import shelf
from coppice.clock import SystemClock
from coppice.cloud.memory import MemoryCloud
from coppice.database import Database
from coppice.http import Client
from coppice.model.identifiers import ImageIdentifier
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.model import ImageSelection
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator
from coppice.workflows.fetch import fetch
from coppice.workflows.refresh import refresh
from coppice.workflows.sync import sync

if TYPE_CHECKING:
    from coppice.settings.model import Settings
    from coppice.workflows.converge import SyncReport
    from coppice.workflows.fetch import FetchReport

IMAGES = 1000
SELECTED = 500
IMAGE_BYTES = 64 * 1024
GOAL_CPU_SECONDS = 1.0
GOAL_SYNC_CPU_SECONDS = 2.0


def make_settings(directory: Path, cache: str = "all") -> Settings:
    """Return the shipped defaults, with everything below ``directory``."""
    directory.mkdir(parents=True)
    path = directory / "coppice.toml"
    path.write_text(f'state_directory = "{directory}/state"\n[cache]\nfetch = "{cache}"\n')
    return load_settings(config=path, environ={}, options={}, system_file=path)


def run(settings: Settings, database: Database) -> FetchReport:
    """Do a cache run."""
    return fetch(
        settings=settings,
        database=database,
        clock=SystemClock(),
        monitor=SILENT,
        client=Client(settings.transfer),
    )


def bytes_read() -> int:
    """Return how many bytes this process has read until now, from files and all else."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(fields["rchar"])


def prepare(directory: Path, settings: Settings, database: Database, images: int, selected: int) -> None:
    """Subscribe to a list of images, of which some are selected; the list is a file of this machine."""
    authority = Authority.create("Benchmark CA")
    anchors = authority.write_to(directory / "anchors")
    publisher = Simulator.create(authority, uri=f"file://{directory}/www/all.list")
    for number in range(images):
        publisher.add_image(title=f"Image {number}", data=number.to_bytes(4, "big") * (IMAGE_BYTES // 4))
    publisher.write_to(directory / "www")
    chosen = tuple(ImageIdentifier(image["dc:identifier"]) for image in publisher.images[:selected])
    subscription = replace(
        publisher.subscription(anchors),
        uri=(next((directory / "www").glob("*.list"))).as_uri(),
        selection=ImageSelection(images=chosen),
    )
    store = SubscriptionStore(database)
    store.add(subscription)
    report = refresh(
        store.all(),
        store=store,
        client=Client(settings.transfer),
        clock=SystemClock(),
        settings=settings,
        monitor=SILENT,
    )
    if report.errors:
        raise report.errors[0]


def measure(directory: Path) -> list[dict[str, object]]:
    """Return the figures."""
    settings = make_settings(directory)
    database = Database(settings.database_url)
    hashed = 0
    hash_file = shelf.hash_file

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal hashed
        hashed += 1
        return hash_file(*arguments, **options)

    try:
        prepare(directory, settings, database, IMAGES, SELECTED)
        begun = time.perf_counter()
        first = run(settings, database)
        first_seconds = time.perf_counter() - begun
        if first.errors:
            raise first.errors[0]
        with mock.patch.object(shelf, "hash_file", counted):
            read, wall, cpu = bytes_read(), time.perf_counter(), time.process_time()
            report = run(settings, database)
            cpu, wall, read = time.process_time() - cpu, time.perf_counter() - wall, bytes_read() - read
    finally:
        database.close()
    held = SELECTED * IMAGE_BYTES
    return [
        _exactly("first run: images fetched", sum(each.change == "fetched" for each in first.images), SELECTED),
        {"name": "first run: wall seconds", "figure": round(first_seconds, 2), "goal": None, "holds": True},
        _exactly("nothing changed: images wanted", report.wanted, SELECTED),
        _exactly("nothing changed: changes", len(report.images), 0),
        _exactly("nothing changed: files hashed", hashed, 0),
        {"name": "nothing changed: bytes read", "figure": read, "goal": f"< {held}", "holds": read < held},
        {
            "name": "nothing changed: CPU seconds",
            "figure": round(cpu, 2),
            "goal": GOAL_CPU_SECONDS,
            "holds": cpu < GOAL_CPU_SECONDS,
        },
        {"name": "nothing changed: wall seconds", "figure": round(wall, 2), "goal": None, "holds": True},
    ]


class CountedCloud(MemoryCloud):
    """Counts how often it is called."""

    def __init__(self) -> None:
        super().__init__("counted", "benchmark", (DiskFormat.RAW,))
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        """Return a member; one of the protocol is counted."""
        if name in {"describe", "register", "update_metadata", "change_state", "in_use", "remove"}:
            self.calls[name] += 1
        return super().__getattribute__(name)


def measure_sync(directory: Path, images: int) -> dict[str, Any]:
    """Return what a sync costs in which nothing changed, with so many images registered."""
    settings = make_settings(directory, cache="planned")
    database, cloud = Database(settings.database_url), CountedCloud()

    def synced() -> SyncReport:
        report = sync(
            settings=settings,
            database=database,
            clock=SystemClock(),
            monitor=SILENT,
            clouds={"counted": cloud},
            client=Client(settings.transfer),
        )
        if report.errors:
            raise report.errors[0]
        return report

    try:
        prepare(directory, settings, database, images, images)
        synced()
        registered = len(cloud.describe())
        cloud.calls.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        report = synced()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        database.close()
    plan = report.clouds[0].plan
    return {
        "registered": registered,
        "actions": -1 if plan is None else len(plan.actions),
        "calls": sum(cloud.calls.values()),
        "cpu": cpu,
        "wall": wall,
    }


def measure_syncs(directory: Path) -> list[dict[str, object]]:
    """Return the figures of syncs in which nothing changed."""
    few, many = (measure_sync(directory / str(images), images) for images in (IMAGES // 10, IMAGES))
    return [
        _exactly("sync: images registered", many["registered"], IMAGES),
        _exactly("sync, nothing changed: actions", many["actions"], 0),
        _exactly("sync, nothing changed: calls of the cloud", many["calls"], few["calls"]),
        {
            "name": "sync, nothing changed: CPU seconds",
            "figure": round(many["cpu"], 2),
            "goal": GOAL_SYNC_CPU_SECONDS,
            "holds": many["cpu"] < GOAL_SYNC_CPU_SECONDS,
        },
        {"name": "sync, nothing changed: wall seconds", "figure": round(many["wall"], 2), "goal": None, "holds": True},
    ]


def _exactly(name: str, figure: int, goal: int) -> dict[str, object]:
    return {"name": name, "figure": figure, "goal": goal, "holds": figure == goal}


def main() -> int:
    """Measure and print; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        rows = [*measure(Path(directory) / "cache"), *measure_syncs(Path(directory) / "sync")]
    if "--json" in sys.argv[1:]:
        for row in rows:
            print(json.dumps(row))
    else:
        print(f"{'figure':<42} {'is':>12} {'goal':>12}  holds")
        for row in rows:
            goal = "-" if row["goal"] is None else row["goal"]
            print(f"{row['name']:<42} {row['figure']:>12} {goal:>12}  {'yes' if row['holds'] else 'NO'}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
