# SPDX-License-Identifier: Apache-2.0
"""A database that is damaged, gone, of another time or not writable: nothing is deleted because of it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from coppice.database import MIGRATIONS
from coppice.testing.oracle import Oracle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.threat("T85")]
COMMANDS = (("sync",), ("cache", "fetch"), ("cache", "prune"), ("retire",))


class Struck:
    """A site with version 1 registered, its oracle and its database."""

    def __init__(self, site, forge) -> None:
        self.site, self.forge = site, forge

    def run(self, *arguments, **options):
        environment = self.site.environment()
        return self.forge.run(
            "--config", str(self.site.settings), "--json", *arguments, environment=environment, **options
        )


@pytest.fixture
def struck(site, forge):
    run = Struck(site, forge).run
    ended = run("cache", "fetch")
    assert ended.code == 0, ended
    oracle = Oracle(state=site.state, cloud=site.cloud)
    oracle.disks = frozenset(each.disk for each in oracle.registered())
    oracle.plant()
    return site, oracle, site.state / "coppice.sqlite", run


def files_of(site):
    """Return the bytes of the cache and of the cloud."""
    found = {}
    for root in (site.state / "cache" / "objects", site.state / "cache" / "handed-out", site.cloud):
        found |= {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return found


def nothing_is_lost(site, run):
    """Run everything that removes; each must say what is wrong, and touch nothing."""
    before = files_of(site)
    for command in COMMANDS:
        ended = run(*command)
        assert ended.code == 10, ended
        assert ended.error_codes == ("database-failed",)
        assert files_of(site) == before, command
    assert not list(site.state.glob("log/defect-*"))


def alone(database):
    """Have everything in the one file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"no database at all" * 1000,
        lambda data: data[:100],
        lambda data: b"\0" * len(data),
        lambda data: data[: len(data) // 2],
    ],
    ids=["garbage", "head-only", "zeros", "half"],
)
def test_a_database_that_cannot_be_read_stops_every_command_and_loses_nothing(struck, damage):
    site, oracle, database, run = struck
    alone(database)
    whole = database.read_bytes()
    database.write_bytes(damage(whole))
    nothing_is_lost(site, run)
    database.write_bytes(whole)
    assert run("sync").code == 0
    oracle.check_after_fault()


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_an_empty_database_knows_no_subscription_and_withdraws_nothing(struck, how):
    site, oracle, database, run = struck
    alone(database)
    database.unlink()
    if how == "empty":
        database.touch()
    before = {path: data for path, data in files_of(site).items() if site.cloud in path.parents}
    objects = {path.name for path in (site.state / "cache" / "objects").rglob("*")}
    for command in COMMANDS:
        assert run(*command).code == 0
        assert {path: data for path, data in files_of(site).items() if site.cloud in path.parents} == before, command
    assert {path.name for path in (site.state / "cache" / "objects").rglob("*")} == objects
    for path in oracle.foreign:
        assert path.exists()
    # Whoever subscribes anew has everything again, and nothing is registered twice.
    anchors, endorser = str(site.anchors), str(site.root / "jane.pem")
    options = ("--anchors", anchors, "--endorser-certificate", endorser)
    assert run("subscription", "add", "demo", site.publisher.uri, *options).code == 0
    assert run("sync").code == 0
    assert [(each.version, each.state) for each in oracle.registered()] == [("1", "available")]


def test_a_newer_schema_is_refused_and_loses_nothing(struck):
    site, oracle, database, run = struck
    alone(database)
    whole = database.read_bytes()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    nothing_is_lost(site, run)
    database.write_bytes(whole)
    assert run("sync").code == 0
    oracle.check_after_fault()


