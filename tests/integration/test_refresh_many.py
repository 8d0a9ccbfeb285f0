# SPDX-License-Identifier: Apache-2.0
"""A hundred lists, one of them with ten thousand images: a refresh stays within bounds of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.database import Database
from coppice.settings.load import load_settings
from coppice.subscription.store import SubscriptionStore
from coppice.testing.authority import Authority
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.threat("T92")]

LISTS, IMAGES = 100, 10_000
CPU_SECONDS, RSS_BYTES = 10, 200_000_000
# In a process of its own, so that nothing but the refresh counts.
PROGRAM = """
import json, sys, time
from pathlib import Path
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.http import Client
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.subscription.store import SubscriptionStore
from coppice.workflows.refresh import refresh

path = Path(sys.argv[1])
settings = load_settings(config=path, environ={}, options={}, system_file=path)
database = Database(settings.database_url)
store = SubscriptionStore(database)
report = refresh(
    store.all(),
    store=store,
    client=Client(settings.transfer),
    clock=SystemClock(),
    settings=settings,
    monitor=SILENT,
    with_contents=sys.argv[2] == "contents",
)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
contents = [outcome.verified.content for outcome in report.outcomes if outcome.verified is not None]
print(json.dumps({
    "fresh": sum(outcome.fresh for outcome in report.outcomes),
    "errors": [str(error) for error in report.errors],
    "images": sum(len(content.images) for content in contents),
    "cpu_seconds": time.process_time(),
    "rss_bytes": int(status["VmHWM"].split()[0]) * 1024,
}))
database.close()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many")
    config = directory / "coppice.toml"
    config.write_text(f'state_directory = "{directory}/state"\n')
    authority = Authority.create("Example CA")
    anchors = authority.write_to(directory / "anchors")
    settings = load_settings(config=config, environ={}, options={}, system_file=config)
    database = Database(settings.database_url)
    store = SubscriptionStore(database)
    for number in range(LISTS):
        publisher = Simulator.create(authority)
        for _ in range(IMAGES if number == LISTS // 2 else 3):
            publisher.add_image()
        publisher.uri = (directory / f"{number}.list").as_uri()
        (directory / f"{number}.list").write_bytes(publisher.message())
        store.add(replace(publisher.subscription(anchors), name=f"list-{number}"))
    database.close()
    return config


@pytest.mark.parametrize("contents", ["contents", "states"])
def test_a_refresh_of_many_lists_stays_within_bounds(site: Path, contents: str) -> None:
    argv = [sys.executable, "-c", PROGRAM, str(site), contents]
    ended = subprocess.run(argv, capture_output=True, check=False, timeout=300, text=True)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    print(figures)  # noqa: T201 - for the record
    assert figures["errors"] == []
    assert figures["fresh"] == LISTS
    if contents == "contents":
        assert figures["images"] == IMAGES + 3 * (LISTS - 1)
    assert figures["cpu_seconds"] < CPU_SECONDS
    assert figures["rss_bytes"] < RSS_BYTES
