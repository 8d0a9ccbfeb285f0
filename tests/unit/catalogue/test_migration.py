# SPDX-License-Identifier: Apache-2.0
"""A catalogue that an older version wrote is read as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.history import PublicationHistory
from coppice.catalogue.model import KeyKind
from coppice.catalogue.selections import Selections
from coppice.catalogue.sets import Sets
from coppice.database import MIGRATIONS, Database
from coppice.model.image import DiskFormat, Image
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
SHA512 = "ab" * 64
LIST = "2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"
IMAGE = "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2"
ENDS = "2027-01-01 00:00:00"
ROWS: tuple[tuple[str, tuple[object, ...]], ...] = (
    (
        "INSERT INTO appliance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ("debian", IMAGE, "Debian", "d", '["g"]', "Linux", "Debian", "12", "x86_64", '{"minimum_cores": 1}'),
    ),
    (
        "INSERT INTO endorser VALUES (?, ?, ?, ?, ?, ?)",
        ("jane", "/k/jane.pem", "/k/jane.key", None, "Jane", "jane@example.org"),
    ),
    (
        "INSERT INTO appliance_version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (1, "debian", "1", "/i/1.qcow2", "qcow2", 3, 8, SHA512, "2026-11-01 12:00:00", None, None),
    ),
    (
        "INSERT INTO appliance_version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (2, "debian", "2", "/i/2.raw", "raw", 4, 9, SHA512[::-1], "2026-11-02 12:00:00", ENDS, "build.json"),
    ),
    (
        "INSERT INTO selection VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ("general", LIST, "General", "d", "https://x/", None, "jane", "web", 28, "41"),
    ),
    ("INSERT INTO selected_appliance VALUES (?, ?)", ("general", "debian")),
)


def older_database(path: Path, revision: str) -> None:
    """Write a database as the version with the schema ``revision`` did."""
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _enforce(connection: object, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys=ON")  # type: ignore[attr-defined]

    scripts = ScriptDirectory(str(MIGRATIONS))
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda current, _context: scripts._upgrade_revs(revision, current)}
        )
        with Operations.context(context):
            context.run_migrations()
        for statement, values in ROWS:
            connection.exec_driver_sql(statement, values)
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_nothing_of_an_older_catalogue_is_lost(tmp_path: Path, revision: str) -> None:
    older_database(tmp_path / "c.db", revision)
    database = Database(f"sqlite:///{tmp_path}/c.db")
    first, second = Catalogue(database).versions("debian")
    assert (first.version, str(first.path), first.expires, first.mpuri) == ("1", "/i/1.qcow2", None, None)
    assert isinstance(second.image, Image)
    assert (second.image.format, second.image.virtual_size_bytes) == (DiskFormat.RAW, 9)
    assert second.expires is not None
    assert (second.expires.year, second.provenance) == (2027, "build.json")
    assert (first.built_on, first.evidence) == ((), None)
    assert second.appliance.requirements == Requirements(minimum_cores=1)
    assert (second.appliance.hypervisor, second.appliance.comments, second.appliance.keys) == ("KVM", "", {})
    selection = Selections(database).get("general")
    assert [version.version for version in selection.versions] == ["2"]
    assert (selection.last_version, selection.endorsers, selection.keys) == ("41", ("jane",), {})
    assert Endorsers(database).get("jane").kind is KeyKind.PEM
    assert PublicationHistory(database).entries("general") == ()
    assert Sets(database).all() == ()
    database.close()


def test_what_is_not_allowed_now_was_not_made_allowed_by_the_upgrade(tmp_path: Path) -> None:
    older_database(tmp_path / "c.db", "0001")
    Database(f"sqlite:///{tmp_path}/c.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/c.db")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        unique = "SELECT sql FROM sqlite_master WHERE name = 'appliance_version'"
        assert "UNIQUE (appliance_name, version)" in connection.execute(text(unique)).scalar_one()
    engine.dispose()
