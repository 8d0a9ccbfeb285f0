# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap builder lays over the packages' files, and what it leaves out: pure, no I/O.

No identity is baked in: host keys, machine-id, logs, leases and seeds are the booted machine's own affair. The overlay
goes into the finished file system alone, never into the tree that children are built on, so that a child has nothing of
its parent's firewall, access or boot menu.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from coppice.definition.model import FileSystemKind
from coppice.errors import DefinitionError
from coppice.factory.bootstrap.overlay_access import access
from coppice.factory.bootstrap.overlay_cloud import contextualisation
from coppice.factory.bootstrap.overlay_firewall import firewall
from coppice.factory.bootstrap.overlay_model import UNITS, File, Overlay, Part, Symlink
from coppice.factory.bootstrap.processors import find_processor
from coppice.factory.provision.plan import check_provisioning

if TYPE_CHECKING:
    from coppice.definition.model import Boot, Definition
    from coppice.factory.bootstrap.processors import Processor

__all__ = ["File", "Overlay", "Symlink", "check_definition", "make_overlay", "packages_for"]

_KERNEL_OPTION = re.compile(r"[A-Za-z0-9_.,:=/@%+-]{1,200}")
_MAX_MENU_SECONDS = 3600
_MOUNT_OPTIONS = {
    FileSystemKind.EXT4: "defaults,errors=remount-ro 0 1",
    FileSystemKind.XFS: "defaults 0 0",
    FileSystemKind.BTRFS: "defaults 0 0",
}


def check_definition(definition: Definition) -> None:
    """Refuse what neither the overlay of ``definition`` nor its tree could honour.

    Raises:
        DefinitionError: It contradicts itself, or a value in it cannot be what it says.
        BuildError: It is for processors that this builder does not know.
    """
    overlay = make_overlay(definition, root_uuid=UUID(int=0), private_mirror=True)
    for file in definition.files:
        if file.path in overlay.entries or overlay.leaves_out(file.path):
            why = "the builder writes it" if file.path in overlay.entries else "it is never kept in an image"
            raise DefinitionError(
                f"{definition.name}: the file {file.path} cannot be laid in: {why}",
                resolution="Say what it is for by access, firewall, contextualisation or boot, or choose another path.",
            )
    check_services(definition, overlay)
    check_provisioning(definition)


def packages_for(definition: Definition) -> tuple[str, ...]:
    """Return every package that ``definition`` needs beside what the builder always installs, sorted.

    Raises:
        DefinitionError: A value in it cannot be what it says.
    """
    wanted = set(definition.packages)
    for part in _parts(definition, private_mirror=False):
        wanted.update(part.packages)
    signed = find_processor(definition.operating_system.architecture).signed_loader
    if definition.boot.secure_boot and signed is not None:
        wanted.update(signed.packages)
    if definition.file_system is FileSystemKind.BTRFS:
        # By it cloud-init has the root grow into its disk.
        wanted.add("btrfs-progs")
    return tuple(sorted(wanted))


def make_overlay(definition: Definition, *, root_uuid: UUID, private_mirror: bool) -> Overlay:
    """Return the overlay of an appliance.

    Args:
        definition: What is built; its files, users, services and provisioners are not in the overlay, but in the tree.
        root_uuid: Of its root file system.
        private_mirror: Whether the packages came from a site's own mirror, whose address is nobody else's affair;
            cloud-init then writes the distribution's own sources at first boot.

    Raises:
        DefinitionError: A value in it cannot be what it says.
    """
    entries: dict[str, File | Symlink] = {
        "/boot/grub/grub.cfg": _text(_grub_cfg(definition, root_uuid)),
        "/etc/default/grub": _text(_grub_defaults(definition)),
        "/etc/default/locale": _text("LANG=C.UTF-8\n"),
        "/etc/fstab": _text(f"UUID={root_uuid} / {definition.file_system} {_MOUNT_OPTIONS[definition.file_system]}\n"),
        "/etc/hostname": _text("localhost\n"),
        "/etc/hosts": _text(HOSTS),
        "/etc/machine-id": _text(""),
        "/etc/resolv.conf": Symlink("../run/systemd/resolve/stub-resolv.conf"),
        "/etc/systemd/resolved.conf.d/10-coppice.conf": _text(RESOLVED),
    }
    left_out = {"/etc/apt/sources.list"} if private_mirror else set()
    for part in _parts(definition, private_mirror=private_mirror):
        entries |= part.entries
        left_out.update(part.left_out)
    return Overlay(entries=entries, left_out=frozenset(left_out))