def made_older(database, revision):
    """Make the database what the version of Coppice had that knew its schema up to ``revision``, with the same rows."""
    alone(database)
    older = database.with_name("older.sqlite")
    engine = create_engine(f"sqlite:///{older}")
    scripts = ScriptDirectory(str(MIGRATIONS))
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda known, _context: scripts._upgrade_revs(revision, known)}
        )
        with Operations.context(context):
            context.run_migrations()
    engine.dispose()
    with closing(sqlite3.connect(older)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH DATABASE ? AS newer", (str(database),))
        tables = "SELECT name FROM {}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        known, now = ({row[0] for row in connection.execute(tables.format(one))} for one in ("main", "newer"))
        assert known < now
        with connection:
            for table in sorted(known - {"alembic_version"}):
                columns = [
                    {row[1] for row in connection.execute(f"PRAGMA {one}.table_info({table})")}
                    for one in ("main", "newer")
                ]
                names = ", ".join(f'"{name}"' for name in sorted(columns[0] & columns[1]))
                connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")  # noqa: S608 - names of the schema
    older.replace(database)


def test_a_database_of_an_older_schema_is_brought_up_and_nothing_is_deleted(struck, kit):
    site, oracle, database, run = struck
    made_older(database, "0003")
    older = database.read_bytes()
    before = files_of(site)
    # Whichever command comes first after the upgrade.
    for command in (*COMMANDS, ("event", "list")):
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        database.write_bytes(older)
        ended = run(*command)
        assert ended.code == 0, ended
        now = files_of(site)
        for path, data in before.items():
            # Records may be written anew; no object, no disk and nothing that was handed out changes.
            assert path.exists(), (command, path)
            assert path.suffix == ".json" or now[path] == data, (command, path)
        oracle.check_after_fault()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM archived_list").fetchone() == (1,)
    site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
    site.next_version()
    site.publish()
    assert run("sync").code == 0
    oracle.disks |= {each.disk for each in oracle.registered()}
    assert sorted((each.version, each.state) for each in oracle.registered()) == [
        ("1", "superseded"),
        ("2", "available"),
    ]
    oracle.check_after_fault()


def test_a_log_that_was_deleted_loses_no_more_than_what_was_in_it(struck, kit):
    site, oracle, database, run = struck
    alone(database)
    # Held open, so that what the run writes stays in the log.
    with closing(sqlite3.connect(database)) as holder:
        holder.execute("SELECT count(*) FROM event").fetchall()
        site.renew(site.first, kit.tiny_qcow2(site.root, seed=2), "2")
        site.next_version()
        site.publish()
        assert run("sync").code == 0
    oracle.disks |= {each.disk for each in oracle.registered()}
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    oracle._trusted = {}
    assert run("sync").code == 0
    assert sorted((each.version, each.state) for each in oracle.registered()) == [
        ("1", "superseded"),
        ("2", "available"),
    ]
    oracle.check_after_fault()


def test_flipped_bits_are_told_or_do_no_harm(struck):
    site, oracle, database, run = struck
    alone(database)
    whole = database.read_bytes()
    chooser = random.Random(85)  # noqa: S311 - which bits
    told = 0
    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(20):
            position = chooser.randrange(len(damaged))
            damaged[position] ^= 1 << chooser.randrange(8)
        database.write_bytes(damaged)
        before = files_of(site)
        ended = run("sync")
        assert ended.code == 0 or ended.error_codes, ended
        assert ended.code != 70, ended
        told += ended.code != 0
        for path, data in before.items():
            # Dates may be renewed; nothing is deleted, and no disk changes.
            assert path.exists(), path
            assert path.name == "image.json" or path.read_bytes() == data, path
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.write_bytes(whole)
    assert run("sync").code == 0
    oracle.check_after_fault()


def test_a_database_that_can_only_be_read_is_told_and_loses_nothing(struck):
    site, oracle, database, run = struck
    alone(database)
    # Whoever may write everything needs the kernel's help: each opening for writing fails, one for reading does not.
    strike = ["-P", str(database), "-e", "trace=openat", "-e", "inject=openat:error=EROFS:when=1+2", "-o", "/dev/null"]
    before = files_of(site)
    for command in COMMANDS:
        ended = run(*command, strace=strike)
        # What finds nothing to do has nothing to write.
        assert ended.code == 10 or (ended.code == 0 and command != ("sync",)), ended
        assert set(ended.error_codes) <= {"database-failed"}
        assert files_of(site) == before
    oracle.check_after_fault()
