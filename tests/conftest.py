# SPDX-License-Identifier: Apache-2.0
"""The fixtures and the guard of unit tests come from the plug-in ``coppice.testing.plugin``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
