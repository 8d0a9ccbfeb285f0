# SPDX-License-Identifier: Apache-2.0
"""The journal: what is kept of an event, how it is found again, and how long it stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from coppice.database import Database
from coppice.errors import DatabaseError
from coppice.events.deliveries import Deliveries
from coppice.events.journal import EventFilter, Journal, write_event
from coppice.events.model import DeliveryState, EventKind
from coppice.events.payload import MAX_FACTS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    yield database
    database.close()


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def test_events_are_found_by_what_they_are_about(journal: Journal) -> None:
    facts = {"list": "l1", "image": "i1", "cloud": "main", "version": "1"}
    journal.record(EventKind.IMAGE_REGISTERED, subject="main:l1/i1", facts=facts, at=NOW)
    journal.record(EventKind.LIST_VERIFIED, subject="egi", facts={"list": "l1"}, at=NOW + DAY)
    journal.record(EventKind.IMAGE_CACHED, subject="l2/i1", facts={"list": "l2", "image": "i1"}, at=NOW + 2 * DAY)

    def numbers(**wanted: object) -> list[int]:
        return [each.number for each in journal.events(matching=EventFilter(**wanted))]  # type: ignore[arg-type]

    assert numbers(image_identifier="i1") == [1, 3]
    assert numbers(list_identifier="l1") == [1, 2]
    assert numbers(subscription="egi") == [2]
    assert numbers(cloud="main") == [1]
    assert numbers(kinds=(EventKind.IMAGE_CACHED, EventKind.LIST_VERIFIED)) == [2, 3]
    assert numbers(since=NOW + DAY) == [2, 3]
    assert numbers(until=NOW) == [1]
    assert [each.stream for each in journal.events()] == ["image l1/i1", "subscription egi", "image l2/i1"]


def test_numbers_are_never_used_again(journal: Journal) -> None:
    journal.record(EventKind.IMAGE_NEW, subject="a", facts={}, at=NOW)
    assert journal.prune(NOW + DAY, hooks=()) == 1
    journal.record(EventKind.IMAGE_NEW, subject="b", facts={}, at=NOW)
    assert [each.number for each in journal.events()] == [2]


def test_what_is_too_much_for_an_event_is_cut(journal: Journal) -> None:
    deep: object = "x"
    for _ in range(50):
        deep = [deep]
    facts = {
        "text": "y" * 10**6,
        "many": list(range(5000)),
        "deep": deep,
        "wide": {f"k{count}": "z" * 100 for count in range(5000)},
        "list": "l1",
    }
    journal.record(EventKind.IMAGE_FAILED, subject="s" * 10**6, facts=facts, at=NOW)
    (event,) = journal.events()
    assert len(json.dumps(event.facts)) <= MAX_FACTS_BYTES + 1000
    assert event.facts["list"] == "l1"
    assert str(event.facts["text"]).endswith("[cut]")
    assert len(event.subject) < 20_000


def test_text_that_is_no_text_does_not_stop_an_event(journal: Journal) -> None:
    journal.record(
        EventKind.IMAGE_FAILED, subject="a\udcffb\x00c", facts={"error": {"path": "/x\udcff"}, "list": "\udcfe"}, at=NOW
    )
    (event,) = journal.events()
    assert event.subject == "a\\udcffbc"
    assert event.facts["error"] == {"path": "/x\\udcff"}
    json.dumps(event.facts).encode()


def test_secrets_stay_out_but_what_a_list_says_is_kept_word_for_word(journal: Journal) -> None:
    facts = {
        "uri": "https://user:pass@example.org/x",
        "password": "geheim",
        "listed": {"description": "The default password: none. token=abc"},
    }
    journal.record(EventKind.IMAGE_NEW, subject="a", facts=facts, at=NOW)
    (event,) = journal.events()
    assert "pass@" not in str(event.facts["uri"])
    assert "geheim" not in json.dumps(event.facts)
    assert event.facts["listed"] == {"description": "The default password: none. token=abc"}


def test_old_events_go_but_none_that_a_hook_was_not_told_of(journal: Journal, database: Database) -> None:
    deliveries = Deliveries(database)
    deliveries.meet(["a", "b"], NOW)
    for count in range(5):
        journal.record(EventKind.IMAGE_NEW, subject=f"{count}", facts={}, at=NOW)
    events = journal.events()
    for name in ("a", "b"):
        for event in events[:4]:
            begun = deliveries.begin(name, event, NOW)
            assert begun is not None
            if (name, event.number) == ("a", 2):
                deliveries.failed(begun, DatabaseError("no"), NOW, due_at=None, output=None)
            elif (name, event.number) == ("b", 3):
                deliveries.failed(begun, DatabaseError("no"), NOW, due_at=NOW + DAY, output=None)
            else:
                deliveries.delivered(begun, "", NOW)
    assert journal.prune(NOW + DAY, hooks=("a", "b")) == 2
    assert [each.number for each in journal.events()] == [2, 3, 5]
    # A hook that is in the settings no more holds nothing up.
    assert journal.prune(NOW + DAY, hooks=("b",)) == 1
    assert [each.number for each in journal.events()] == [3, 5]
    assert journal.prune(NOW - DAY, hooks=()) == 0
    assert deliveries.of_event(2) == ()


def test_a_hook_that_was_not_met_keeps_nothing(journal: Journal) -> None:
    journal.record(EventKind.IMAGE_NEW, subject="a", facts={}, at=NOW)
    assert journal.prune(NOW + DAY, hooks=("new",)) == 1


def test_events_can_be_found_by_what_became_of_telling(journal: Journal, database: Database) -> None:
    deliveries = Deliveries(database)
    deliveries.meet(["a"], NOW)
    for count in range(3):
        journal.record(EventKind.IMAGE_NEW, subject=f"{count}", facts={}, at=NOW)
    begun = deliveries.begin("a", journal.events()[1], NOW)
    assert begun is not None
    deliveries.failed(begun, DatabaseError("no"), NOW, due_at=None, output="what it said")
    parked = EventFilter(states=(DeliveryState.PARKED,))
    assert [each.number for each in journal.latest(matching=parked)] == [2]
    assert [each.number for each in journal.events(matching=EventFilter(hook="a"))] == [2]
    assert [(each.event, each.output) for each in deliveries.parked()] == [(2, "what it said")]


@pytest.mark.threat("T80")
def test_a_change_whose_event_cannot_be_written_does_not_happen(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    journal = Journal(database)
    journal.record(EventKind.IMAGE_NEW, subject="before", facts={}, at=NOW)
    deliveries = Deliveries(database)

    def write_until_full() -> None:
        with database.session() as session:
            # SQLite answers as on a full disk when no page may be added.
            session.execute(text("PRAGMA max_page_count = 1"))
            session.execute(text("INSERT INTO hook VALUES ('h', 'x', '2026-11-01', 0)"))
            for _ in range(200):
                write_event(session, EventKind.IMAGE_NEW, subject="s" * 4000, facts={}, at=NOW)
                session.flush()

    with pytest.raises(DatabaseError, match="full") as caught:
        write_until_full()
    assert "Free space" in (caught.value.resolution or "")
    assert [each.subject for each in journal.events()] == ["before"]
    assert deliveries.standings(["h"])[0].met_at is None
    database.close()


def test_events_of_an_older_schema_can_be_searched(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    Database(f"sqlite:///{path}").close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table in (
            *("delivery", "hook", "imported_event", "intended_event", "told_image"),
            *("cloud_observation", "revoked_content", "revocation", "job"),
        ):
            connection.execute(text(f"DROP TABLE {table}"))
        for index in ("ix_event_at", "ix_event_image", "ix_event_subscription"):
            connection.execute(text(f"DROP INDEX {index}"))
        for column in ("subscription", "list_identifier", "image_identifier", "cloud"):
            connection.execute(text(f"ALTER TABLE event DROP COLUMN {column}"))
        for column in ("built_on", "evidence"):
            connection.execute(text(f"ALTER TABLE appliance_version DROP COLUMN {column}"))
        insert = text("INSERT INTO event (kind, subject, facts, at) VALUES (:kind, :subject, :facts, '2026-11-01')")
        facts = json.dumps({"list": "l1", "image": "i1", "cloud": "main"})
        connection.execute(insert, {"kind": "ImageRegistered", "subject": "main:l1/i1", "facts": facts})
        connection.execute(insert, {"kind": "ImageListVerified", "subject": "egi", "facts": '{"list": "l1"}'})
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    engine.dispose()
    database = Database(f"sqlite:///{path}")
    found = Journal(database).events()
    assert [(each.subscription, each.list_identifier, each.image_identifier, each.cloud) for each in found] == [
        (None, "l1", "i1", "main"),
        ("egi", "l1", None, None),
    ]
    database.close()
