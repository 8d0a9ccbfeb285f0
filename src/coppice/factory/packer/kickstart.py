# SPDX-License-Identifier: Apache-2.0
"""Answers for Anaconda, the installer of the RPM family: a kickstart. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import DefinitionError
from coppice.factory.packer.answers import Answers

if TYPE_CHECKING:
    from coppice.factory.packer.answers import Installation

FILE = "ks.cfg"
_BASE = ("cloud-init", "cloud-utils-growpart", "openssh-server", "sudo")
_LAST_WITH_ISOLINUX = 9
_FIRST_FEDORA = 20
"""Fedora counts from there; its media have had GRUB since."""
_ISOLINUX_COMMAND = ("<up><wait><tab><wait>", " inst.text inst.ks={address}/ks.cfg", "<enter>")
_GRUB_COMMAND = (
    "<up><wait>e<wait><down><down><end>",
    " inst.text inst.ks={address}/ks.cfg",
    "<leftCtrlOn>x<leftCtrlOff>",
)


def kickstart(installation: Installation) -> Answers:
    """Return the kickstart for ``installation``.

    Raises:
        DefinitionError: A value cannot stand on a line of it.
    """
    disk = installation.device.removeprefix("/dev/")
    source = "cdrom" if installation.install_url is None else f"url --url={quoted(installation.install_url)}"
    menu = f"--timeout={installation.menu_seconds}"
    append = f"--append={quoted(' '.join(installation.kernel_options))}"
    lines = [
        "text",
        source,
        "lang en_US.UTF-8",
        "keyboard --vckeymap=us",
        "timezone Etc/UTC --utc",
        "network --bootproto=dhcp --device=link --activate --hostname=localhost",
        "rootpw --lock",
        f"sshkey --username=root {quoted(installation.public_key)}",
        "firewall --disabled",  # the appliance's own rules are laid in afterwards
        "selinux --enforcing",
        "firstboot --disable",
        "services --enabled=sshd",
        f"ignoredisk --only-use={disk}",
        "zerombr",
        f"clearpart --all --initlabel --disklabel=gpt --drives={disk}",
        f"bootloader --boot-drive={disk} {menu} {append}",
        "reqpart",
        f"part / --fstype=ext4 --size=1024 --grow --asprimary --ondisk={disk}",
        "reboot",
        "",
        "%packages --exclude-weakdeps" if installation.major >= _LAST_WITH_ISOLINUX else "%packages",
        "@^minimal-environment" if installation.major < _FIRST_FEDORA else "@core",
        *sorted({*_BASE, *installation.packages}),
        "%end",
        "",
        "%post --erroronfail",
        # Its first start is this build's; the appliance's own is still to come.
        "touch /etc/cloud/cloud-init.disabled",
        "%end",
    ]
    is_old = installation.major <= _LAST_WITH_ISOLINUX and not installation.is_uefi
    return Answers(files={FILE: "\n".join(lines) + "\n"}, command=_ISOLINUX_COMMAND if is_old else _GRUB_COMMAND)


def quoted(text: str) -> str:
    """Return ``text`` as one word of a kickstart.

    Raises:
        DefinitionError: It cannot be one.
    """
    if not text.isprintable():
        raise DefinitionError(f"a value cannot stand on a line of a kickstart: {text[:100]!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
