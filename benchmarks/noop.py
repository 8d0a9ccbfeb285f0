# SPDX-License-Identifier: Apache-2.0
"""What a cache run costs in which nothing changed: 1,000 small images are listed, half of them selected and cached.

    python benchmarks/noop.py [--json]

The run is `coppice cache fetch` without the process around it: the list is judged anew, what is handed out is compared
with it, what nothing needs is looked for. Every read of a cached file would show: bytes that this process reads are
counted by the kernel, and each call of the cache's hashing by a count around it. Prints a table, or with ``--json`` one
line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from coppice.cache import shelf
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.http import Client
from coppice.model.identifiers import ImageIdentifier
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.model import ImageSelection
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator
from coppice.workflows.fetch import fetch
from coppice.workflows.refresh import refresh

if TYPE_CHECKING:
    from coppice.settings.model import Settings
    from coppice.workflows.fetch import FetchReport

IMAGES = 1000
SELECTED = 500
IMAGE_BYTES = 64 * 1024
GOAL_CPU_SECONDS = 1.0


def make_settings(directory: Path) -> Settings:
    """Return the shipped defaults, with everything below ``directory``."""
    path = directory / "coppice.toml"
    path.write_text(f'state_directory = "{directory}/state"\n[cache]\nfetch = "all"\n')
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


def prepare(directory: Path, settings: Settings, database: Database) -> None:
    """Subscribe to a list of all images, of which half are selected; the list is a file of this machine."""
    authority = Authority.create("Benchmark CA")
    anchors = authority.write_to(directory / "anchors")
    publisher = Simulator.create(authority, uri=f"file://{directory}/www/all.list")
    for number in range(IMAGES):
        publisher.add_image(title=f"Image {number}", data=number.to_bytes(4, "big") * (IMAGE_BYTES // 4))
    publisher.write_to(directory / "www")
    chosen = tuple(ImageIdentifier(image["dc:identifier"]) for image in publisher.images[:SELECTED])
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
        prepare(directory, settings, database)
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


def _exactly(name: str, figure: int, goal: int) -> dict[str, object]:
    return {"name": name, "figure": figure, "goal": goal, "holds": figure == goal}


def main() -> int:
    """Measure and print; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(Path(directory))
    if "--json" in sys.argv[1:]:
        for row in rows:
            print(json.dumps(row))
    else:
        print(f"{'figure':<38} {'is':>12} {'goal':>12}  holds")
        for row in rows:
            goal = "-" if row["goal"] is None else row["goal"]
            print(f"{row['name']:<38} {row['figure']:>12} {goal:>12}  {'yes' if row['holds'] else 'NO'}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
