# SPDX-License-Identifier: Apache-2.0
"""What is kept of what images hold that are revoked by their names."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from coppice.cloud import revocations as module
from coppice.cloud.model import RevokedContent
from coppice.cloud.revocation import Known
from coppice.cloud.revocations import Revocations, Target
from coppice.database import MIGRATIONS, Database
from coppice.errors import DatabaseError
from coppice.testing.desired import NOW, desired_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
KEY = desired_image().key
OLD = NOW - timedelta(days=1)
LATE = NOW + timedelta(days=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/c.db")
    yield database
    database.close()


def known(version: str, since=None, *, key=KEY, built_on: tuple[str, ...] = ()) -> Known:
    return Known(key, version, desired_image(version=version).listed.checksum, built_on, since)


def content(version: str, *, everywhere: bool) -> RevokedContent:
    return RevokedContent(digest=desired_image(version=version).listed.checksum, everywhere=everywhere)


def kept(database: Database) -> dict[str, bool]:
    (revocation,) = Revocations(database).in_force()
    names = {str(desired_image(version=str(each)).listed.checksum): str(each) for each in range(10)}
    return {names[str(each.digest)]: each.everywhere for each in revocation.contents}


def test_what_every_version_of_a_name_held_is_kept_each_once_and_goes_with_its_revocation(database: Database):
    revocations, target = Revocations(database), Target(key=KEY)
    other = desired_image("other").key
    made, _ = revocations.make(target, reason="a door", at=NOW, known=[known("1"), known("1"), known("7", key=other)])
    assert made.revocation.contents == (content("1", everywhere=True),)
    assert revocations.make(target, reason="again", at=LATE, known=[known("2")])[0] == made
    later = [known("1", LATE), known("3", OLD), known("4", LATE), known("5"), known("6", key=other), known("5")]
    assert revocations.learn(later) == revocations.learn(later) == ()
    assert kept(database) == {"1": True, "3": True, "4": False, "5": False}
    # A cloud that did not answer then answers.
    revocations.learn([known("5", NOW)])
    assert kept(database)["5"]
    revocations.take_back(target, at=LATE)
    revocations.make(target, reason="a door", at=LATE)
    assert kept(database) == {}


def test_of_one_version_that_is_revoked_only_what_it_held_is_kept(database: Database):
    revocations = Revocations(database)
    revocations.make(Target(key=KEY, version="1"), reason="a door", at=NOW, known=[known("1"), known("2")])
    revocations.make(Target(digest=known("1").digest), reason="a door", at=NOW, known=[known("1")])
    revocations.make(Target(key=KEY, version="9"), reason="a door", at=NOW, known=[replace(known("9"), version="?")])
    revocations.learn([known("1", OLD), known("2", OLD)])
    assert [each.contents for each in revocations.in_force()] == [(content("1", everywhere=True),), (), ()]


def test_beyond_very_many_only_that_is_kept_on_which_something_is_built_and_nothing_is_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_CONTENTS", 2)
    revocations = Revocations(database)
    revocations.make(Target(key=KEY), reason="a door", at=NOW, known=[known("1")])
    assert revocations.learn([known("2"), known("3"), known("4", OLD)]) == (known("3"),)
    built = known("9", key=desired_image("top").key, built_on=(known("5").prefix,))
    assert revocations.learn([known("5"), built, known("6")]) == (known("6"),)
    assert kept(database) == {"1": True, "2": False, "4": True, "5": False}


def test_what_an_older_version_kept_beside_a_name_counts_for_every_list(tmp_path: Path):
    engine = create_engine(f"sqlite:///{tmp_path}/c.db")
    scripts = ScriptDirectory(str(MIGRATIONS))
    digest = str(known("1").digest)
    name = (KEY.list_identifier, KEY.image_identifier)
    rows = [(digest, *name, "1"), (None, *name, None), (digest, None, None, None)]
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"fn": lambda current, _context: scripts._upgrade_revs("0008", current)}
        )
        with Operations.context(context):
            context.run_migrations()
        for row in rows:
            statement = "INSERT INTO revocation (digest, list_identifier, image_identifier, version, reason, at)"
            connection.exec_driver_sql(f"{statement} VALUES (?, ?, ?, ?, 'a door', '2026-11-01 12:00:00')", row)
    engine.dispose()
    database = Database(f"sqlite:///{tmp_path}/c.db")
    found = Revocations(database).in_force()
    assert [(each.digest, each.key, each.version) for each in found] == [
        (None, KEY, "1"),
        (None, KEY, None),
        (known("1").digest, None, None),
    ]
    assert [each.contents for each in found] == [(content("1", everywhere=True),), (), ()]
    database.close()


def test_a_damaged_content_is_an_error_and_not_something_that_is_not_revoked(database: Database):
    revocations = Revocations(database)
    revocations.make(Target(key=KEY), reason="a door", at=NOW, known=[known("1")])
    with database.session() as session:
        session.connection().exec_driver_sql("UPDATE revoked_content SET digest = 'x'")
    with pytest.raises(DatabaseError, match="damaged"):
        revocations.in_force()
    with pytest.raises(DatabaseError, match="damaged"):
        revocations.learn([known("2")])
