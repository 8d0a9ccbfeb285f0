# SPDX-License-Identifier: Apache-2.0
"""Builds on a cluster: each is made, and then booted, by a worker that declares what that needs.

All machines share the factory's directory: what one worker made, the next one builds upon and a third one boots. So the
locks, the kept builds and the logs of failed ones are the same as in one process. The journal and the catalogue are
read and written here alone: workers have no database.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.clock import SystemClock
from coppice.execution.cluster import KVM, opened_cluster
from coppice.execution.scheduler import check_address
from coppice.factory.builders import builder_needs, load_builder
from coppice.settings.model import ClusterSettings, ServiceSettings
from coppice.workflows.build import Here, factory_root
from coppice.workflows.start_images import StartImages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coppice.clock import Clock
    from coppice.definition.model import Definition
    from coppice.execution.cluster import Cluster
    from coppice.factory.model import BuildResult
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.place import Place
    from coppice.workflows.start_images import VouchedImage

HERE, CLUSTER = "here", "cluster"
MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCluster:
    """The workers of a cluster as a place of builds.

    Attributes:
        settings: Where and how.
        cluster: Whose workers they are.
    """

    settings: Settings
    cluster: Cluster

    @property
    def at_once(self) -> int:
        """How many builds can be under way at a time: as many as workers declare."""
        return max(1, min(MOST_AT_ONCE, self.cluster.capacity()))

    def make(
        self,
        definition: Definition,
        *,
        ancestors: tuple[BuildResult, ...],
        fresh: bool,
        monitor: Monitor,
        stopped: Callable[[], bool],
    ) -> BuildResult:
        """Have a worker build a definition upon ``ancestors``, or find its build.

        Raises:
            ClusterError: No worker can, or the cluster is gone.
            NotFoundError: The catalogue has no such thing as it starts from.
        """
        start = None if ancestors else definition.start
        return self.cluster.do(
            make_here,
            portable(self.settings, fetches=start is not None and bool(start.url)),
            StartImages(settings=self.settings).catalogued(start),
            definition,
            ancestors,
            fresh,
            name=definition.name,
            needs=frozenset({_architecture(definition), *builder_needs(load_builder(definition.builder))}),
            monitor=monitor,
            stopped=stopped,
        )

    def test(self, result: BuildResult, *, monitor: Monitor, stopped: Callable[[], bool]) -> BuildResult:
        """Have a worker boot a build; one with KVM, where there is such a one.

        Raises:
            ClusterError: No worker can, or the cluster is gone.
        """
        needs = frozenset({_architecture(result.definition)})
        quicker = needs | {KVM}
        return self.cluster.do(
            boot_here,
            portable(self.settings, builds=False),
            result,
            name=result.definition.name,
            needs=quicker if self.cluster.has(quicker) else needs,
            monitor=monitor,
            stopped=stopped,
        )


def check_place(on: str, settings: Settings) -> None:
    """See that the settings say where the place is; nobody is asked.

    Args:
        on: ``here`` or ``cluster``.
        settings: Where and how.

    Raises:
        SettingsError: They name no cluster, or not as they must.
    """
    if on == CLUSTER:
        check_address(settings.cluster)


@contextmanager
def opened_place(on: str, *, settings: Settings, clock: Clock) -> Iterator[Place]:
    """Yield where builds are made.

    Args:
        on: ``here`` or ``cluster``.
        settings: Where and how.
        clock: For dates of what is made here.

    Raises:
        ClusterError: The cluster cannot be reached, or a worker does not do.
        SettingsError: The settings name none, or not as they must.
    """
    if on != CLUSTER:
        yield Here(settings=settings, clock=clock)
        return
    with on_cluster(settings) as cluster:
        yield cluster


@contextmanager
def on_cluster(settings: Settings) -> Iterator[OnCluster]:
    """Yield the cluster of the settings as a place of builds.

    Raises:
        ClusterError: It cannot be reached, or a worker does not do.
        SettingsError: The settings name none, or not as they must.
    """
    with opened_cluster(settings.cluster, shared=factory_root(settings)) as cluster:
        yield OnCluster(settings=settings, cluster=cluster)


def make_here(
    settings: Settings,
    known: Mapping[str, VouchedImage],
    definition: Definition,
    ancestors: tuple[BuildResult, ...],
    fresh: bool,
    *,
    monitor: Monitor,
    stopped: Callable[[], bool],
) -> BuildResult:
    """Build in a worker."""
    here = Here(settings=settings, clock=SystemClock(), starts=StartImages(settings=settings, known=known))
    return here.make(definition, ancestors=ancestors, fresh=fresh, monitor=monitor, stopped=stopped)


def boot_here(settings: Settings, result: BuildResult, *, monitor: Monitor, stopped: Callable[[], bool]) -> BuildResult:
    """Boot in a worker."""
    return Here(settings=settings, clock=SystemClock()).test(result, monitor=monitor, stopped=stopped)


def _architecture(definition: Definition) -> str:
    return str(definition.operating_system.architecture)


def portable(settings: Settings, *, builds: bool = True, fetches: bool = False) -> Settings:
    """Return the settings with what a worker needs of them.

    Nothing of a database, a cloud, a place to publish to or somebody who is told of events is sent about. The addresses
    of the mirror and of a proxy may hold passwords, and go to whoever cannot do without.

    Args:
        settings: Of this machine.
        builds: Whether it builds, with packages from the mirror.
        fetches: Whether it fetches an image to start from.
    """
    factory, transfer = settings.factory, settings.transfer
    return replace(
        settings,
        database_url="",
        definitions_directory=None,
        factory=factory if builds else replace(factory, mirror=None, keyring=None),
        transfer=transfer if fetches else replace(transfer, proxy=None, no_proxy=(), mirrors={}),
        cluster=ClusterSettings(),
        service=ServiceSettings(),
        publishers={},
        clouds={},
        hooks={},
        origins={},
    )
