# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import pytest

from coppice.database import Database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Return the file of a database that has every table and nothing in them: to make one takes its time."""
    path = tmp_path_factory.mktemp("schedule") / "empty.sqlite"
    Database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(tmp_path, empty_database):
    shutil.copyfile(empty_database, tmp_path / "c.sqlite")
    opened = Database(f"sqlite:///{tmp_path}/c.sqlite")
    yield opened
    opened.close()
