# SPDX-License-Identifier: Apache-2.0
"""The fixtures and the guard of unit tests come from the plug-in ``coppice.testing.plugin``."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

TOGETHER = {
    "contract/test_cloud_libvirt.py": "libvirt",
    "contract/test_publishers.py": "publishers",
    "contract/test_transports.py": "transports",
    "contract/test_cloud_openstack.py": "openstack",
    "integration/test_openstack_faults.py": "openstack",
    "e2e/test_demo.py": "demonstration",
    "e2e/test_fresh_by_itself.py": "openstack",
    "integration/test_adopt_openstack.py": "openstack",
    "integration/test_availability.py": "openstack",
    "integration/test_cloud_faults.py": "openstack",
    "integration/test_cluster_builds.py": "cluster",
    "integration/test_conversion_matrix.py": "glance",
    "integration/test_examples.py": "examples",
    "integration/test_full_life.py": "openstack",
    "integration/test_glance.py": "glance",
    "integration/test_hostile_images.py": "hostile",
    "e2e/test_life_libvirt.py": "libvirt",
    "integration/test_libvirt.py": "libvirt",
    "integration/test_libvirt_faults.py": "libvirt",
    "integration/test_opennebula_recordings.py": "recordings",
    "integration/test_publisher_faults.py": "publishers",
}
"""Modules whose tests share what is costly to make: all of them run in one process."""

FIRST = ("demonstration", "hostile", "glance", "openstack", "libvirt", "publishers", "transports", "cluster")
"""What takes longest comes first: were it last, one process would be at it while the other has nothing left to do."""


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("coppice"):
        message = "the plug-in of the test kit is not registered: install the project (`make test` does)"
        raise pytest.UsageError(message)


@pytest.fixture(scope="session", autouse=True)
def _schema_made_once() -> Iterator[None]:
    """Give each new SQLite file the schema that the lineage made once in this process.

    The lineage takes a fifth of a second each time, and a run makes thousands of databases. What is no new file goes
    the product's own way, and so does every command that is a process of its own.
    """
    from coppice import database

    by_lineage, made, lock = database._upgrade, list[str](), threading.Lock()

    def upgrade(engine: Engine) -> None:
        if not _is_new(engine):
            by_lineage(engine)
            return
        with lock:
            if not made:
                first = database._engine("sqlite://")
                by_lineage(first)
                with first.connect() as connection:
                    dump = _connected(connection).iterdump()
                    made.extend(each for each in dump if not each.startswith(("BEGIN", "COMMIT", "PRAGMA")))
                first.dispose()
        with engine.connect() as connection:
            raw = _connected(connection)
            raw.execute("BEGIN IMMEDIATE")
            if not raw.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in made:
                    raw.execute(statement)
            raw.execute("COMMIT")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database, "_upgrade", upgrade)
        yield


def _is_new(engine: Engine) -> bool:
    if engine.dialect.name != "sqlite":
        return False
    name = engine.url.database
    if name in {None, "", ":memory:"}:
        return True
    with suppress(OSError):
        return Path(str(name)).stat().st_size == 0
    return False


def _connected(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Give tests to processes module by module, but for modules that belong together; the longest of all first.

    What a module makes for all of its tests (a build, a server, a template of a site) is made once so, and not in each
    process; and no two processes wait for one another's lock upon the same build.

    The marks that pytest-xdist knows for this do not reach it with the pytest of today (9.2): it writes them into a
    test's name, which is made anew each time that it is asked for.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    # By the number of tests, as it would be else, the few that kill runs and move clocks would come last.
    config.option.loadscopereorder = False

    class TogetherScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0].removeprefix("tests/")
            return TOGETHER.get(module, module)

        def _assign_work_unit(self, node: WorkerController) -> None:
            first = next((scope for scope in FIRST if scope in self.workqueue), None)
            if first is not None:
                self.workqueue.move_to_end(first, last=False)
            super()._assign_work_unit(node)

    return TogetherScheduling(config, log)
