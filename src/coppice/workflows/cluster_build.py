# SPDX-License-Identifier: Apache-2.0
"""Builds on a cluster: each is made, and then booted, by a worker that declares what that needs.

All machines share the factory's directory: what one worker made, the next one builds upon and a third one boots. So the
locks, the kept builds and the logs of failed ones are the same as in one process. The journal is written here alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.clock import SystemClock
from coppice.execution.cluster import KVM, opened_cluster
from coppice.factory.builders import builder_needs, load_builder
from coppice.workflows.build import Here, factory_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coppice.definition.model import Definition
    from coppice.execution.cluster import Cluster
    from coppice.factory.model import BuildResult
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

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
        """How many builds can be under way at a time."""
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
        """
        return self.cluster.do(
            make_here,
            _portable(self.settings),
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
            _portable(self.settings),
            result,
            name=result.definition.name,
            needs=quicker if self.cluster.has(quicker) else needs,
            monitor=monitor,
            stopped=stopped,
        )


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
    definition: Definition,
    ancestors: tuple[BuildResult, ...],
    fresh: bool,
    *,
    monitor: Monitor,
    stopped: Callable[[], bool],
) -> BuildResult:
    """Build in a worker."""
    here = Here(settings=settings, clock=SystemClock())
    return here.make(definition, ancestors=ancestors, fresh=fresh, monitor=monitor, stopped=stopped)


def boot_here(settings: Settings, result: BuildResult, *, monitor: Monitor, stopped: Callable[[], bool]) -> BuildResult:
    """Boot in a worker."""
    return Here(settings=settings, clock=SystemClock()).test(result, monitor=monitor, stopped=stopped)


def _architecture(definition: Definition) -> str:
    return str(definition.operating_system.architecture)


def _portable(settings: Settings) -> Settings:
    """Return the settings without what no build looks at: nothing of a cloud or a place to publish to is sent about."""
    return replace(settings, publishers={}, clouds={}, hooks={}, origins={})
