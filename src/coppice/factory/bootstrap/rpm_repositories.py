# SPDX-License-Identifier: Apache-2.0
"""Where the packages of a release of the RPM family come from, and what dnf is told of it. Pure.

Packages are signed, the indices of most releases are not: whoever stands between a mirror and a build could hand it
old packages, signed as they were. So a mirror is reached by TLS, or lies on this machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.errors import BuildError
from coppice.factory.bootstrap.mirror import shown_mirror

if TYPE_CHECKING:
    from coppice.factory.bootstrap.rpm_releases import RpmRelease

CACHE = "/var/cache/dnf"
STATE = "/var/lib/dnf"
_MIRROR = re.compile(r"(?:https|file)://[^\s\[\]]+|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?/[^\s\[\]]*")
_PLACE = "{snapshot}"
_SNAPSHOT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")

_CONFIGURATION = """\
[main]
gpgcheck=1
localpkg_gpgcheck=1
best=1
install_weak_deps=0
tsflags=nodocs
keepcache=1
skip_if_unavailable=0
metadata_expire=0
history_record=0
plugins=0
zchunk=0
deltarpm=0
retries=3
timeout=30
minrate=1000
color=never
installonly_limit=0
cachedir={cache}
logdir=/var/log
persistdir={state}
module_platform_id={platform}
"""
_REPOSITORY = """
[{name}]
name={name}
baseurl={address}
enabled=1
gpgcheck=1
"""


def repositories(release: RpmRelease, mirror: str | None, snapshot: str = "") -> tuple[tuple[str, str], ...]:
    """Return name and address of each repository of ``release``.

    Args:
        release: The release.
        mirror: A site's own mirror, laid out as the distribution's; None: the distribution's. ``{snapshot}`` in it
            stands for ``snapshot``.
        snapshot: Names the state of the repositories; empty: today's.

    Raises:
        BuildError: The mirror is not an address, is reached without TLS, or has no snapshots.
    """
    if snapshot and not _SNAPSHOT.fullmatch(snapshot):
        raise BuildError(
            f"not the name of a snapshot: {snapshot[:80]!r}", resolution="Use letters, digits, points, - and _."
        )
    place = release.mirror if mirror is None else mirror
    if not _MIRROR.fullmatch(place):
        raise BuildError(
            f"not the address of a mirror of {release.distribution}: {shown_mirror(place)}",
            resolution="Write it as https:// or file://, without spaces. The indices of these repositories are not "
            "signed, so plain http is taken from this machine only.",
        )
    if (_PLACE in place) != bool(snapshot):
        raise BuildError(
            f"the mirror {shown_mirror(place)} has no snapshots by name"
            if snapshot
            else f"the mirror {shown_mirror(place)} needs to be told a snapshot",
            resolution=f"Where factory.mirror has {_PLACE} in it, build.snapshot is put there; have both or neither.",
        )
    base = place.rstrip("/").replace(_PLACE, snapshot)
    return tuple((name, f"{base}/{path}/") for name, path in release.repositories)


def dnf_configuration(release: RpmRelease, found: tuple[tuple[str, str], ...]) -> str:
    """Return what dnf reads: every package is checked, nothing of this machine's own settings counts."""
    head = _CONFIGURATION.format(cache=CACHE, state=STATE, platform=release.platform)
    if not release.platform:
        head = head.replace("module_platform_id=\n", "")
    return head + "".join(_REPOSITORY.format(name=name, address=address) for name, address in found)


def rpm_macros(release: RpmRelease) -> str:
    """Return what RPM of this machine is told, so that it writes the record as the release's own RPM reads it."""
    return "".join(
        f"%{name} {value}\n"
        for name, value in (
            ("_dbpath", release.database),
            ("_db_backend", "sqlite"),
            ("_keyring", "rpmdb"),
            ("_pkgverify_level", "all"),
            # What is mounted there while scripts run is not the tree's.
            ("_netsharedpath", "/dev:/proc:/sys"),
            ("_install_langs", "C:en:en_US:en_US.UTF-8"),
        )
    )
