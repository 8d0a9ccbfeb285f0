# SPDX-License-Identifier: Apache-2.0
"""What is laid over the packages' files of a release of the RPM family: pure, no I/O.

It is what the family's overlay of Debian says, in this family's words: other folders, other groups, units of one's own
where packages of several distributions differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError, DefinitionError
from coppice.factory.bootstrap.overlay import HOSTS, RESOLVED, check_services, kernel_options, menu_label, menu_seconds
from coppice.factory.bootstrap.overlay_access import access
from coppice.factory.bootstrap.overlay_cloud import BAKED_SETTINGS, SETTINGS, baked, cloud_settings
from coppice.factory.bootstrap.overlay_firewall import RULES, ruleset
from coppice.factory.bootstrap.overlay_model import MASK, UNITS, File, Overlay, own_unit, started_by
from coppice.factory.bootstrap.rpm_releases import find_release
from coppice.factory.provision.plan import check_provisioning

if TYPE_CHECKING:
    from uuid import UUID

    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.overlay_model import Symlink

LINKS_PROGRAM = "/etc/kernel/install.d/95-coppice.install"
_FIREWALL = "coppice-firewall.service"
_SSHD_LINK = started_by("multi-user.target", "sshd.service")
_UPDATES = "/etc/dnf/automatic.conf"
_ADMINISTRATORS = ("adm", "systemd-journal", "wheel")

_UPDATES_SETTINGS = """\
[commands]
upgrade_type = security
download_updates = yes
apply_updates = yes
reboot = never

[emitters]
emit_via = stdio
"""

_FIREWALL_UNIT = f"""\
[Unit]
Description=Firewall of the appliance
Documentation=man:nft(8)
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/usr

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}
ExecReload=/usr/sbin/nft -f {RULES}

[Install]
WantedBy=sysinit.target
"""

# kernel-install calls it when a kernel comes or goes, after the initial file system was made or removed.
_LINKS = """\
#!/bin/sh
# Keeps /vmlinuz and /initrd.img, which the boot menu names, pointing to the newest kernel that is whole.
set -eu
command=$1
gone=
[ "$command" != remove ] || gone=$2
newest=
for kernel in $(ls /boot | sed -n 's/^vmlinuz-//p' | sort -V); do
  case $kernel in
    *rescue* | "$gone") ;;
    *) [ ! -e "/boot/initramfs-$kernel.img" ] || newest=$kernel ;;
  esac
