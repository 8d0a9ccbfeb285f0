# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap builder knows about Debian's releases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coppice.errors import BuildError

BASE_PACKAGES = (
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "grub2-common",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "linux-image-cloud-amd64",
    "netplan.io",
    "openssh-server",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    "vim-tiny",
    "zstd",
)
"""Always installed: a kernel for virtual machines, what boots it, and what makes it a guest of a cloud."""

_MIRROR = re.compile(r"(?:https?|file|copy)://?[^\s\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A release of Debian.

    Attributes:
        name: As the archive names it.
        epoch: Seconds since 1970 of its release: the date of everything that a build itself makes, so that two
            builds of the same packages give the same bytes.
    """

    name: str
    epoch: int


_SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="bookworm", epoch=1686355200),
        Suite(name="trixie", epoch=1754697600),
    )
}


def find_suite(name: str) -> Suite:
    """Return the release ``name``.

    Raises:
        BuildError: The builder does not know it.
    """
    suite = _SUITES.get(name)
    if suite is None:
        raise BuildError(
            f"the bootstrap builder does not know the suite {name!r}",
            resolution=f"Set operating-system.suite to one of: {', '.join(sorted(_SUITES))}.",
        )
    return suite


def sources(suite: Suite, mirror: str | None) -> tuple[str, ...]:
    """Return the package sources as lines of ``sources.list``; none: the bootstrapper knows where.

    The suite, its updates and its security updates always belong together. A mirror's security archive is its
    sibling whose name ends in ``-security``, as it is everywhere in Debian's world.

    Raises:
        BuildError: The mirror is not an address.
    """
    if mirror is None:
        return ()
    if not _MIRROR.fullmatch(mirror):
        raise BuildError(
            f"not the address of a package mirror: {mirror[:200]!r}",
            resolution="Write it as http://, https:// or file://, without spaces, without a suite.",
        )
    base = mirror.rstrip("/")
    return (
        f"deb {base} {suite.name} main",
        f"deb {base} {suite.name}-updates main",
        f"deb {base}-security {suite.name}-security main",
    )
