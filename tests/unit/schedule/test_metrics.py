# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coppice.cloud.model import ImageState
from coppice.cloud.observations import Observations
from coppice.errors import CloudUnreachableError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.schedule import metrics
from coppice.schedule.metrics import METRICS, Exposition, service_metrics, site_metrics, tally_metrics
from coppice.schedule.model import JobRecord, Outcome
from coppice.schedule.standing import Standing
from coppice.schedule.tally import Tally
from coppice.settings.load import load_settings
from coppice.settings.model import HookSettings
from coppice.subscription.tables import SubscriptionRow, ToldImageRow
from coppice.testing.desired import desired_image, registered_image
from coppice.workflows.facts import hook_backlog, site_facts
from coppice.workflows.tell import meet_hooks

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOSTILE = 'evil"} 1\nforged{x="\\\u202e\ud800' + "\U0001f600" + "x" * 9000
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "metrics.md"


def lines(told):
    """Return the samples as a scrape gives them: (name, labels) → value."""
    text = generate_latest(told).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def value(found, metric, /, **labels):
    return found.get((metric, tuple(sorted(labels.items()))))


class Site:
    def __init__(self, tmp_path, database) -> None:
        file = tmp_path / "coppice.toml"
        file.write_text(
            f'state_directory = "{tmp_path}/state"\n'
            f'[clouds.test]\ndriver = "directory"\nsite = "s"\npath = "{tmp_path}/cloud"\n'
        )
        self.settings = load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})
        self.database = database
        self.state = tmp_path / "state"

    def follow(self, name, list_identifier, **versions):
        with self.database.session() as session:
            session.add(
                SubscriptionRow(
                    name=name,
                    uri="https://example.org/x",
                    driver="hepix",
                    options={},
                    list_identifier=list_identifier,
                    anchors="",
                    revocation="",
                    namespaces="",
                    profile="",
                    trust_on_first_use=False,
                    allow_sha1=False,
                    allow_host_certificate=False,
                    selection={},
                    added_at=NOW,
                    checked_at=NOW - timedelta(hours=3),
                )
            )
            session.flush()
            session.add(ToldImageRow(subscription=name, image_identifier="", version=""))
            for image, version in versions.items():
                identifier = desired_image(image).key.image_identifier
                session.add(ToldImageRow(subscription=name, image_identifier=identifier, version=version))

    def scraped(self, now=NOW):
        told = Exposition()
        site_metrics(told, site_facts(self.settings, self.database, now), now)
        return lines(told)


@pytest.fixture
def site(tmp_path, database):
    return Site(tmp_path, database)


def labels_of(wanted):
    return {
        "cloud": "test",
        "list": str(wanted.key.list_identifier),
        "image": str(wanted.key.image_identifier),
    }


