# SPDX-License-Identifier: Apache-2.0
"""The one SQL database: its engine, its sessions, its schema's lineage.

A stage owns its tables and declares them on `Base` in its ``tables.py``; their lineage is in ``migrations/``. SQLite is
the default, in write-ahead mode with full synchronisation; writers take their turn from the first statement on.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, column, create_engine, event, inspect, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from coppice.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Dialect, Engine

MIGRATIONS = Path(__file__).parent / "migrations"
_VERSIONS = "alembic_version"
_BUSY_TIMEOUT_SECONDS = 30


class Base(DeclarativeBase):
    """Where every table of Coppice is declared."""


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant; databases without time zones get it in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive instants on the way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = f"naive datetime for the database: {value!r}"
            raise ValueError(message)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give aware instants on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """An open database whose schema is the newest.

    Args:
        url: SQLAlchemy URL. A SQLite file and its directory are made when missing.

    Raises:
        DatabaseError: It cannot be opened, is damaged, or was written by a newer Coppice.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        if self.url.get_backend_name() == "sqlite" and self.url.database not in {None, "", ":memory:"}:
            _prepare_file(Path(str(self.url.database)))
        self._engine = _engine(url)
        with _database_errors(self.url.render_as_string(hide_password=True)):
            _upgrade(self._engine)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session in one transaction: committed when the block ends well, rolled back when not.

        Raises:
            DatabaseError: The database failed.
        """
        with (
            _database_errors(self.url.render_as_string(hide_password=True)),
            Session(self._engine) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def _prepare_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not path.exists():
            path.touch(mode=0o640)
    except OSError as problem:
        raise DatabaseError(
            f"the database {path} cannot be made: {problem.strerror}",
            resolution="Give this user the right to write there, or set `state_directory` elsewhere.",
        ) from problem


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # pysqlite would open transactions late and with a read lock; two writers would then fail instead of waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_SECONDS * 1000}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def newest_schema() -> str:
    """Return the newest schema's number: the last of the lineage, whose files are named for theirs."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _is_newest(engine: Engine) -> bool:
    # What nearly every command finds. To load Alembic only to see it takes a third of a command's start.
    with engine.begin() as connection:
        if not inspect(connection).has_table(_VERSIONS):
            return False
        return connection.execute(select(column("version_num")).select_from(table(_VERSIONS))).all() == [
            (newest_schema(),)
        ]


def _upgrade(engine: Engine) -> None:
    if _is_newest(engine):
        return
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    head = scripts.get_current_head()
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return
        known = {script.revision for script in scripts.walk_revisions()}
        if current is not None and current not in known:
            raise DatabaseError(
                f"the database {engine.url.render_as_string(hide_password=True)} was written by a newer Coppice",
                details=f"schema {current}; this version knows schemas up to {head}",
                resolution="Run the newer version, or restore the database from before the upgrade.",
            )
        context = MigrationContext.configure(
            connection,
            opts={"fn": lambda revision, _context: scripts._upgrade_revs("head", revision)},  # noqa: SLF001 - alembic's own command does the same
        )
        from alembic.operations import Operations

        with Operations.context(context):
            context.run_migrations()


@contextmanager
def _database_errors(shown_url: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as problem:
        cause = str(getattr(problem, "orig", None) or problem)
        is_full = "full" in cause or "No space left" in cause
        raise DatabaseError(
            f"the database {shown_url} failed: {cause}",
            resolution="Nothing was changed. Free space on its file system, then run again."
            if is_full
            else "Nothing was changed. Check the disk and the file's rights; restore it from a backup if it "
            "is damaged. What is registered in clouds is described by the clouds themselves and is not lost.",
        ) from problem