def _parts(definition: Definition, *, private_mirror: bool) -> tuple[Part, ...]:
    return (
        access(definition),
        firewall(definition),
        contextualisation(definition, private_mirror=private_mirror),
    )


def check_services(definition: Definition, overlay: Overlay) -> None:
    """Refuse services that the overlay switches itself.

    Raises:
        DefinitionError: One is.
    """
    services = definition.services
    switched = (*services.enabled, *services.disabled, *services.masked)
    for unit in switched:
        full = unit if "." in unit else f"{unit}.service"
        wanted_by = [path for path in (*overlay.entries, *overlay.left_out) if path.endswith(f".wants/{full}")]
        if f"{UNITS}/{full}" in overlay.entries or wanted_by:
            raise DefinitionError(
                f"{definition.name}: whether {full} starts is not for services to say",
                resolution="Set it by access or by firewall.enabled, and leave it out of services.",
            )


def _text(text: str) -> File:
    return File(text.encode())


# Names are asked of the cloud's name servers: nobody on the same network answers for them, and nothing listens there.
RESOLVED = """\
[Resolve]
LLMNR=no
MulticastDNS=no
"""
HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""


_SERIAL_TERMINAL = """\
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
"""
_SERIAL_MENU = """\
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
"""


def _grub_defaults(definition: Definition) -> str:
    # Where UEFI is all that there is, its own console is the serial port, too.
    terminal = _SERIAL_TERMINAL if _processor(definition).has_bios else 'GRUB_TERMINAL="console"\n'
    return f"""\
# Used when update-grub writes /boot/grub/grub.cfg anew.
GRUB_DEFAULT=0
GRUB_TIMEOUT={menu_seconds(definition.boot)}
GRUB_DISTRIBUTOR="{menu_label(definition.operating_system.distribution)}"
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{kernel_options(definition)}"
{terminal}GRUB_DISABLE_OS_PROBER=true
"""


def _grub_cfg(definition: Definition, root_uuid: UUID) -> str:
    # /vmlinuz and /initrd.img are links that Debian's kernel packages keep pointing to the newest kernel.
    return f"""\
set default=0
set timeout={menu_seconds(definition.boot)}
{_SERIAL_MENU if _processor(definition).has_bios else ""}menuentry '{menu_label(definition.title)}' {{
  linux /vmlinuz root=UUID={root_uuid} ro {kernel_options(definition)}
  initrd /initrd.img
}}
"""


def menu_label(text: str) -> str:
    """Return ``text`` without what has a meaning in GRUB's menu."""
    return re.sub(r"[^\w .,()+-]", " ", text, flags=re.ASCII)


def menu_seconds(boot: Boot) -> int:
    """Return how long the menu waits.

    Raises:
        DefinitionError: That is no time.
    """
    if not 0 <= boot.menu_seconds <= _MAX_MENU_SECONDS:
        raise DefinitionError(
            f"the boot menu cannot wait for {boot.menu_seconds} seconds",
            resolution=f"Set boot.menu-seconds to 0 to {_MAX_MENU_SECONDS}.",
        )
    return boot.menu_seconds


def kernel_options(definition: Definition) -> str:
    """Return the kernel's command line, but for its root.

    Raises:
        DefinitionError: An option is no word.
    """
    for option in definition.boot.kernel_options:
        if not _KERNEL_OPTION.fullmatch(option):
            raise DefinitionError(
                f"not an option of the kernel: {option[:100]!r}",
                resolution="Write each of boot.kernel-options as a word of its own, without spaces and quotes.",
            )
    console = f"console=tty0 console={_processor(definition).serial_port},115200"
    return " ".join((console, *definition.boot.kernel_options))


def _processor(definition: Definition) -> Processor:
    return find_processor(definition.operating_system.architecture)
