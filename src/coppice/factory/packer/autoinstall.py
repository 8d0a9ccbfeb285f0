# SPDX-License-Identifier: Apache-2.0
"""Answers for the installer of Ubuntu's servers: an autoinstall, as user data of cloud-init. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coppice.factory.packer.answers import Answers

if TYPE_CHECKING:
    from coppice.factory.packer.answers import Installation

USER_DATA = "user-data"
META_DATA = "meta-data"
_BASE = ("cloud-guest-utils", "cloud-init", "openssh-server", "sudo")
_COMMAND = (
    "<wait>c<wait>",
    # A semicolon ends a command of GRUB.
    'linux /casper/vmlinuz autoinstall "ds=nocloud;s={address}/" ---<enter><wait>',
    "initrd /casper/initrd<enter><wait>",
    "boot<enter>",
)


def autoinstall(installation: Installation) -> Answers:
    """Return the user data for ``installation``, and the meta data that has to lie beside it."""
    options = " ".join(installation.kernel_options)
    grub = f'GRUB_TIMEOUT={installation.menu_seconds}\nGRUB_CMDLINE_LINUX="{options}"\n'
    said: dict[str, Any] = {
        "version": 1,
        "locale": "en_US.UTF-8",
        "timezone": "Etc/UTC",
        "keyboard": {"layout": "us"},
        "refresh-installer": {"update": False},
        "source": {"id": "ubuntu-server-minimal", "search_drivers": False},
        # The smallest layout: what the firmware needs, and one root of ext4; no swap.
        "storage": {"layout": {"name": "direct", "match": {"path": installation.device}}, "swap": {"size": 0}},
        "ssh": {"install-server": True, "allow-pw": False},
        "packages": sorted({*_BASE, *installation.packages}),
        "updates": "all",
        # Nobody but root, who has no password, and comes in by the key below.
        "user-data": {"users": [], "disable_root": False},
        "late-commands": [
            ["mkdir", "-p", "-m", "0700", "/target/root/.ssh"],
            _write("/target/root/.ssh/authorized_keys", f"{installation.public_key}\n"),
            ["chmod", "0600", "/target/root/.ssh/authorized_keys"],
            _write("/target/etc/default/grub.d/90-appliance.cfg", grub),
            ["curtin", "in-target", "--target=/target", "--", "update-grub"],
            # Its first start is this build's; the appliance's own is still to come.
            ["touch", "/target/etc/cloud/cloud-init.disabled"],
        ],
        "shutdown": "reboot",
    }
    if installation.mirror is not None:
        said["apt"] = {"primary": [{"arches": ["default"], "uri": installation.mirror}]}
    # What is JSON is YAML, too, and leaves no doubt about quotes.
    text = "#cloud-config\n" + json.dumps({"autoinstall": said}, indent=2) + "\n"
    return Answers(files={USER_DATA: text, META_DATA: ""}, command=_COMMAND)


def _write(path: str, content: str) -> list[str]:
    # The content is a word of its own: no shell reads it.
    return ["sh", "-c", 'printf %s "$1" > "$2"', "sh", content, path]
