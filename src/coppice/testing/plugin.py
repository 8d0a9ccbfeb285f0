# SPDX-License-Identifier: Apache-2.0
"""The pytest plug-in of the test kit: fixtures, and the guard of unit tests.

The guard acts only in projects that set ``coppice_guard_unit = true`` in their pytest settings, on tests marked
``unit``. Importing this module is cheap; what a fixture needs is imported when a test asks for it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.clock import FixedClock
    from coppice.testing.glance import Glance
    from coppice.testing.libvirtd import Libvirtd
    from coppice.testing.openstack import OpenStack
    from coppice.testing.server import LoopbackServer

_OPTION = "coppice_guard_unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting that switches the guard on."""
    parser.addini(_OPTION, "block network and programs in tests marked unit", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks of the contract suites known to other projects that run them, and their asserts speak."""
    config.addinivalue_line("markers", "contract: one suite for all members of a plug-in kind")
    config.addinivalue_line("markers", "threat(number): a test of Coppice's threat model")
    pytest.register_assert_rewrite("coppice.testing.contracts")


@pytest.fixture(autouse=True)
def _coppice_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getini(_OPTION) or request.node.get_closest_marker("unit") is None:
        yield
        return
    from coppice.testing.guards import nothing_leaves_the_process

    with nothing_leaves_the_process():
        yield


@pytest.fixture
def loopback_server() -> Iterator[LoopbackServer]:
    """Return a server on loopback that does at each path what it is told."""
    from coppice.testing.server import LoopbackServer

    with LoopbackServer() as server:
        yield server


@pytest.fixture
def fixed_clock() -> FixedClock:
    """Return a clock that stands still until it is moved."""
    from coppice.clock import FixedClock

    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="session")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glance]:
    """Return a real Glance: one for all tests of a run, which therefore run in one process."""
    from coppice.testing.glance import Glance

    with Glance(tmp_path_factory.mktemp("glance")) as server:
        yield server


@pytest.fixture(scope="session")
def openstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    """Return a real Glance and a real Keystone: one of each for all tests of a run, which run in one process."""
    from coppice.testing.openstack import OpenStack

    with OpenStack(tmp_path_factory.mktemp("openstack")) as services:
        yield services


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """Return a real libvirtd: one for all tests of a run, which run in one process."""
    from coppice.testing.libvirtd import Libvirtd

    with Libvirtd(tmp_path_factory.mktemp("libvirtd")) as daemon:
        yield daemon


@pytest.hookimpl(tryfirst=True)  # the groups are read by another plug-in's hook of this name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep all tests that ask for Glance together, however many processes there are."""
    for item in items:
        asked = {"glance", "openstack"} & set(getattr(item, "fixturenames", ()))
        if asked:
            item.add_marker(pytest.mark.xdist_group(min(asked)))
            if config.pluginmanager.hasplugin("timeout") and item.get_closest_marker("timeout") is None:
                # The first run on a machine installs it, which takes minutes and is no test's fault.
                seconds = float(config.getini("timeout") or 0)
                item.add_marker(pytest.mark.timeout(seconds, func_only=True))
