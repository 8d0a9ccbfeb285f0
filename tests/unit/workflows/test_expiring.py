# SPDX-License-Identifier: Apache-2.0
"""That an image ends soon is told once for each date, however much was told before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.database import Database
from coppice.events import journal as module
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.testing.desired import NOW, desired_image, registered_image
from coppice.workflows.expiring import tell_expiring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.cloud.model import RegisteredImage

pytestmark = pytest.mark.unit
DAY = timedelta(days=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/c.db")
    yield database
    database.close()


def ending(days: float, name: str = "debian", *, version: str = "1", of_list: str = "a") -> RegisteredImage:
    return registered_image(desired_image(name, version, of_list=of_list, expires=NOW + days * DAY))


def tell(database: Database, *images: RegisteredImage, cloud: str = "main", day: float = 0) -> int:
    """Tell, and return how many events that gave."""
    before = len(Journal(database).events())
    tell_expiring(cloud, images, database, within_days=14, now=NOW + day * DAY)
    return len(Journal(database).events()) - before


def test_each_date_version_image_list_and_cloud_is_told_of_once(database: Database):
    first = ending(10)
    assert tell(database, first, ending(20, "later")) == 1
    others = [ending(11), ending(10, version="2"), ending(10, "alma"), ending(10, of_list="b")]
    for other in others:
        assert [tell(database, first, other), tell(database, first, other)] == [1, 0]
    assert [tell(database, first, *others, cloud="other") for _run in range(2)] == [5, 0]
    event = Journal(database).events()[0]
    assert (event.kind, event.subject) == (EventKind.IMAGE_EXPIRING, f"main:{first.marker.key}")
    assert (event.cloud, event.facts["version"], event.facts["expires"]) == ("main", "1", "2026-11-11T12:00:00Z")


def test_what_was_told_long_ago_is_not_told_again_when_each_list_was_signed_anew_daily(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_CHUNK", 3)
    names = [f"image{number}" for number in range(8)]
    for day in range(5):
        assert tell(database, *(ending(10 + day, name) for name in names), day=day) == len(names)
    for day in range(5):
        assert tell(database, *(ending(10 + day, name) for name in names), day=day) == 0


def test_only_what_is_told_of_the_same_dates_is_read(database: Database, monkeypatch: pytest.MonkeyPatch):
    for day in range(5):
        tell(database, ending(10 + day), day=day)
    read = []
    monkeypatch.setattr(module, "read_event", lambda row: read.append(row) or row)
    tell_expiring("main", [ending(14), replace(ending(12), cloud_identifier="x")], database, within_days=14, now=NOW)
    assert read == []
