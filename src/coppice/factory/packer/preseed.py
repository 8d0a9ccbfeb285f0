# SPDX-License-Identifier: Apache-2.0
"""Answers for the installer of Debian, and of Ubuntu as long as it had the same: a preseed file. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.errors import DefinitionError
from coppice.factory.packer.answers import Answers

if TYPE_CHECKING:
    from coppice.factory.packer.answers import Installation

FILE = "preseed.cfg"
# Root is the last partition, so that it can grow.
_BIOS_FIRST = "1 1 1 free $iflabel{ gpt } $reusemethod{ } method{ biosgrub } ."
_UEFI_FIRST = "128 128 128 free $iflabel{ gpt } $reusemethod{ } method{ efi } format{ } ."
_ROOT = (
    "1024 10000 -1 ext4 method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } "
    "options/noatime{ noatime } ."
)
_BASE = ("cloud-guest-utils", "cloud-init", "openssh-server", "sudo")

# The installer asks, what it asks for, the kind of the answer, the answer.
_FIXED: tuple[tuple[str, str, str, str], ...] = (
    ("d-i", "debian-installer/locale", "string", "en_US.UTF-8"),
    ("d-i", "keyboard-configuration/xkb-keymap", "select", "us"),
    ("d-i", "netcfg/choose_interface", "select", "auto"),
    ("d-i", "netcfg/get_hostname", "string", "localhost"),
    ("d-i", "netcfg/get_domain", "string", "localdomain"),
    ("d-i", "hw-detect/load_firmware", "boolean", "false"),
    ("d-i", "passwd/make-user", "boolean", "false"),
    ("d-i", "passwd/root-login", "boolean", "true"),
    ("d-i", "passwd/root-password-crypted", "password", "!"),
    ("d-i", "clock-setup/utc", "boolean", "true"),
    ("d-i", "clock-setup/ntp", "boolean", "false"),
    ("d-i", "time/zone", "string", "Etc/UTC"),
    ("d-i", "partman-auto/method", "string", "regular"),
    ("d-i", "partman-auto/choose_recipe", "select", "appliance"),
    ("d-i", "partman-basicfilesystems/no_swap", "boolean", "false"),
    ("d-i", "partman-partitioning/choose_label", "select", "gpt"),
    ("d-i", "partman-partitioning/default_label", "string", "gpt"),
    ("d-i", "partman-partitioning/confirm_write_new_label", "boolean", "true"),
    ("d-i", "partman/choose_partition", "select", "finish"),
    ("d-i", "partman/confirm", "boolean", "true"),
    ("d-i", "partman/confirm_nooverwrite", "boolean", "true"),
    ("d-i", "partman/mount_style", "select", "uuid"),
    ("d-i", "apt-setup/cdrom/set-first", "boolean", "false"),
    ("d-i", "apt-setup/services-select", "multiselect", "security, updates"),
    ("d-i", "pkgsel/run_tasksel", "boolean", "false"),
    ("d-i", "pkgsel/upgrade", "select", "full-upgrade"),
    ("d-i", "pkgsel/update-policy", "select", "none"),
    ("popularity-contest", "popularity-contest/participate", "boolean", "false"),
    ("d-i", "grub-installer/only_debian", "boolean", "true"),
    ("d-i", "grub-installer/with_other_os", "boolean", "false"),
    ("d-i", "grub-installer/force-efi-extra-removable", "boolean", "true"),
    ("d-i", "cdrom-detect/eject", "boolean", "true"),
    ("d-i", "finish-install/reboot_in_progress", "note", ""),
)
_BIOS_COMMAND = ("<esc><wait2>", "auto url={address}/preseed.cfg priority=critical", "<enter>")
_UEFI_COMMAND = (
    "<wait>c<wait>",
    "linux /install.amd/vmlinuz auto=true priority=critical url={address}/preseed.cfg --- quiet<enter><wait>",
    "initrd /install.amd/initrd.gz<enter><wait>",
    "boot<enter>",
)


def preseed(installation: Installation) -> Answers:
    """Return the preseed file for ``installation``.

    Raises:
        DefinitionError: A value cannot stand on a line of it.
    """
    first = _UEFI_FIRST if installation.is_uefi else _BIOS_FIRST
    key = shlex.quote(installation.public_key)
    late = " && ".join(
        (
            "mkdir -p -m 0700 /target/root/.ssh",
            f"echo {key} > /target/root/.ssh/authorized_keys",
            "chmod 0600 /target/root/.ssh/authorized_keys",
            # Its first start is this build's; the appliance's own is still to come.
            "mkdir -p /target/etc/cloud",
            "touch /target/etc/cloud/cloud-init.disabled",
        )
    )
    rows = [
        *_FIXED,
        *_mirror(installation.mirror),
        ("d-i", "partman-auto/disk", "string", installation.device),
        ("d-i", "partman-auto/expert_recipe", "string", f"appliance :: {first} {_ROOT}"),
        ("d-i", "grub-installer/bootdev", "string", installation.device),
        ("d-i", "debian-installer/add-kernel-opts", "string", " ".join(installation.kernel_options)),
        ("d-i", "pkgsel/include", "string", " ".join(sorted({*_BASE, *installation.packages}))),
        ("d-i", "preseed/late_command", "string", late),
    ]
    if installation.is_uefi:
        rows.append(("d-i", "partman-efi/non_efi_system", "boolean", "true"))
    command = _UEFI_COMMAND if installation.is_uefi else _BIOS_COMMAND
    return Answers(files={FILE: "".join(_line(row) for row in rows)}, command=command)


def _line(row: tuple[str, str, str, str]) -> str:
    text = " ".join(row).rstrip()
    if not text.isprintable() or text.endswith("\\"):
        raise DefinitionError(
            f"an answer for the installer cannot stand on one line: {text[:100]!r}",
            resolution="Leave control characters, and a backslash at the end, out of the definition's values.",
        )
    return f"{text}\n"


def _mirror(mirror: str | None) -> list[tuple[str, str, str, str]]:
    if mirror is None:
        return []
    parts = urlsplit(mirror)
    kind, path = parts.scheme, parts.path or "/"
    return [
        ("d-i", "mirror/country", "string", "manual"),
        ("d-i", "mirror/protocol", "string", kind),
        ("d-i", f"mirror/{kind}/hostname", "string", parts.netloc),
        ("d-i", f"mirror/{kind}/directory", "string", path),
        ("d-i", f"mirror/{kind}/proxy", "string", ""),
    ]
