# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from coppice.clock import FixedClock
from coppice.errors import DatabaseError
from coppice.schedule import pages as pages_module
from coppice.schedule.pages import FACTS_SECONDS, Pages
from coppice.schedule.standing import Board
from coppice.schedule.tally import Tally
from coppice.settings.load import load_settings
from coppice.workflows.facts import SiteFacts

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOTHING = SiteFacts(lists=(), clouds=(), hooks=(), stores=())


@pytest.fixture
def clock():
    return FixedClock(NOW)


@pytest.fixture
def pages(tmp_path, database, clock):
    file = tmp_path / "coppice.toml"
    file.write_text(f'state_directory = "{tmp_path}/state"\n')
    settings = load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})
    board = Board()
    board.write(started_at=NOW, beat=clock.monotonic())
    return Pages(settings=settings, database=database, board=board, tally=Tally(database), clock=clock)


def test_each_page_answers_its_question(pages):
    assert pages.answer("/healthz", "").body == b"alive\n"
    assert json.loads(pages.answer("/readyz", "").body) == {"ready": True, "reasons": []}
    metrics = pages.answer("/metrics", "text/plain")
    assert (metrics.status, metrics.content_type.split(";")[0]) == (200, "text/plain")
    assert b"\ncoppice_ready 1.0\n" in metrics.body
    assert pages.answer("/", "").status == 200
    for path in ("/metrics/", "/METRICS", "//metrics", "/../metrics", ""):
        assert pages.answer(path, "").status == 404


def test_metrics_are_told_as_openmetrics_to_who_asks_for_it(pages):
    page = pages.answer("/metrics", "application/openmetrics-text; version=1.0.0")
    assert page.content_type.startswith("application/openmetrics-text")
    assert page.body.endswith(b"# EOF\n")


@pytest.mark.threat("T85")
def test_a_database_that_cannot_be_read_is_a_reason_and_the_service_itself_is_told_of_still(pages, monkeypatch):
    def fail(*_):
        raise DatabaseError("the database file:/x failed: canary")

    monkeypatch.setattr(pages_module, "site_facts", fail)
    ready = pages.answer("/readyz", "")
    assert (ready.status, json.loads(ready.body)["reasons"]) == (503, ["database: database-failed"])
    metrics = pages.answer("/metrics", "")
    assert b"\ncoppice_facts_readable 0.0\n" in metrics.body
    assert b"\ncoppice_ready 0.0\n" in metrics.body
    assert b"canary" not in ready.body + metrics.body
    assert pages.answer("/healthz", "").status == 200


def test_facts_are_gathered_once_for_all_who_ask_within_some_seconds(pages, clock, monkeypatch):
    gathered = []
    monkeypatch.setattr(pages_module, "site_facts", lambda *_: gathered.append(1) or NOTHING)
    for _ in range(5):
        pages.answer("/metrics", "")
        pages.answer("/readyz", "")
    assert len(gathered) == 1
    clock.advance(timedelta(seconds=FACTS_SECONDS))
    pages.answer("/metrics", "")
    assert len(gathered) == 2


def test_who_would_wait_for_long_is_told_what_was_known_last(pages, clock, monkeypatch):
    pages.answer("/metrics", "")
    clock.advance(timedelta(seconds=FACTS_SECONDS))
    monkeypatch.setattr(pages_module, "WAIT_SECONDS", 0.05)
    hold, holding = threading.Event(), threading.Event()

    def gather(*_):
        holding.set()
        hold.wait(30)
        return NOTHING

    monkeypatch.setattr(pages_module, "site_facts", gather)
    first = threading.Thread(target=pages.answer, args=("/metrics", ""))
    first.start()
    assert holding.wait(30)
    assert b"\ncoppice_facts_readable 1.0\n" in pages.answer("/metrics", "").body
    hold.set()
    first.join(30)


def test_a_loop_that_hangs_is_told_of(pages, clock):
    clock.advance(timedelta(minutes=10))
    assert (pages.answer("/healthz", "").status, pages.answer("/healthz", "").body) == (503, b"hung\n")
    assert json.loads(pages.answer("/readyz", "").body)["reasons"] == ["hung"]
