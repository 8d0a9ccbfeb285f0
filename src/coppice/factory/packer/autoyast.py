# SPDX-License-Identifier: Apache-2.0
"""Answers for YaST, the installer of openSUSE and SUSE: an AutoYaST profile. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from coppice.factory.packer.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coppice.factory.packer.answers import Installation

    Value = str | bool | int | Mapping[str, "Value"] | Sequence["Value"]

FILE = "autoinst.xml"
_BASE = ("cloud-init", "growpart", "openssh", "sudo")
_CONFIG = "http://www.suse.com/1.0/configns"
_HEAD = (
    '<?xml version="1.0"?>\n<!DOCTYPE profile>\n'
    f'<profile xmlns="http://www.suse.com/1.0/yast2ns" xmlns:config="{_CONFIG}">\n'
)
_ITEMS = {
    "partitioning": "drive",
    "partitions": "partition",
    "packages": "package",
    "patterns": "pattern",
    "products": "product",
    "users": "user",
    "authorized_keys": "listentry",
    "interfaces": "interface",
    "enable": "service",
    "scripts": "script",
    "chroot-scripts": "script",
}
"""What the entries of a list are called."""
_BIOS_BOOT, _EFI, _LINUX = 263, 259, 131
_BIOS_COMMAND = (
    "<esc><enter><wait>",
    "linux netsetup=dhcp textmode=1 autoyast={address}/autoinst.xml",
    "<enter>",
)
_UEFI_COMMAND = (
    "<down>e<wait><down><down><down><down><end>",
    " netsetup=dhcp textmode=1 autoyast={address}/autoinst.xml",
    "<f10>",
)


def autoyast(installation: Installation) -> Answers:
    """Return the profile for ``installation``."""
    profile = "".join(_element(name, value, 1) for name, value in _profile(installation).items())
    text = f"{_HEAD}{profile}</profile>\n"
    command = _UEFI_COMMAND if installation.is_uefi else _BIOS_COMMAND
    return Answers(files={FILE: text}, command=command)


def _profile(installation: Installation) -> dict[str, Value]:
    return {
        "general": {"mode": {"confirm": False, "final_reboot": True}},
        "language": {"language": "en_US"},
        "keyboard": {"keymap": "english-us"},
        "timezone": {"hwclock": "UTC", "timezone": "Etc/UTC"},
        "bootloader": {
            "global": {
                "append": " ".join(installation.kernel_options),
                "timeout": installation.menu_seconds,
                "hiddenmenu": False,
            },
            "loader_type": "grub2-efi" if installation.is_uefi else "grub2",
        },
        "partitioning": [
            {
                "device": installation.device,
                "disklabel": "gpt",
                "initialize": True,
                "use": "all",
                "partitions": [_first(installation), _root()],
            }
        ],
        "networking": {
            "keep_install_network": False,
            "interfaces": [{"bootproto": "dhcp", "name": "eth0", "startmode": "auto"}],
        },
        "firewall": {"enable_firewall": False, "start_firewall": False},
        "services-manager": {"default_target": "multi-user", "services": {"enable": ["sshd"]}},
        "software": {
            "install_recommended": False,
            "patterns": ["minimal_base"],
            "packages": sorted({*_BASE, *installation.packages}),
        },
        **_first_login(installation.public_key),
    }


def _first_login(public_key: str) -> dict[str, Value]:
    return {
        "users": [
            {
                "username": "root",
                "encrypted": True,
                "user_password": "!",
                "authorized_keys": [public_key],
            }
        ],
        # Its first start is this build's; the appliance's own is still to come.
        "scripts": {
            "chroot-scripts": [
                {
                    "filename": "cloud-init.sh",
                    "chrooted": True,
                    "source": "mkdir -p /etc/cloud\ntouch /etc/cloud/cloud-init.disabled\n",
                }
            ]
        },
    }


def _first(installation: Installation) -> dict[str, Value]:
    if installation.is_uefi:
        return {
            "create": True,
            "filesystem": "vfat",
            "format": True,
            "mount": "/boot/efi",
            "partition_id": _EFI,
            "size": "128M",
        }
    return {"create": True, "format": False, "partition_id": _BIOS_BOOT, "size": "2M"}


def _root() -> dict[str, Value]:
    return {
        "create": True,
        "filesystem": "ext4",
        "format": True,
        "mount": "/",
        "mountby": "uuid",
        "partition_id": _LINUX,
        "size": "max",
    }


def _element(name: str, value: Value, depth: int) -> str:
    pad = "  " * depth
    if isinstance(value, bool):
        return f'{pad}<{name} config:type="boolean">{str(value).lower()}</{name}>\n'
    if isinstance(value, int):
        return f'{pad}<{name} config:type="integer">{value}</{name}>\n'
    if isinstance(value, str):
        return f"{pad}<{name}>{escape(value)}</{name}>\n"
    if hasattr(value, "items"):
        inside = "".join(_element(key, each, depth + 1) for key, each in value.items())
        return f"{pad}<{name}>\n{inside}{pad}</{name}>\n"
    inside = "".join(_element(_ITEMS[name], each, depth + 1) for each in value)
    return f'{pad}<{name} config:type="list">\n{inside}{pad}</{name}>\n'
