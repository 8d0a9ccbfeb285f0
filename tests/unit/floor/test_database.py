# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import coppice.cache.tables
import coppice.catalogue.tables
import coppice.cloud.tables
import coppice.events.tables
import coppice.schedule.tables
import coppice.subscription.tables  # noqa: F401 - declares its tables
from coppice.database import MIGRATIONS, Base, Database, newest_schema
from coppice.errors import DatabaseError
from coppice.events.journal import Journal
from coppice.events.model import EventKind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_the_lineage_gives_exactly_the_declared_tables(tmp_path: Path) -> None:
    Database(url_of(tmp_path / "c.db")).close()
    engine = create_engine(url_of(tmp_path / "c.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_the_newest_schema_is_the_head_of_the_lineage_and_who_has_it_opens_without_reading_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert newest_schema() == ScriptDirectory(str(MIGRATIONS)).get_current_head()
    Database(url_of(tmp_path / "c.db")).close()
    monkeypatch.setitem(sys.modules, "alembic.script", None)
    Database(url_of(tmp_path / "c.db")).close()
    engine = create_engine(url_of(tmp_path / "c.db"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    with pytest.raises(ImportError):
        Database(url_of(tmp_path / "c.db"))


@pytest.mark.threat("T85")
def test_a_damaged_database_is_an_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(DatabaseError):
        Database(url_of(path))
    assert path.read_bytes() == b"not a database" * 500


@pytest.mark.threat("T85")
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Database(url_of(tmp_path / "c.db")).close()
    engine = create_engine(url_of(tmp_path / "c.db"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(DatabaseError, match="newer Coppice"):
        Database(url_of(tmp_path / "c.db"))


def test_a_failed_transaction_leaves_no_trace(tmp_path: Path) -> None:
    database = Database(url_of(tmp_path / "c.db"))
    journal = Journal(database)
    journal.record(EventKind.IMAGE_NEW, subject="first", facts={}, at=NOW)

    def write_and_fail() -> None:
        from coppice.events.journal import write_event

        with database.session() as session:
            write_event(session, EventKind.IMAGE_NEW, subject="second", facts={}, at=NOW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [event.subject for event in journal.latest()] == ["first"]
    database.close()


def test_writers_take_turns_and_every_event_has_its_number(tmp_path: Path) -> None:
    url = url_of(tmp_path / "c.db")
    Database(url).close()

    def write(worker: int) -> None:
        database = Database(url)
        for count in range(10):
            Journal(database).record(EventKind.IMAGE_NEW, subject=f"{worker}-{count}", facts={}, at=NOW)
        database.close()

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database = Database(url)
    events = Journal(database).events()
    assert [event.number for event in events] == list(range(1, 41))
    assert len({event.subject for event in events}) == 40
    assert all(event.at == NOW for event in events)
    database.close()


def test_an_unknown_kind_of_event_is_refused(tmp_path: Path) -> None:
    database = Database(url_of(tmp_path / "c.db"))
    with pytest.raises(ValueError, match="ImageVanished"):
        Journal(database).record("ImageVanished", subject="x", facts={}, at=NOW)
    database.close()
