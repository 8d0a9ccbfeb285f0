# SPDX-License-Identifier: Apache-2.0
"""What cloud-init and the guest's own upkeep find in an appliance: its account, its sources, what is baked in."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from coppice.errors import DefinitionError
from coppice.factory.bootstrap.overlay_model import File, Part

if TYPE_CHECKING:
    from coppice.definition.model import Contextualisation, Definition
    from coppice.factory.bootstrap.overlay_model import Symlink

SETTINGS = "/etc/cloud/cloud.cfg.d/99-coppice.cfg"
BAKED_SETTINGS = "/etc/cloud/cloud.cfg.d/90-appliance.cfg"
BAKED_SCRIPT = "/var/lib/cloud/scripts/per-instance/00-appliance"
_UPGRADES = "/etc/apt/apt.conf.d/20auto-upgrades"
_UPGRADES_ON = b'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'
# Only one of what keeps the clock right can be installed.
_CLOCKS = frozenset({"chrony", "ntp", "ntpsec", "openntpd"})
_SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,39}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def contextualisation(definition: Definition, *, private_mirror: bool) -> Part:
    """Return what ``definition`` lays over for cloud-init, the guest agent and automatic updates.

    Raises:
        DefinitionError: A source, the account or the user data cannot be what it says.
    """
    said = definition.contextualisation
    entries: dict[str, File | Symlink] = {
        SETTINGS: File(cloud_settings(definition, private_mirror=private_mirror).encode()),
        **baked(said),
    }
    packages = [] if _CLOCKS.intersection(definition.packages) else ["systemd-timesyncd"]
    if said.guest_agent:
        packages.append("qemu-guest-agent")
    if said.automatic_updates:
        packages.append("unattended-upgrades")
        entries[_UPGRADES] = File(_UPGRADES_ON)
    # A tree may have them, of a parent that wants them.
    left_out = tuple(path for path in (BAKED_SETTINGS, _UPGRADES) if path not in entries)
    return Part(entries=entries, left_out=left_out, packages=tuple(packages))


def cloud_settings(definition: Definition, *, private_mirror: bool, groups: tuple[str, ...] = ("adm", "sudo")) -> str:
    """Return cloud-init's settings.

    Args:
        definition: What is built.
        private_mirror: Whether apt's sources are written at first boot.
        groups: Of the account that is made.

    Raises:
        DefinitionError: A source or the account cannot be what it says.
    """
    if not _ACCOUNT.fullmatch(definition.user):
        raise DefinitionError(
            f"not the name of an account: {definition.user[:100]!r}",
            resolution="Set build.user to lower-case letters, digits, - and _, beginning with a letter, at most 32.",
        )
    account = {
        "name": definition.user,
        "gecos": definition.user,
        "lock_passwd": True,
        "groups": list(groups),
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
        "shell": "/bin/bash",
    }
    # ds-identify reads datasource_list by itself, and only when it stands on one line.
    lines = [
        f"datasource_list: [ {', '.join(_sources(definition.contextualisation))} ]",
        "disable_root: true",
        "ssh_pwauth: false",
        "ssh_deletekeys: true",
        "ssh_genkeytypes: [ ed25519, ecdsa ]",
        # The image has C.UTF-8, and no others: a user's own data may ask for one, by default none is made.
        'locale: "false"',
        f"system_info: {json.dumps({'default_user': account})}",
    ]
    if private_mirror:
        lines.append("apt: { preserve_sources_list: false }")
    return "#cloud-config\n" + "\n".join(lines) + "\n"


def _sources(said: Contextualisation) -> tuple[str, ...]:
    wrong = [source for source in said.sources if not _SOURCE.fullmatch(source)]
    if wrong or not said.sources:
        raise DefinitionError(
            f"not a source of cloud-init: {wrong[0][:100]!r}" if wrong else "cloud-init has no source to look in",
            resolution="Set contextualisation.sources to names as cloud-init has them: NoCloud, OpenStack, Ec2, None …",
        )
    return said.sources


def baked(said: Contextualisation) -> dict[str, File]:
    """Return what is baked in of user data.

    Raises:
        DefinitionError: It is neither a script nor settings of cloud-init.
    """
    if said.user_data is None:
        return {}
    if said.user_data.startswith(b"#!"):
        # Once for each instance, before the scripts that the cloud hands over.
        return {BAKED_SCRIPT: File(said.user_data, mode=0o755)}
    if said.user_data.split(b"\n", 1)[0].rstrip() == b"#cloud-config":
        return {BAKED_SETTINGS: File(said.user_data)}
    raise DefinitionError(
        "the user data of contextualisation is neither a script nor a #cloud-config",
        resolution="Begin it with #!/bin/sh or the like, or with the line #cloud-config; nothing else can be baked in.",
    )
