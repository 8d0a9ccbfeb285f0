# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap builder knows about the releases of Debian and Ubuntu."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.bootstrap.mirror import shown_mirror
from coppice.factory.bootstrap.processors import X86_64, Processor, find_processor
from coppice.process import find_tool

_PACKAGES = (
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "grub2-common",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netplan.io",
    "nftables",
    "openssh-server",
    "sudo",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "vim-tiny",
    "zstd",
)

_MIRROR = re.compile(r"(?:https?|file|copy)://?[^\s\[\]]+")
_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z")
_PLACE = "{snapshot}"


class Family(StrEnum):
    """Whose archive it is: how a mirror of it is laid out, and what its kernel is called."""

    DEBIAN = "debian"
    UBUNTU = "ubuntu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A release of a distribution.

    Attributes:
        name: As the archive names it.
        epoch: Seconds since 1970 of its release: the date of everything that a build itself makes, so that two
            builds of the same packages give the same bytes.
        family: Whose.
        has_resolved: Whether the resolver is a package of its own.
        processor: That it is for.
    """

    name: str
    epoch: int
    family: Family = Family.DEBIAN
    has_resolved: bool = True
    processor: Processor = X86_64

    @property
    def base_packages(self) -> tuple[str, ...]:
        """Always installed: a kernel for virtual machines, what boots it, and what makes it a guest of a cloud."""
        kernel = self.processor.cloud_kernel if self.family is Family.DEBIAN else "linux-image-virtual"
        resolved = ("systemd-resolved",) if self.has_resolved else ()
        return tuple(sorted((*_PACKAGES, kernel, *self.processor.loader_packages, *resolved)))

    @property
    def components(self) -> str:
        """Parts of the archive that packages may come from."""
        return "main" if self.family is Family.DEBIAN else "main universe"


_SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="bullseye", epoch=1628899200, has_resolved=False),
        Suite(name="bookworm", epoch=1686355200),
        Suite(name="trixie", epoch=1754697600),
        Suite(name="jammy", epoch=1650499200, family=Family.UBUNTU, has_resolved=False),
        Suite(name="noble", epoch=1714003200, family=Family.UBUNTU),
        Suite(name="resolute", epoch=1776902400, family=Family.UBUNTU),
    )
}
_UBUNTU = ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
_UBUNTU_SNAPSHOT = f"http://snapshot.ubuntu.com/ubuntu/{_PLACE}"
# How mmdebstrap, a script, sets its own default.
_DEFAULT_MIRROR = re.compile(rb"^\s*my \$mirror\s*=\s*'(https?://[^'\s]+)';", re.MULTILINE)
_VERSION = re.compile(rb"^our \$VERSION = '([0-9][0-9A-Za-z.~+-]*)';$", re.MULTILINE)
_MOST_SCRIPT_BYTES = 4 * 1024 * 1024


def find_suite(name: str, architecture: str = X86_64.architecture) -> Suite:
    """Return the release ``name`` for processors of that architecture.

    Raises:
        BuildError: The builder does not know it, or not for such processors.
    """
    suite = _SUITES.get(name)
    if suite is None:
        raise BuildError(
            f"the bootstrap builder does not know the suite {name!r}",
            resolution=f"Set operating-system.suite to one of: {', '.join(sorted(_SUITES))}.",
        )
    processor = find_processor(architecture)
    if suite.family is Family.UBUNTU and processor is not X86_64:
        raise BuildError(
            f"the bootstrap builder does not build Ubuntu for {architecture}",
            resolution="Leave operating-system.architecture out, or build Debian for it.",
        )
    return replace(suite, processor=processor)


def default_mirror() -> str:
    """Return where the bootstrapper takes Debian's packages from when it is not told: it knows, and nobody else need.

    Raises:
        BuildError: It does not say.
        ToolMissingError: It is not installed.
    """
    path = Path(find_tool("mmdebstrap"))
    with storage_errors("reading", path), path.open("rb") as stream:
        found = _DEFAULT_MIRROR.search(stream.read(_MOST_SCRIPT_BYTES))
    if found is None:
        raise BuildError(
            f"{path} does not say where Debian's packages are",
            resolution="Set factory.mirror to the address of a mirror.",
        )
    return found[1].decode("ascii", errors="replace")


def bootstrapper_version() -> str:
    """Return the version of the bootstrapper, as it says itself: asking it takes longer than reading it.

    Raises:
        ToolMissingError: It is not installed.
    """
    path = Path(find_tool("mmdebstrap"))
    with storage_errors("reading", path), path.open("rb") as stream:
        found = _VERSION.search(stream.read(_MOST_SCRIPT_BYTES))
    return "unknown" if found is None else found[1].decode("ascii")


def sources(suite: Suite, mirror: str | None, snapshot: str = "") -> tuple[str, ...]:
    """Return the package sources as lines of ``sources.list``.

    The suite, its updates and its security updates always belong together. The security archive of a mirror of Debian
    is its sibling whose name ends in ``-security``, as it is everywhere in Debian's world; Ubuntu has them in one.

    Args:
        suite: The release.
        mirror: A site's own mirror; None: the bootstrapper's default, or Ubuntu's own. ``{snapshot}`` in it stands for
            ``snapshot``.
        snapshot: The moment whose packages are wanted, as ``20260131T000000Z``; empty: the newest.

    Raises:
        BuildError: The mirror is not an address, or has no snapshots.
        ToolMissingError: There is none, and the bootstrapper is not installed.
    """
    base, security = _mirrors(suite, mirror, _checked(snapshot))
    # What is signed of an old state says that it has long expired.
    option = "[check-valid-until=no] " if snapshot else ""
    return (
        f"deb {option}{base} {suite.name} {suite.components}",
        f"deb {option}{base} {suite.name}-updates {suite.components}",
        f"deb {option}{security} {suite.name}-security {suite.components}",
    )


def _mirrors(suite: Suite, mirror: str | None, snapshot: str) -> tuple[str, str]:
    if mirror is None and suite.family is Family.UBUNTU:
        place = _UBUNTU_SNAPSHOT.replace(_PLACE, snapshot)
        return (place, place) if snapshot else _UBUNTU
    if mirror is None and snapshot:
        raise BuildError(
            f"build.snapshot is {snapshot}, and no mirror is set that has snapshots of Debian by name",
            resolution=f"Set factory.mirror to one, with {_PLACE} where its name belongs.",
        )
    mirror = default_mirror() if mirror is None else mirror
    if not _MIRROR.fullmatch(mirror):
        raise BuildError(
            f"not the address of a package mirror: {shown_mirror(mirror)}",
            resolution="Write it as http://, https:// or file://, without spaces, without a suite.",
        )
    if (_PLACE in mirror) != bool(snapshot):
        raise BuildError(
            f"the mirror of this site, {shown_mirror(mirror)}, has no snapshots by name"
            if snapshot
            else f"the mirror of this site, {shown_mirror(mirror)}, needs to be told a snapshot",
            resolution=f"Where factory.mirror has {_PLACE} in it, build.snapshot is put there; have both or neither.",
        )
    base = mirror.rstrip("/").replace(_PLACE, snapshot)
    # Packages at file:// are used where they lie, which cannot be seen from inside of the tree.
    base = f"copy:{base.removeprefix('file:')}" if base.startswith("file:") else base
    return base, f"{base}-security" if suite.family is Family.DEBIAN else base


def _checked(snapshot: str) -> str:
    if snapshot and not _SNAPSHOT.fullmatch(snapshot):
        raise BuildError(
            f"not the name of a snapshot: {snapshot[:80]!r}",
            resolution="Write build.snapshot as a moment of UTC: 20260131T000000Z.",
        )
    return snapshot