def test_the_page_names_every_metric_with_its_kind_its_labels_and_its_meaning():
    rows = re.findall(r"^\| `(coppice_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows}
    assert told == {name: (each.kind, each.labels, each.meaning) for name, each in METRICS.items()}


def test_what_the_page_says_to_watch_is_made_of_metrics_that_there_are():
    named = set(re.findall(r"\bcoppice_\w+", PAGE.read_text()))
    assert named == set(METRICS)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_names_say_the_unit_and_counters_are_told_from_gauges(name):
    assert name.endswith("_total") == (METRICS[name].kind == "counter")
    assert METRICS[name].meaning.endswith(".")


def test_an_image_whose_list_names_a_newer_version_is_behind_since_that_was_told(site):
    wanted = desired_image("debian", "1")
    site.follow("demo", str(wanted.key.list_identifier), debian="2")
    told_at = NOW - timedelta(hours=5)
    facts = {"list": wanted.key.list_identifier, "image": wanted.key.image_identifier}
    for at in (told_at - timedelta(days=9), told_at):
        Journal(site.database).record(EventKind.IMAGE_CHANGED, subject="x", facts=facts, at=at)
    Observations(site.database).record("test", [registered_image(wanted)], NOW)
    found = site.scraped()
    assert value(found, "coppice_image_behind_seconds", **labels_of(wanted)) == 5 * 3600
    more = {"name": f"{wanted.key}:1"[:200], "version": "1", "listed_version": "2", "vo": ""}
    assert value(found, "coppice_image_info", **labels_of(wanted), **more) == 1


@pytest.mark.parametrize("listed", ["1", "0.9"])
def test_an_image_whose_list_names_no_newer_version_is_not_behind(site, listed):
    wanted = desired_image("debian", "1")
    site.follow("demo", str(wanted.key.list_identifier), debian=listed)
    Observations(site.database).record("test", [registered_image(wanted)], NOW)
    assert value(site.scraped(), "coppice_image_behind_seconds", **labels_of(wanted)) == 0


def test_of_an_image_that_no_known_list_names_it_is_not_said_how_far_it_is_behind(site):
    wanted = desired_image("debian", "1")
    Observations(site.database).record("test", [registered_image(wanted)], NOW)
    found = site.scraped()
    assert value(found, "coppice_image_behind_seconds", **labels_of(wanted)) is None
    expected = wanted.expires.timestamp()
    assert value(found, "coppice_image_expiry_timestamp_seconds", **labels_of(wanted)) == expected


def test_of_several_versions_the_newest_that_is_whole_and_available_counts(site):
    wanted = desired_image("debian", "2")
    site.follow("demo", str(wanted.key.list_identifier), debian="3")
    images = [
        registered_image(desired_image("debian", "1"), state=ImageState.SUPERSEDED),
        registered_image(wanted),
        registered_image(desired_image("debian", "3"), ready=False),
        replace(registered_image(desired_image("other", "1"), state=ImageState.EXPIRED), drift="it is listed"),
    ]
    Observations(site.database).record("test", images, NOW)
    found = site.scraped()
    assert value(found, "coppice_image_behind_seconds", **labels_of(wanted)) is not None
    assert [key for key in found if key[0] == "coppice_image_behind_seconds"] == [
        ("coppice_image_behind_seconds", tuple(sorted(labels_of(wanted).items())))
    ]
    states = {"available": 2, "superseded": 1, "expired": 1}
    assert {state: value(found, "coppice_images", cloud="test", state=state) for state in states} == states
    assert value(found, "coppice_images_not_ready", cloud="test") == 1
    assert value(found, "coppice_images_drifted", cloud="test") == 1


def test_a_cloud_that_does_not_answer_is_down_and_what_it_had_is_told_still(site):
    observations = Observations(site.database)
    observations.record("test", [registered_image(desired_image())], NOW - timedelta(hours=1))
    observations.record_failure("test", CloudUnreachableError("gone"), NOW)
    observations.record("left", [], NOW)
    found = site.scraped()
    assert value(found, "coppice_cloud_up", cloud="test") == 0
    assert value(found, "coppice_cloud_asked_timestamp_seconds", cloud="test") == NOW.timestamp()
    assert value(found, "coppice_cloud_seen_timestamp_seconds", cloud="test") == NOW.timestamp() - 3600
    assert value(found, "coppice_images", cloud="test", state="available") == 1
    # A cloud that is not in the settings any more is none.
    assert value(found, "coppice_cloud_up", cloud="left") is None


def test_how_fresh_each_list_is(site):
    site.follow("demo", "a-list")
    found = site.scraped()
    assert value(found, "coppice_list_state", subscription="demo", state="new") == 1
    assert value(found, "coppice_list_state", subscription="demo", state="fresh") == 0
    assert value(found, "coppice_list_checked_timestamp_seconds", subscription="demo") == NOW.timestamp() - 3 * 3600


def test_hooks_and_stores_are_measured(site):
    site.settings = replace(site.settings, hooks={"front": HookSettings(name="front", kind="file")})
    assert hook_backlog(site.settings, site.database) == 0
    from coppice.clock import FixedClock

    meet_hooks(site.settings, site.database, FixedClock(NOW))
    Journal(site.database).record(EventKind.IMAGE_NEW, subject="x", facts={}, at=NOW)
    (site.state / "cache" / "objects").mkdir(parents=True)
    first = site.state / "cache" / "objects" / "a"
    first.write_bytes(b"x" * 100_000)
    (site.state / "cache" / "b").hardlink_to(first)
    found = site.scraped()
    assert hook_backlog(site.settings, site.database) == 1
    assert value(found, "coppice_hook_waiting", hook="front") == 1
    assert value(found, "coppice_store_files", store="cache") == 2
    # What two names share takes its place once.
    assert 100_000 <= value(found, "coppice_store_bytes", store="cache") < 200_000
    assert value(found, "coppice_store_free_bytes", store="cache") > 0
    assert value(found, "coppice_store_files", store="conversion") is None


def test_jobs_are_told_of():
    record = JobRecord(
        name="sync",
        started_at=NOW,
        ended_at=NOW,
        outcome=Outcome.FAILED,
        exit_code=137,
        seconds=2.5,
        runs=9,
        failures=2,
    )
    told = Exposition()
    standing = Standing(records={"sync": record}, running={"retire": NOW}, next_at={"sync": NOW + timedelta(minutes=1)})
    service_metrics(told, standing, ready=False)
    found = lines(told)
    assert value(found, "coppice_ready") == 0
    assert value(found, "coppice_job_runs_total", job="sync") == 9
    assert value(found, "coppice_job_failures_total", job="sync") == 2
    assert value(found, "coppice_job_failing", job="sync") == 1
    assert value(found, "coppice_job_last_exit_code", job="sync") == 137
    assert value(found, "coppice_job_last_seconds", job="sync") == 2.5
    assert value(found, "coppice_job_running", job="sync") == 0
    assert value(found, "coppice_job_running", job="retire") == 1
    assert value(found, "coppice_job_next_timestamp_seconds", job="sync") == NOW.timestamp() + 60
    # It never succeeded: that is no instant, and not the year 1970.
    assert value(found, "coppice_job_last_success_timestamp_seconds", job="sync") is None


def test_what_happens_is_counted_from_when_the_service_begins_and_each_event_once(database):
    journal = Journal(database)
    journal.record(EventKind.IMAGE_FAILED, subject="before", facts={"cloud": "main"}, at=NOW)
    tally = Tally(database)
    for seconds in (1.5, 2, None, "much", -1, True):
        facts = {"cloud": "main", "seconds": seconds, "size_bytes": 1000}
        journal.record(EventKind.IMAGE_REGISTERED, subject="x", facts=facts, at=NOW)
    journal.record(EventKind.IMAGE_CACHED, subject="x", facts={"fetched_bytes": 700}, at=NOW)
    journal.record(EventKind.IMAGE_FAILED, subject="x", facts={"cloud": "main"}, at=NOW)
    tally.catch_up()
    told = Exposition()
    tally_metrics(told, tally.catch_up())
    found = lines(told)
    assert value(found, "coppice_events_total", kind="ImageRegistered", cloud="main") == 6
    assert value(found, "coppice_events_total", kind="ImageFailed", cloud="main") == 1
    assert value(found, "coppice_events_total", kind="ImageCached", cloud="") == 1
    assert value(found, "coppice_fetched_bytes_total") == 700
    assert value(found, "coppice_registered_bytes_total", cloud="main") == 6000
    assert value(found, "coppice_action_seconds_total", kind="ImageRegistered", cloud="main") == 3.5


@pytest.mark.threat("T76")
def test_what_strangers_wrote_is_a_value_of_a_label_and_nothing_else(site):
    wanted = desired_image("debian", "1")
    Observations(site.database).record(
        "test", [replace(registered_image(wanted), name=HOSTILE.replace("\ud800", ""))], NOW
    )
    told = Exposition()
    site_metrics(told, site_facts(site.settings, site.database, NOW), NOW)
    told.set("coppice_image_info", 1, HOSTILE, *[""] * 6)
    found = lines(told)
    assert not [name for name, _ in found if not name.startswith("coppice_")]
    names = {dict(labels).get("name") for name, labels in found if name == "coppice_image_info"}
    assert all(len(name) <= 200 for name in names)
    assert any(name.startswith('evil"} 1\\nforged{x="') for name in names)


def test_beyond_a_number_of_images_those_that_are_behind_are_told_of_first(site, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_IMAGES", 2)
    images = [desired_image(f"image{number}", "1") for number in range(5)]
    versions = {f"image{number}": "2" if number == 3 else "1" for number in range(5)}
    site.follow("demo", str(images[0].key.list_identifier), **versions)
    Observations(site.database).record("test", [registered_image(each) for each in images], NOW)
    found = site.scraped()
    assert len([key for key in found if key[0] == "coppice_image_behind_seconds"]) == 2
    assert value(found, "coppice_image_behind_seconds", **labels_of(images[3])) is not None
    assert value(found, "coppice_images_left_out") == 3
    assert value(found, "coppice_images", cloud="test", state="available") == 5
