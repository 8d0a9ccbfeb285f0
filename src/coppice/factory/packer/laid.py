# SPDX-License-Identifier: Apache-2.0
"""What is laid over an appliance that is built in a running machine: access, firewall, contextualisation. Pure.

It is what the bootstrap builder lays over its trees, put where other families of distributions look for it.
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.bootstrap.overlay_access import access
from coppice.factory.bootstrap.overlay_cloud import SETTINGS, contextualisation
from coppice.factory.bootstrap.overlay_firewall import RULES, firewall
from coppice.factory.bootstrap.overlay_model import UNITS, File, Overlay, Symlink, own_unit, started_by
from coppice.factory.packer.systems import Family, system_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.definition.model import Definition

_EPOCH = 0
# The last steps in the machine write these, or take them away.
_PASSED_OVER = re.compile(
    r"/etc/(?:hostname|machine-id|resolv\.conf)|/etc/cloud/cloud-init\.disabled|/etc/sudoers\.d/90-cloud-init-users"
    r"|/var/(?:crash|log|tmp)/.*"
)
_FIREWALL_UNIT = "appliance-firewall.service"
_FIREWALL_UNIT_FILE = f"""\
[Unit]
Description=Firewall of the appliance
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}
ExecReload=/usr/sbin/nft -f {RULES}

[Install]
WantedBy=sysinit.target
"""
_DEBIAN_NFTABLES = started_by("sysinit.target", "nftables.service")
_ADMINISTRATORS = {Family.RED_HAT: "wheel", Family.SUSE: "users"}
_PACKAGES = {
    "unattended-upgrades": {Family.RED_HAT: "dnf-automatic"},
    "systemd-timesyncd": {Family.RED_HAT: "chrony", Family.SUSE: "chrony"},
}
"""What a package of Debian is called elsewhere; one that is not named here is called the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """What is laid over.

    Attributes:
        entries: By absolute path; they belong to root.
        left_out: Paths that are taken away.
        packages: That it needs.
        has_own_firewall: Whether a firewall of the distribution's has to give way.
    """

    entries: Mapping[str, File | Symlink]
    left_out: tuple[str, ...]
    packages: tuple[str, ...]
    has_own_firewall: bool

    def passes_over(self, path: str) -> bool:
        """Tell whether what a definition lays in at ``path`` would not be in the appliance."""
        overlay = Overlay(entries=dict(self.entries), left_out=frozenset(self.left_out))
        return overlay.leaves_out(path) or _PASSED_OVER.fullmatch(path) is not None

    def switches(self, unit: str) -> bool:
        """Tell whether it is decided here whether ``unit`` starts."""
        return f"{UNITS}/{unit}" in self.entries or any(path.endswith(f".wants/{unit}") for path in self.entries)

    def archive(self) -> bytes:
        """Return the entries as a tar archive."""
        return archive_of(self.entries)


def laid_over(definition: Definition, *, private_mirror: bool) -> Laid:
    """Return what is laid over the appliance of ``definition``.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: Its distribution cannot have what it asks for.
    """
    family = system_of(definition).family
    if family is not Family.DEBIAN:
        _check_other(definition)
    parts = (
        access(definition),
        firewall(definition),
        contextualisation(definition, private_mirror=private_mirror and family is Family.DEBIAN),
    )
    entries: dict[str, File | Symlink] = {}
    packages: set[str] = set()
    for part in parts:
        entries |= part.entries
        packages.update(part.packages)
    left_out = tuple(path for part in parts for path in part.left_out)
    if family is not Family.DEBIAN:
        entries = _elsewhere(entries, family)
        packages = {_PACKAGES.get(each, {}).get(family, each) for each in packages}
    return Laid(
        entries=entries,
        left_out=left_out,
        packages=tuple(sorted(packages)),
        has_own_firewall=family is not Family.DEBIAN and definition.firewall.enabled,
    )


def archive_of(entries: Mapping[str, File | Symlink]) -> bytes:
    """Return ``entries`` as a tar archive, the same bytes each time."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in sorted(entries.items()):
            told = tarfile.TarInfo(path.removeprefix("/"))
            told.mtime = _EPOCH
            if isinstance(entry, Symlink):
                told.type, told.linkname, told.mode = tarfile.SYMTYPE, entry.target, 0o777
                tar.addfile(told)
            else:
                told.size, told.mode = len(entry.content), entry.mode
                tar.addfile(told, io.BytesIO(entry.content))
    return archive.getvalue()


def _check_other(definition: Definition) -> None:
    for wanted, key, what in (
        (definition.access.vnc, "access.vnc", "a desktop over VNC"),
        (definition.access.web_console, "access.web-console", "a web console"),
        (definition.contextualisation.automatic_updates, "contextualisation.automatic-updates", "automatic updates"),
    ):
        if wanted:
            raise BuildError(
                f"{definition.name}: the builder packer sets up {what} on Debian and Ubuntu alone",
                resolution=f"Leave {key} out of {definition.path}, or set it up by a provisioner.",
            )


def _elsewhere(entries: Mapping[str, File | Symlink], family: Family) -> dict[str, File | Symlink]:
    moved = dict(entries)
    settings = moved.get(SETTINGS)
    if isinstance(settings, File):
        groups = f'["adm", "{_ADMINISTRATORS[family]}"]'.encode()
        moved[SETTINGS] = replace(settings, content=settings.content.replace(b'["adm", "sudo"]', groups))
    if moved.pop(_DEBIAN_NFTABLES, None) is not None:
        moved[f"{UNITS}/{_FIREWALL_UNIT}"] = File(_FIREWALL_UNIT_FILE.encode())
        moved[started_by("sysinit.target", _FIREWALL_UNIT)] = own_unit(_FIREWALL_UNIT)
    return moved
