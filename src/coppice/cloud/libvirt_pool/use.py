# SPDX-License-Identifier: Apache-2.0
"""Whether something runs from an image's file, or is based on it, in whichever way libvirt can see."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from coppice.cloud import disk_place
from coppice.cloud.libvirt_pool import naming
from coppice.cloud.libvirt_pool.view import disk_path

if TYPE_CHECKING:
    from coppice.cloud.libvirt_pool.host import Host
    from coppice.cloud.libvirt_pool.record import Record


def is_used(host: Host, record: Record, own: frozenset[str] = frozenset(), uri: str | None = None) -> bool:
    """Tell whether anything uses an image's file.

    Files are compared by their names alone, which end in a hash: a directory can have several paths.

    Args:
        host: The libvirt.
        record: Of the image.
        own: UUIDs of the definitions that Coppice made for it; they use it only while they run.
        uri: Of the libvirt: on this machine, it is looked at as well which processes have the file open; None: it is
            not, for libvirt itself may still have it open, from a transfer that was cut.
    """
    names: set[str] = set()
    for machine in host.machines():
        is_active = host.is_active(machine)
        names |= {machine.name()} if is_active else set()
        if _refers(host, machine, record.volume, own, is_active=is_active):
            return True
    for file, backing in host.backings():
        if record.volume in map(_name, backing):
            overlay, _, runs_for = file.rpartition(naming.OVERLAY)
            if overlay == record.volume and runs_for not in names:
                # What a machine wrote whose host went down; nothing will ever read it.
                continue
            return True
    return uri is not None and _is_open_here(disk_path(host, record), uri)


def _refers(host: Host, machine: Any, volume: str, own: frozenset[str], *, is_active: bool) -> bool:
    if is_active:
        running = host.definition(machine, live=True)
        if running is not None and volume in map(_name, running.files):
            return True
    if machine.UUIDString() in own:
        return False
    defined = host.definition(machine)
    return defined is not None and volume in map(_name, defined.files)


def is_local(uri: str) -> bool:
    """Tell whether a URI is of a libvirt on this machine."""
    parts = urlsplit(uri)
    return not parts.netloc and parts.scheme.partition("+")[2] in {"", "unix"}


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _is_open_here(path: str, uri: str) -> bool:
    return is_local(uri) and os.access(path, os.R_OK) and disk_place.is_open(Path(path))
