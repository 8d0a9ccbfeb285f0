# SPDX-License-Identifier: Apache-2.0
"""What a site left behind in a libvirt: files that no image accounts for, and definitions that lead nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cloud.driver import Leftover
from coppice.cloud.libvirt_pool import naming
from coppice.cloud.libvirt_pool.view import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coppice.cloud.libvirt_pool.host import Host

_SEPARATOR = "/"


def find(host: Host, cloud: str, site: str, pools: Iterable[str]) -> tuple[Leftover, ...]:
    """Return what is left behind, in a stable order.

    Files are looked at before images: one that is being registered meanwhile has its definition before its file.

    Args:
        host: The libvirt.
        cloud: Name of the target.
        site: Whose things are looked for.
        pools: Where it keeps files.
    """
    files = {}
    for pool in sorted(set(pools)):
        host.refresh(pool)
        files[pool] = host.volumes(pool)
    view = View.of_all(host, site)
    return (*_machines(view, cloud), *_files(host, view, cloud, files))


def clear(host: Host, leftover: Leftover) -> None:
    """Remove one that `find` found just now."""
    pool, separator, name = leftover.identifier.partition(_SEPARATOR)
    if separator:
        host.delete_volume(pool, name)
        return
    machine = host.machine(leftover.identifier)
    if machine is not None:
        host.undefine(machine)


def _machines(view: View, cloud: str) -> Iterator[Leftover]:
    kept = {image.definition.identifier for image in view.images}
    for identifier, current in sorted(view.currents.items()):
        if current.record.leads_to not in kept:
            runs = view.host.is_active(current.machine)
            yield Leftover(
                cloud=cloud,
                identifier=identifier,
                what=f"the machine definition {current.definition.name} leads to a version that is not there"
                + (", and a machine runs from it" if runs else ""),
                can_be_cleared=not runs,
            )


def _files(host: Host, view: View, cloud: str, files: dict[str, frozenset[str]]) -> Iterator[Leftover]:
    kept = {(image.record.pool, image.record.volume) for image in view.images}
    prefix = naming.volume_prefix(view.site)
    candidates = [
        (pool, name)
        for pool, names in sorted(files.items())
        for name in sorted(names)
        if name.startswith(prefix) and (pool, name) not in kept
    ]
    if not candidates:
        return
    own = frozenset(view.currents) | {image.definition.identifier for image in view.images}
    used = _used(host, own)
    for pool, name in candidates:
        if naming.OVERLAY in name and name in used:
            # What a machine writes that runs.
            continue
        is_used = name in used
        what = "what a machine wrote that did not end in order" if naming.OVERLAY in name else "a file without an image"
        yield Leftover(
            cloud=cloud,
            identifier=f"{pool}{_SEPARATOR}{name}",
            what=f"{what}: {name} in the pool {pool}" + (", and something uses it" if is_used else ""),
            can_be_cleared=not is_used,
        )


def _used(host: Host, own: frozenset[str]) -> frozenset[str]:
    """Return the names of files that something has or is based on; Coppice's own definitions while they run alone."""
    used: set[str] = set()
    for machine in host.machines():
        is_active = host.is_active(machine)
        for live in (True, False) if machine.UUIDString() not in own else (True,) if is_active else ():
            definition = host.definition(machine, live=live)
            if definition is not None:
                used |= set(map(_name, definition.files))
    for file, backing in host.backings():
        base, _, _ = file.rpartition(naming.OVERLAY)
        # What a machine wrote whose host went down keeps nothing.
        used |= {name for name in map(_name, backing) if name != base or file in used}
    return frozenset(used)


def _name(path: str) -> str:
    return path.rpartition(_SEPARATOR)[2]
