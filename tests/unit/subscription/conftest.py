# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from coppice.database import Database
from coppice.testing.authority import Authority, Identity, KeyType
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a database with no rows, to be copied: its schema is made once."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    Database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database_file(empty_database: Path, tmp_path: Path) -> Path:
    """Return a database file of the test's own."""
    return shutil.copy(empty_database, tmp_path / "c.db")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create("Example CA")


@pytest.fixture(scope="session")
def jane(authority: Authority) -> Identity:
    return authority.issue("Jane Doe")


@pytest.fixture(scope="session")
def jane_with_rsa(authority: Authority) -> Identity:
    return authority.issue("Jane Doe", key_type=KeyType.RSA_2048)


@pytest.fixture
def publisher(authority: Authority, jane: Identity) -> Simulator:
    simulator = Simulator.create(authority, endorser=jane)
    simulator.add_image()
    return simulator
