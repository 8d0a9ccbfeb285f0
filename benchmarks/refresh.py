# SPDX-License-Identifier: Apache-2.0
"""How long a refresh of many unchanged subscriptions takes against a loopback server that takes its time.

    python benchmarks/refresh.py [--json]

The server is a process of its own; it waits 20 ms before each answer and counts what it is asked. Prints a table, or
with ``--json`` one line a figure: ``{"name", "figure", "goal", "holds"}``; exits 1 when a goal is missed.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from coppice.clock import SystemClock
from coppice.database import Database
from coppice.http import Client
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription import rules
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.server import LoopbackServer
from coppice.testing.simulator import Simulator
from coppice.workflows.refresh import refresh

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from coppice.settings.model import Settings
    from coppice.testing.server import Conversation

SUBSCRIPTIONS = 200
LATENCY_SECONDS = 0.02
GOAL_SECONDS = 3.0
_NOT_MODIFIED = 304


def serve(lists: dict[str, bytes], pipe: Connection) -> None:
    """Serve ``lists`` until told to stop; then say how many requests came, how many with a condition, how many 304."""
    counts = {"requests": 0, "conditional": 0, "not_modified": 0}

    def behave(talk: Conversation) -> None:
        path = talk.handler.path
        asked = talk.handler.headers.get("If-None-Match")
        counts["requests"] += 1
        counts["conditional"] += asked is not None
        tag = f'"{path}"'
        talk.pause(LATENCY_SECONDS)
        if asked == tag:
            counts["not_modified"] += 1
            talk.head(_NOT_MODIFIED, {"ETag": tag})
        else:
            talk.whole(200, {"ETag": tag, "Content-Length": str(len(lists[path]))}, lists[path])

    with LoopbackServer() as server:
        for path in lists:
            server.set(path, behave)
        pipe.send(server.url("/"))
        while pipe.recv() != "stop":
            pipe.send(dict(counts))
            counts.update(dict.fromkeys(counts, 0))


def make_settings(directory: Path) -> Settings:
    """Return the shipped defaults, with loopback allowed and everything below ``directory``."""
    path = directory / "coppice.toml"
    path.write_text(f'state_directory = "{directory}/state"\n[transfer]\nallow_private_addresses = true\n')
    return load_settings(config=path, environ={}, options={}, system_file=path)


def run(store: SubscriptionStore, settings: Settings) -> tuple[float, int, int]:
    """Refresh everything; return seconds of wall time, lists that were read, and subscriptions that are fresh."""
    read = 0
    open_message = rules.open_message

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal read
        read += 1
        return open_message(*arguments, **options)

    with mock.patch.object(rules, "open_message", counted):
        before = time.perf_counter()
        report = refresh(
            store.all(),
            store=store,
            client=Client(settings.transfer),
            clock=SystemClock(),
            settings=settings,
            monitor=SILENT,
            with_contents=False,
        )
        seconds = time.perf_counter() - before
    return seconds, read, sum(outcome.fresh for outcome in report.outcomes)


def measure(directory: Path) -> list[dict[str, object]]:
    """Return the figures."""
    authority = Authority.create("Benchmark CA")
    anchors = authority.write_to(directory / "anchors")
    publishers = [Simulator.create(authority) for _ in range(SUBSCRIPTIONS)]
    for publisher in publishers:
        publisher.add_image()
    lists = {f"/{number}.list": publisher.message() for number, publisher in enumerate(publishers)}
    settings = make_settings(directory)
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(lists, there), daemon=True)
    server.start()
    url = here.recv()
    database = Database(settings.database_url)
    store = SubscriptionStore(database)
    try:
        for number, publisher in enumerate(publishers):
            subscription = publisher.subscription(anchors, name=f"list-{number:03}")
            store.add(replace(subscription, uri=f"{url}{number}.list"))
        first_seconds, first_read, first_fresh = run(store, settings)
        here.send("count")
        here.recv()
        seconds, read, fresh = run(store, settings)
        here.send("count")
        counts = here.recv()
    finally:
        here.send("stop")
        server.join()
        database.close()
    ideal = LATENCY_SECONDS * SUBSCRIPTIONS / settings.subscriptions.parallel
    return [
        _exactly("first refresh: lists verified", min(first_read, first_fresh), SUBSCRIPTIONS),
        {"name": "first refresh: wall seconds", "figure": round(first_seconds, 2), "goal": None, "holds": True},
        _exactly("unchanged: subscriptions fresh", fresh, SUBSCRIPTIONS),
        _exactly("unchanged: requests", counts["requests"], SUBSCRIPTIONS),
        _exactly("unchanged: with If-None-Match", counts["conditional"], SUBSCRIPTIONS),
        _exactly("unchanged: answered 304", counts["not_modified"], SUBSCRIPTIONS),
        _exactly("unchanged: lists read", read, 0),
        {
            "name": "unchanged: wall seconds",
            "figure": round(seconds, 2),
            "goal": GOAL_SECONDS,
            "holds": seconds < GOAL_SECONDS,
        },
        {
            "name": "unchanged: times the latency alone",
            "figure": round(seconds / ideal, 2),
            "goal": None,
            "holds": True,
        },
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
        print(f"{'figure':<38} {'is':>8} {'goal':>8}  holds")
        for row in rows:
            goal = "-" if row["goal"] is None else row["goal"]
            print(f"{row['name']:<38} {row['figure']:>8} {goal:>8}  {'yes' if row['holds'] else 'NO'}")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
