# SPDX-License-Identifier: Apache-2.0
"""libvirt's calls, as far as the driver makes them, each with a sign of life before it.

Handles of machines, pools and files are the library's own; nothing of it but these gets out of this module.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from coppice.cloud.libvirt_pool.failures import NO_DOMAIN, NO_POOL, NO_VOLUME, OPERATION_INVALID, is_about
from coppice.cloud.libvirt_pool.reading import (
    Definition,
    PoolFacts,
    read_backing,
    read_definition,
    read_hypervisor,
    read_pool,
)
from coppice.errors import CloudError, CloudFaultError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE_POOLS = ("dir", "fs", "netfs")
"""Pools whose volumes are files of any format."""
_RUNNING = 2
_BUSY_TEXTS = ("asynchronous jobs", "still in use", "is still in use")
_BUSY_SECONDS = 15.0
_PAUSE_SECONDS = 0.1


class Host:
    """The libvirt that a piece of work asks.

    Args:
        connection: The library's.
        library: The library.
        beat: Gives a sign of life.
    """

    def __init__(self, connection: Any, library: Any, beat: Callable[[], None]) -> None:
        self.connection = connection
        self.library = library
        self.beat = beat
        self._pools: dict[str, tuple[Any, PoolFacts]] = {}

    def machines(self) -> list[Any]:
        """Return the handles of all machines, running or not."""
        self.beat()
        return list(self.connection.listAllDomains(0))

    def machine(self, identifier: str) -> Any | None:
        """Return the handle of the machine of a UUID, or None."""
        self.beat()
        try:
            return self.connection.lookupByUUIDString(identifier)
        except self.library.libvirtError as problem:
            if is_about(problem, NO_DOMAIN):
                return None
            raise

    def definition(self, machine: Any, *, live: bool = False) -> Definition | None:
        """Return what is defined, or, of one that runs, what it runs with; None: the machine is gone by now."""
        self.beat()
        flags = 0 if live else self.library.VIR_DOMAIN_XML_INACTIVE
        try:
            return read_definition(machine.XMLDesc(flags))
        except self.library.libvirtError as problem:
            if is_about(problem, NO_DOMAIN):
                return None
            raise

    def is_active(self, machine: Any) -> bool:
        """Tell whether a machine runs."""
        self.beat()
        try:
            return bool(machine.isActive())
        except self.library.libvirtError as problem:
            if is_about(problem, NO_DOMAIN):
                return False
            raise

    def define(self, xml: str) -> None:
        """Define a machine, or define it anew; one that runs has it from its next start on."""
        self.beat()
        self.connection.defineXMLFlags(xml, self.library.VIR_DOMAIN_DEFINE_VALIDATE)

    def undefine(self, machine: Any) -> None:
        """Take a definition away, and what libvirt keeps beside it."""
        self.beat()
        library = self.library
        flags = (
            library.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | library.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | library.VIR_DOMAIN_UNDEFINE_NVRAM
            | library.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        )
        try:
            machine.undefineFlags(flags)
        except library.libvirtError as problem:
            if not is_about(problem, NO_DOMAIN):
                raise

    def hypervisor_of(self, architecture: str) -> str:
        """Return the best kind of machine that there is for an architecture: ``kvm`` or ``qemu``."""
        self.beat()
        return read_hypervisor(self.connection.getDomainCapabilities(None, architecture, None, None, 0))

    def pool(self, name: str) -> PoolFacts:
        """Return what is known of a pool of files.

        Raises:
            CloudError: It is not there or not active.
            SettingsError: It is no pool of files.
        """
        return self._pool(name)[1]

    def refresh(self, name: str) -> None:
        """Make libvirt look into the pool's directory; not while something is being made in it."""
        pool, _ = self._pool(name)
        with suppress(CloudFaultError):
            self._when_idle(lambda: pool.refresh(0), seconds=1.0)

    def volumes(self, name: str) -> frozenset[str]:
        """Return the names of all files of a pool."""
        pool, _ = self._pool(name)
        self.beat()
        # The names come with the list.
        return frozenset(volume.name() for volume in pool.listAllVolumes(0))

    def volume(self, pool_name: str, name: str) -> Any | None:
        """Return the handle of a file, or None."""
        pool, _ = self._pool(pool_name)
        self.beat()
        try:
            return pool.storageVolLookupByName(name)
        except self.library.libvirtError as problem:
            if is_about(problem, NO_VOLUME):
                return None
            raise

    def create_volume(self, pool_name: str, xml: str) -> Any:
        """Make a file without content."""
        pool, _ = self._pool(pool_name)
        return self._when_idle(lambda: pool.createXML(xml, 0))

    def delete_volume(self, pool_name: str, name: str) -> None:
        """Delete a file; one that is gone is fine."""
        volume = self.volume(pool_name, name)
        if volume is None:
            return
        try:
            self._when_idle(lambda: volume.delete(0))
        except self.library.libvirtError as problem:
            if not is_about(problem, NO_VOLUME):
                raise

    def available_bytes(self, pool_name: str) -> int:
        """Return how much room a pool has."""
        pool, _ = self._pool(pool_name)
        self.beat()
        return int(pool.info()[3])

    def backings(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield each file of each active pool, by its name, with the paths that it is based on."""
        library = self.library
        self.beat()
        for pool in self.connection.listAllStoragePools(library.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
            with suppress(CloudFaultError):
                self._when_idle(partial(pool.refresh, 0), seconds=1.0)
            self.beat()
            for volume in pool.listAllVolumes(0):
                self.beat()
                try:
                    xml = volume.XMLDesc(0)
                except library.libvirtError as problem:
                    if is_about(problem, NO_VOLUME):
                        continue
                    raise
                yield volume.name(), read_backing(xml)

    def stream(self) -> Any:
        """Return a stream for the bytes of a file."""
        self.beat()
        return self.connection.newStream(0)

    def _pool(self, name: str) -> tuple[Any, PoolFacts]:
        found = self._pools.get(name)
        if found is None:
            found = self._pools[name] = self._looked_up(name)
        return found

    def _looked_up(self, name: str) -> tuple[Any, PoolFacts]:
        self.beat()
        try:
            pool = self.connection.storagePoolLookupByName(name)
        except self.library.libvirtError as problem:
            if is_about(problem, NO_POOL):
                raise CloudError(
                    f"there is no storage pool {name} in that libvirt",
                    resolution=f"Define it (virsh pool-define-as {name} dir --target DIRECTORY), or name another one.",
                ) from problem
            raise
        self.beat()
        if pool.info()[0] != _RUNNING:
            raise CloudFaultError(
                f"the storage pool {name} is not active: what is in it cannot be seen",
                resolution=f"Nothing was changed. Start it (virsh pool-start {name}; virsh pool-autostart {name}).",
            )
        self.beat()
        facts = read_pool(pool.XMLDesc(0))
        if facts.kind not in _FILE_POOLS:
            raise SettingsError(
                f"the storage pool {name} is of the kind {facts.kind!r}: images are kept in files alone",
                resolution=f"Name a pool of one of the kinds {', '.join(_FILE_POOLS)}.",
            )
        return pool, facts

    def _when_idle(self, call: Callable[[], Any], seconds: float = _BUSY_SECONDS) -> Any:
        # libvirt refuses some things while another client makes a file in the pool, or a stream is not quite closed.
        deadline = time.monotonic() + seconds
        while True:
            self.beat()
            try:
                return call()
            except self.library.libvirtError as problem:
                said = problem.get_error_message() or ""
                is_busy = is_about(problem, OPERATION_INVALID, 1) and any(text in said for text in _BUSY_TEXTS)
                if not is_busy:
                    raise
                if time.monotonic() > deadline:
                    raise CloudFaultError(
                        f"the storage pool is busy: {said}", resolution="Run again when what is made in it is done."
                    ) from problem
                time.sleep(_PAUSE_SECONDS)