done
[ -n "$newest" ] || exit 0
ln -sfn "boot/vmlinuz-$newest" /vmlinuz
ln -sfn "boot/initramfs-$newest.img" /initrd.img
"""


def check_rpm_definition(definition: Definition) -> None:
    """Refuse what neither the overlay of ``definition`` nor its tree could honour.

    Raises:
        DefinitionError: It contradicts itself, or a value in it cannot be what it says.
        BuildError: It asks for what this builder does not do for the RPM family.
    """
    from uuid import UUID

    if definition.access.vnc:
        raise _refused(definition, "makes no desktop", "access.vnc")
    if definition.firewall.enabled and "firewalld" in definition.packages:
        raise DefinitionError(
            f"{definition.name}: firewalld and the appliance's own firewall would take each other's rules away",
            resolution="Leave firewalld out of build.packages, or set firewall.enabled to false.",
        )
    overlay = make_rpm_overlay(definition, root_uuid=UUID(int=0), private_mirror=True)
    for file in definition.files:
        if file.path in overlay.entries or overlay.leaves_out(file.path):
            raise DefinitionError(
                f"{definition.name}: the file {file.path} cannot be laid in: the builder writes it, or never keeps it",
                resolution="Say what it is for by access, firewall, contextualisation or boot, or choose another path.",
            )
    check_services(definition, overlay)
    check_provisioning(definition)


def rpm_packages_for(definition: Definition) -> tuple[str, ...]:
    """Return every package that ``definition`` needs beside what its release always has, sorted."""
    said, release = definition.contextualisation, find_release(definition.suite)
    wanted = {*definition.packages}
    wanted |= {"nftables"} if definition.firewall.enabled else set()
    wanted |= {"qemu-guest-agent"} if said.guest_agent else set()
    wanted |= {release.updates_package} if said.automatic_updates else set()
    if definition.access.web_console:
        wanted |= {"cockpit-bridge", "cockpit-system", "cockpit-ws"}
    return tuple(sorted(wanted))


def make_rpm_overlay(definition: Definition, *, root_uuid: UUID, private_mirror: bool) -> Overlay:  # noqa: ARG001 - every overlay is asked so
    """Return the overlay of an appliance of the RPM family.

    Args:
        definition: What is built.
        root_uuid: Of its root file system.
        private_mirror: Whether the packages came from a site's own mirror; the image has the distribution's own
            repositories in any case, as its packages bring them.

    Raises:
        DefinitionError: A value in it cannot be what it says.
    """
    way_in = access(definition)
    entries: dict[str, File | Symlink] = {
        **way_in.entries,
        "/boot/grub/grub.cfg": _text(_grub_cfg(definition, root_uuid)),
        "/etc/fstab": _text(f"UUID={root_uuid} / ext4 defaults 0 1\n"),
        "/etc/hostname": _text("localhost\n"),
        "/etc/hosts": _text(HOSTS),
        "/etc/kernel/cmdline": _text(f"root=UUID={root_uuid} ro {kernel_options(definition)}\n"),
        "/etc/locale.conf": _text("LANG=C.UTF-8\n"),
        "/etc/machine-id": _text(""),
        "/etc/systemd/resolved.conf.d/10-coppice.conf": _text(RESOLVED),
        LINKS_PROGRAM: File(_LINKS.encode(), mode=0o755),
        SETTINGS: _text(cloud_settings(definition, private_mirror=False, groups=_ADMINISTRATORS)),
        **baked(definition.contextualisation),
    }
    # NetworkManager writes the one that it has.
    left_out = {*way_in.left_out, "/etc/resolv.conf"} - entries.keys()
    if not definition.access.ssh:
        left_out.add(_SSHD_LINK)
    _add_firewall(definition, entries)
    _add_updates(definition, entries, left_out)
    if BAKED_SETTINGS not in entries:
        left_out.add(BAKED_SETTINGS)
    return Overlay(entries=entries, left_out=frozenset(left_out))


def _add_firewall(definition: Definition, entries: dict[str, File | Symlink]) -> None:
    if not definition.firewall.enabled:
        return
    entries |= {
        RULES: File(ruleset(definition).encode(), mode=0o644),
        f"{UNITS}/{_FIREWALL}": _text(_FIREWALL_UNIT),
        started_by("sysinit.target", _FIREWALL): own_unit(_FIREWALL),
        # A package that wants it must not take the rules away.
        f"{UNITS}/firewalld.service": MASK,
    }


def _add_updates(definition: Definition, entries: dict[str, File | Symlink], left_out: set[str]) -> None:
    timer = find_release(definition.suite).updates_timer
    link = started_by("timers.target", timer)
    if definition.contextualisation.automatic_updates:
        from coppice.factory.bootstrap.overlay_model import packaged_unit

        entries |= {_UPDATES: _text(_UPDATES_SETTINGS), link: packaged_unit(timer)}
    else:
        left_out.add(link)


def _grub_cfg(definition: Definition, root_uuid: UUID) -> str:
    return f"""\
set default=0
set timeout={menu_seconds(definition.boot)}
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
menuentry '{menu_label(definition.title)}' {{
  linux /vmlinuz root=UUID={root_uuid} ro {kernel_options(definition)}
  initrd /initrd.img
}}
"""


def _text(text: str) -> File:
    return File(text.encode())


def _refused(definition: Definition, why: str, key: str) -> BuildError:
    return BuildError(
        f"{definition.name}: the bootstrap builder {why} for the RPM family",
        resolution=f"Leave {key} out of {definition.path}, or use another builder.",
    )
