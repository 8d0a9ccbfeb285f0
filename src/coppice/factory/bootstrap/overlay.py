# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap builder lays over the packages' files, and what it leaves out: pure, no I/O.

No identity is baked in: host keys, machine-id, logs, leases and seeds are the booted machine's own affair.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

KERNEL_OPTIONS = "console=tty0 console=ttyS0,115200"
DATASOURCES = ("NoCloud", "ConfigDrive", "OpenNebula", "OpenStack", "Ec2", "None")

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


def make_overlay(*, title: str, user: str, root_uuid: UUID, private_mirror: bool) -> Overlay:
    """Return the overlay of an appliance.

    Args:
        title: Its title, for the boot menu.
        user: The account that cloud-init creates.
        root_uuid: Of its root file system.
        private_mirror: Whether the packages came from a site's own mirror, whose address is nobody else's affair;
            cloud-init then writes the distribution's own sources at first boot.
    """
    files: dict[str, str] = {
        "/boot/grub/grub.cfg": _grub_cfg(title, root_uuid),
        "/etc/default/grub": _GRUB_DEFAULTS,
        "/etc/cloud/cloud.cfg.d/99-coppice.cfg": _cloud_cfg(user, private_mirror=private_mirror),
        "/etc/default/locale": "LANG=C.UTF-8\n",
        "/etc/fstab": f"UUID={root_uuid} / ext4 defaults,errors=remount-ro 0 1\n",
        "/etc/hostname": "localhost\n",
        "/etc/hosts": _HOSTS,
        "/etc/machine-id": "",
        "/etc/ssh/sshd_config.d/00-coppice.conf": _SSHD_CONFIG,
    }
    entries: dict[str, File | Symlink] = {path: File(text.encode()) for path, text in files.items()}
    entries["/etc/resolv.conf"] = Symlink("../run/systemd/resolve/stub-resolv.conf")
    return Overlay(
        entries=entries,
        left_out=frozenset({"/etc/apt/sources.list"} if private_mirror else ()),
    )


_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""

_SSHD_CONFIG = """\
# Login by key only. The first value wins in sshd's configuration, so this file comes first.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin no
"""

_GRUB_DEFAULTS = f"""\
# Used when update-grub writes /boot/grub/grub.cfg anew.
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{KERNEL_OPTIONS}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""


def _grub_cfg(title: str, root_uuid: UUID) -> str:
    # /vmlinuz and /initrd.img are links that Debian's kernel packages keep pointing to the newest kernel.
    label = re.sub(r"[^\w .,()+-]", " ", title, flags=re.ASCII)
    return f"""\
set default=0
set timeout=0
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
menuentry '{label}' {{
  linux /vmlinuz root=UUID={root_uuid} ro {KERNEL_OPTIONS}
  initrd /initrd.img
}}
"""


def _cloud_cfg(user: str, *, private_mirror: bool) -> str:
    account = {
        "name": user,
        "gecos": user,
        "lock_passwd": True,
        "groups": ["adm", "sudo"],
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
        "shell": "/bin/bash",
    }
    # ds-identify reads datasource_list by itself, and only when it stands on one line.
    lines = [
        f"datasource_list: [ {', '.join(DATASOURCES)} ]",
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
