# SPDX-License-Identifier: Apache-2.0
"""What an unattended installer asks, answered from a definition: one file that Packer's web server gives out. Pure.

No password is in it: the installed system lets in one key, which is made for this build and is gone from its result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import BuildError, DefinitionError
from coppice.factory.packer.options import Installer
from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}")
_KERNEL_OPTION = re.compile(r"[A-Za-z0-9_.,:=/@%+-]{1,200}")
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]{68}")
_DEVICE = re.compile(r"/dev/[a-z]{2,4}")
_MIRROR = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What an installer is to do.

    Attributes:
        device: The disk that is installed to.
        firmware: What the installed system starts by.
        public_key: Lets this build in as root.
        packages: Beside the distribution's smallest system.
        kernel_options: Given to its kernel.
        menu_seconds: How long its boot menu waits.
        mirror: A site's own mirror of packages; None: the installer's default.
        install_url: Where a kickstart installs from; None: from the medium.
        major: The first number of the distribution's version; 0: it has none.
    """

    device: str
    firmware: Firmware
    public_key: str
    packages: tuple[str, ...]
    kernel_options: tuple[str, ...]
    menu_seconds: int = 0
    mirror: str | None = None
    install_url: str | None = None
    major: int = 0

    def __post_init__(self) -> None:
        """Refuse what could end a line or a word of any of these files.

        Raises:
            DefinitionError: A value cannot be what it says.
        """
        wrong = [each for each in self.packages if not PACKAGE.fullmatch(each)]
        if wrong:
            raise DefinitionError(
                f"not the name of a package: {wrong[0][:100]!r}",
                resolution="Write names in build.packages out of letters, digits, +, ., _ and -.",
            )
        wrong = [each for each in self.kernel_options if not _KERNEL_OPTION.fullmatch(each)]
        if wrong:
            raise DefinitionError(
                f"not an option of the kernel: {wrong[0][:100]!r}",
                resolution="Write each of boot.kernel-options as a word of its own, without spaces and quotes.",
            )
        if self.mirror is not None and not _MIRROR.fullmatch(self.mirror):
            # All users of this machine can read what is served, and a password may be in the address.
            raise DefinitionError(
                "the installer cannot be given the mirror of this site",
                resolution="Set factory.mirror to an address like http://HOST/PATH, without an account in it.",
            )
        if not (_KEY.fullmatch(self.public_key) and _DEVICE.fullmatch(self.device) and self.menu_seconds >= 0):
            raise DefinitionError("the key, the disk or the wait of an installation cannot be what it says")

    @property
    def is_uefi(self) -> bool:
        """Whether it starts by UEFI."""
        return self.firmware is Firmware.UEFI


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The files that an installer fetches.

    Attributes:
        files: Their contents, by name.
        command: What is typed so that the installer fetches them; ``{address}`` stands for where they are.
    """

    files: Mapping[str, str]
    command: tuple[str, ...]


def answers_of(installer: Installer, installation: Installation) -> Answers:
    """Return what ``installer`` is given.

    Raises:
        BuildError: It cannot do that.
    """
    from coppice.factory.packer.autoinstall import autoinstall
    from coppice.factory.packer.autoyast import autoyast
    from coppice.factory.packer.kickstart import kickstart
    from coppice.factory.packer.preseed import preseed

    table: dict[Installer, Callable[[Installation], Answers]] = {
        Installer.PRESEED: preseed,
        Installer.AUTOINSTALL: autoinstall,
        Installer.KICKSTART: kickstart,
        Installer.AUTOYAST: autoyast,
    }
    if installer not in table:
        raise BuildError(f"there is no installer {installer}")
    return table[installer](installation)
