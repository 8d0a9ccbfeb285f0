# SPDX-License-Identifier: Apache-2.0
"""What the builder ``packer`` knows of distributions: their installer, and how packages are handled in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.packer.options import Installer

if TYPE_CHECKING:
    from coppice.definition.model import Definition


class Family(StrEnum):
    """Whose packages a distribution has."""

    DEBIAN = "debian"
    RED_HAT = "red-hat"
    SUSE = "suse"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A distribution.

    Attributes:
        family: Whose packages it has.
        installer: What its media start.
    """

    family: Family
    installer: Installer


_DEBIAN = System(family=Family.DEBIAN, installer=Installer.PRESEED)
_UBUNTU = System(family=Family.DEBIAN, installer=Installer.AUTOINSTALL)
_RED_HAT = System(family=Family.RED_HAT, installer=Installer.KICKSTART)
_SUSE = System(family=Family.SUSE, installer=Installer.AUTOYAST)
_SYSTEMS = {
    "debian": _DEBIAN,
    "ubuntu": _UBUNTU,
    "almalinux": _RED_HAT,
    "rocky": _RED_HAT,
    "rockylinux": _RED_HAT,
    "centos": _RED_HAT,
    "centosstream": _RED_HAT,
    "redhat": _RED_HAT,
    "redhatenterpriselinux": _RED_HAT,
    "rhel": _RED_HAT,
    "scientificlinux": _RED_HAT,
    "oraclelinux": _RED_HAT,
    "fedora": _RED_HAT,
    "fedoralinux": _RED_HAT,
    "opensuse": _SUSE,
    "opensuseleap": _SUSE,
    "suselinuxenterpriseserver": _SUSE,
    "sles": _SUSE,
}
INSTALLERS = {
    Family.DEBIAN: frozenset({Installer.PRESEED, Installer.AUTOINSTALL}),
    Family.RED_HAT: frozenset({Installer.KICKSTART}),
    Family.SUSE: frozenset({Installer.AUTOYAST}),
}


def system_of(definition: Definition) -> System:
    """Return what is known of the distribution of ``definition``.

    Raises:
        BuildError: The builder does not know it.
    """
    name = definition.operating_system.distribution
    key = "".join(character for character in name.lower() if character.isalnum())
    known = _SYSTEMS.get(key)
    if known is None:
        raise BuildError(
            f"{definition.name}: the builder packer does not know the distribution {name[:80]!r}",
            resolution="Set operating-system.distribution to Debian, Ubuntu, AlmaLinux, Rocky Linux, CentOS Stream, "
            "Fedora, openSUSE Leap or one of their kin.",
        )
    return known


def installer_of(definition: Definition, stated: str | None) -> Installer:
    """Return the installer of ``definition``: the ``stated`` one, or its distribution's.

    Raises:
        BuildError: The distribution is not installed by it.
    """
    system = system_of(definition)
    installer = system.installer if stated is None else Installer(stated)
    if installer not in INSTALLERS[system.family]:
        raise BuildError(
            f"{definition.name}: {definition.operating_system.distribution} is not installed by {installer}",
            resolution=f"Leave the key installer out: it is {system.installer} then.",
        )
    return installer
