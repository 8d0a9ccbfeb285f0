# SPDX-License-Identifier: Apache-2.0
"""`Overlay`: what the bootstrap builder lays over the packages' files, and what it leaves out."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LEFT_OUT = re.compile(
    r"""
      /(?:dev|proc|run|sys|tmp)/.*
    | /etc/ssh/ssh_host_.*
    | /etc/(?:passwd|shadow|group|gshadow|subuid|subgid)-
    | /etc/\.pwd\.lock
    | /etc/\.resolv\.conf\.systemd-resolved\.bak   # of the building machine
    | /etc/(?:apt/apt\.conf\.d|dpkg/dpkg\.cfg\.d)/99mmdebstrap
    | /var/lib/apt/lists/.*
    | /var/lib/dpkg/[^/]*-old
    | /var/lib/dpkg/(?:lock|lock-frontend)
    | /var/lib/dbus/machine-id
    | /var/lib/dhcp/[^/]*leases
    | /var/lib/systemd/(?:random-seed|credential\.secret)
    | /var/lib/cloud/.*
    | /var/cache/apt/.+
    | /var/cache/debconf/[^/]*-old
    | /var/cache/ldconfig/aux-cache
    | /var/cache/(?:dnf|libdnf5)/.+
    | /var/lib/dnf/history\.sqlite.*
    | /(?:var/lib|usr/lib/sysimage)/rpm/(?:\.rpm\.lock|rpmdb\.sqlite-(?:shm|wal))
    | /var/lib/NetworkManager/(?:secret_key|timestamps|[^/]*\.lease)
    | /var/log/.*\.(?:log|gz|old|\d+)
    | /var/log/apt/.+
    | /root/\.(?:bash_history|ssh/.*|wget-hsts|cache/.*)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class File:
    """A file to lay over: content and permissions; it belongs to root."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link to lay over."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What is laid over a tree, and what of the tree is left out.

    Attributes:
        entries: By absolute path.
        left_out: Absolute paths, besides those that are never kept.
    """

    entries: dict[str, File | Symlink]
    left_out: frozenset[str]

    def leaves_out(self, path: str) -> bool:
        """Tell whether the tree's own entry at ``path`` is not taken over."""
        return path in self.entries or path in self.left_out or _LEFT_OUT.fullmatch(path) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One subject's share of an overlay.

    Attributes:
        entries: Laid over.
        left_out: Of the tree.
        packages: That the share needs.
    """

    entries: dict[str, File | Symlink]
    left_out: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


MASK = Symlink("/dev/null")
UNITS = "/etc/systemd/system"


def started_by(target: str, unit: str) -> str:
    """Return the path of the link by which ``target`` starts ``unit``."""
    return f"{UNITS}/{target}.wants/{unit}"


def packaged_unit(unit: str) -> Symlink:
    """Return a link to a unit that a package brought."""
    # Where /usr is merged, /lib is a link; where it is not, the units are here.
    return Symlink(f"/lib/systemd/system/{unit}")


def own_unit(unit: str) -> Symlink:
    """Return a link to a unit that the overlay itself brings."""
    return Symlink(f"{UNITS}/{unit}")
