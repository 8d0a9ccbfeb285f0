# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from coppice.cloud.observations import Observation, Observations
from coppice.cloud.tables import ObservationRow
from coppice.database import Database
from coppice.errors import CloudTimeoutError, CloudUnreachableError
from coppice.events.journal import Journal
from coppice.testing.desired import NOW, desired_image, registered_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit
IMAGES = (
    registered_image(desired_image("a")),
    replace(registered_image(desired_image("b"), ready=False), problem="it is saved still", drift="it is listed"),
)
HOUR = timedelta(hours=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/c.db")
    yield database
    database.close()


def told(database: Database) -> list[tuple[str, str | None]]:
    return [(str(event.kind), event.cloud) for event in Journal(database).events()]


def test_what_a_cloud_had_is_given_back_as_it_was(database: Database):
    observations = Observations(database)
    assert observations.of("test") is None
    observations.record("test", IMAGES, NOW)
    assert observations.of("test") == Observation(cloud="test", at=NOW, images=IMAGES, tried_at=NOW)
    assert observations.all() == (observations.of("test"),)
    assert told(database) == []


def test_a_cloud_that_fails_keeps_what_it_had_and_is_told_once_until_it_answers_again(database: Database):
    observations = Observations(database)
    observations.record("test", IMAGES, NOW)
    for hours, error in enumerate((CloudUnreachableError("no route"), CloudTimeoutError("too slow")), 1):
        observations.record_failure("test", error, NOW + hours * HOUR)
    assert observations.of("test") == Observation(
        cloud="test",
        at=NOW,
        images=IMAGES,
        tried_at=NOW + 2 * HOUR,
        error_code="cloud-timeout",
        error="too slow",
    )
    assert told(database) == [("CloudFailed", "test")]
    observations.record("test", (), NOW + 3 * HOUR)
    observations.record("test", (), NOW + 4 * HOUR)
    assert told(database) == [("CloudFailed", "test"), ("CloudRecovered", "test")]


def test_a_cloud_that_never_answered_was_never_seen(database: Database):
    observations = Observations(database)
    observations.record_failure("test", CloudUnreachableError("no route"), NOW)
    (found,) = observations.all()
    assert (found.at, found.images, found.error_code) == (None, (), "cloud-unreachable")


def test_clouds_that_are_set_up_no_more_are_forgotten(database: Database):
    observations = Observations(database)
    for name in ("a", "b"):
        observations.record(name, (), NOW)
    observations.forget(["b"])
    assert [each.cloud for each in observations.all()] == ["b"]


@pytest.mark.parametrize("kept", [{}, {"marker": 1}, {"marker": {"coppice_site": "x", "coppice_state": "odd"}}])
def test_what_cannot_be_read_is_left_out(database: Database, kept: dict[str, object]):
    observations = Observations(database)
    observations.record("test", IMAGES, NOW)
    with database.session() as session:
        session.execute(update(ObservationRow).values(images=[kept]))
    assert observations.all()[0].images == ()
