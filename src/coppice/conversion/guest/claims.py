# SPDX-License-Identifier: Apache-2.0
"""Compare what is in a disk with what its publisher says; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.conversion.claim import Claim
from coppice.conversion.guest.model import GuestFact
from coppice.formats.architectures import kernel_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.conversion.guest.model import GuestFacts, OsRelease
    from coppice.model.operating_system import OperatingSystem
    from coppice.model.requirements import Requirements

_LETTERS = re.compile(r"[^a-z0-9]+")
_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)*")
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
    claims = guest_claims(facts, system, requirements)
    return tuple(each.difference for each in claims if each.difference is not None)


def guest_claims(
    facts: GuestFacts | None, system: OperatingSystem, requirements: Requirements | None = None
) -> tuple[Claim, ...]:
    """Return what is said of a guest, each against what is in the disk; what nobody says is not among it.

    Args:
        facts: What was found; None: nobody looked.
        system: What the list says that runs in it.
        requirements: What the list says that it needs.
    """
    return (*_of_system(facts, system), *_of_firmware(facts, requirements))


def _of_system(facts: GuestFacts | None, system: OperatingSystem) -> Iterator[Claim]:
    architecture = None if facts is None else facts.architecture
    release = None if facts is None else facts.operating_system
    if said := system.architecture.strip():
        yield Claim.held(
            "architecture",
            said,
            architecture,
            is_same=architecture == kernel_name(said),
            difference=f"the list says {said}, and the disk is for {architecture}",
        )
    if said := system.distribution.strip():
        told = _told(release) or None
        yield Claim.held(
            "distribution",
            said,
            told,
            is_same=None if release is None else _is_named(release, said),
            difference=f"the list says {said}, and the disk has {told}",
        )
    if said := system.version.strip():
        version = (release.version_id if release is not None else "") or None
        yield Claim.held(
            "version",
            said,
            version,
            is_same=None if version is None else _is_version(version, said),
            difference=f"the list says version {said}, and the disk has {version}",
        )


def _of_firmware(facts: GuestFacts | None, requirements: Requirements | None) -> Iterator[Claim]:
    wanted = None if requirements is None else requirements.firmware
    if wanted is None:
        return
    is_there = facts is not None and wanted in facts.boot_ways
    # That it starts in another way as well may be what could not be found out.
    is_known = is_there or (facts is not None and facts.is_known(GuestFact.BOOT_WAYS))
    ways = " and ".join(facts.boot_ways if facts is not None else ()) or "nothing"
    yield Claim.held(
        "firmware",
        str(wanted),
        ways if is_known else None,
        is_same=is_there,
        difference=f"the list says that it starts with {wanted}, and the disk starts with {ways}",
    )


def _is_named(release: OsRelease, said: str) -> bool | None:
    wanted = _plain(said)
    names = {_plain(name) for name in (release.identifier, release.name, release.pretty_name) if name}
    names |= {_SHORT_NAMES[name] for name in names & _SHORT_NAMES.keys()}
    names.discard("")
    return any(wanted in name or name in wanted for name in names) if wanted and names else None


def _is_version(found: str, said: str) -> bool | None:
    if found == said:
        return True
    # Lists write more than the version: ``22.04 LTS``; or none of its numbers: ``bookworm``.
    ours, theirs = (_NUMBERS.search(each) for each in (found, said))
    if ours is None or theirs is None:
        return None
    pairs = zip(ours.group().split("."), theirs.group().split("."), strict=False)
    return all(one == other for one, other in pairs)


def _told(release: OsRelease | None) -> str:
    return "" if release is None else release.pretty_name or release.name or release.identifier


def _plain(text: str) -> str:
    return _LETTERS.sub("", text.lower())
