# SPDX-License-Identifier: Apache-2.0
"""Compare what is in a disk with what its publisher says; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.conversion.guest.model import GuestFact
from coppice.formats.architectures import kernel_name

if TYPE_CHECKING:
    from coppice.conversion.guest.model import GuestFacts, OsRelease
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements

_LETTERS = re.compile(r"[^a-z0-9]+")
_SHORT_NAMES = {"rhel": "redhatenterpriselinux", "ol": "oraclelinux", "sles": "suselinuxenterpriseserver"}


def differences(
    facts: GuestFacts, system: OperatingSystem, requirements: Requirements | None = None
) -> tuple[str, ...]:
    """Return where a disk differs from what is said of it, each as a clause for people; what is unknown differs not.

    Args:
        facts: What was found.
        system: What the list says that runs in it.
        requirements: What the list says that it needs.
    """
    found = []
    said = kernel_name(system.architecture)
    if facts.architecture is not None and said and facts.architecture != said:
        found.append(f"the list says {system.architecture}, and the disk is for {facts.architecture}")
    release = facts.operating_system
    if release is not None and system.distribution and not _is_named(release, system.distribution):
        found.append(f"the list says {system.distribution}, and the disk has {_told(release)}")
    elif release is not None and not _is_version(release.version_id, system.version):
        found.append(f"the list says version {system.version}, and the disk has {release.version_id}")
    wanted = None if requirements is None else requirements.firmware
    if wanted is not None and facts.is_known(GuestFact.BOOT_WAYS) and wanted not in facts.boot_ways:
        ways = " and ".join(facts.boot_ways) or "nothing"
        found.append(f"the list says that it starts with {wanted}, and the disk starts with {ways}")
    return tuple(found)


def _is_named(release: OsRelease, said: str) -> bool:
    wanted = _plain(said)
    names = {_plain(name) for name in (release.identifier, release.name, release.pretty_name) if name}
    names |= {_SHORT_NAMES[name] for name in names & _SHORT_NAMES.keys()}
    return not wanted or not names or any(wanted in name or name in wanted for name in names)


def _is_version(found: str, said: str) -> bool:
    ours, theirs = found.split("."), said.strip().split(".")
    shorter = min(len(ours), len(theirs))
    return not found or not said.strip() or ours[:shorter] == theirs[:shorter]


def _told(release: OsRelease) -> str:
    return release.pretty_name or release.name or release.identifier


def _plain(text: str) -> str:
    return _LETTERS.sub("", text.lower())
