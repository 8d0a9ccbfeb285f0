# SPDX-License-Identifier: Apache-2.0
"""What a definition says of a finished image, held against what is in it.

Nothing of it is made here: what is not so is an error. What only a running machine shows, the boot tests look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.definition.model import Boot, Services
from coppice.errors import BuildError
from coppice.factory.image_start.supported import check_disk, refused
from coppice.factory.image_start.taking import check_start
from coppice.factory.outputs import check_formats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coppice.definition.model import Definition
    from coppice.factory.evidence.tree import GuestTree
    from coppice.factory.model import BuildOptions, Package

_DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_UNITS = "/etc/systemd/system"
_FIREWALLS = ("nftables.service", "firewalld.service", "ufw.service")
_UPDATERS = frozenset({"unattended-upgrades", "dnf-automatic"})
_SERVERS = frozenset({"openssh-server", "dropbear"})
_DESKTOPS = frozenset({"tigervnc-standalone-server", "tigervnc-server", "x11vnc", "tightvncserver"})


def check_supported(definition: Definition, options: BuildOptions) -> None:
    """Refuse what could only be had by writing into the image.

    Raises:
        BuildError: It is asked for.
    """
    check_formats(definition, "prebuilt")
    if definition.parent is not None:
        raise refused(definition, "prebuilt", "takes an image as it is, and builds upon nothing", "from")
    said = definition.contextualisation
    asked = {
        "build.packages": definition.packages,
        "[[file]]": definition.files,
        "[[user]]": definition.users,
        "[services]": definition.services != Services(),
        "[[provisioner]]": definition.provisioners,
        "contextualisation.user-data": said.user_data is not None,
        "[boot]": definition.boot != Boot(),
        "build.snapshot": definition.snapshot,
    }
    for key, value in asked.items():
        if value:
            raise refused(definition, "prebuilt", f"never writes into an image, as {key} asks", key)
    check_disk(definition, "prebuilt")
    check_start(definition, options, "prebuilt")


def check_claims(definition: Definition, packages: Iterable[Package], tree: GuestTree, disk_bytes: int) -> None:
    """Compare what the definition says with what is in the image.

    Raises:
        BuildError: It says what is not so.
    """
    packages = tuple(packages)
    installed = {package.name for package in packages}
    said, access = definition.contextualisation, definition.access
    wrong: list[str] = []
    if disk_bytes != definition.disk_size_bytes:
        wrong.append(f"build.disk-size is {definition.disk_size_bytes}, and the image's disk has {disk_bytes} bytes")
    # Its package manager is of the processor that the system is for, whatever else is installed.
    made_for = sorted({package.architecture for package in packages if package.name == "dpkg"})
    architecture = str(definition.operating_system.architecture)
    if made_for and _DEBIAN_NAMES.get(architecture) not in made_for:
        wrong.append(f"operating-system.architecture is {architecture}, and the image is for {', '.join(made_for)}")
    claims = (
        ("cloud-init is there", True, {"cloud-init"}),
        ("access.ssh", access.ssh, _SERVERS),
        ("access.vnc", access.vnc, _DESKTOPS),
        ("access.web-console", access.web_console, {"cockpit", "cockpit-ws"}),
        ("contextualisation.guest-agent", said.guest_agent, {"qemu-guest-agent"}),
        ("contextualisation.automatic-updates", said.automatic_updates, _UPDATERS),
    )
    for key, is_said, needed in claims:
        if is_said and not installed & needed:
            wrong.append(f"{key}: the image has none of {', '.join(sorted(needed))}")
    if definition.firewall.enabled and not _starts(tree, _FIREWALLS):
        wrong.append(f"firewall.enabled: the image starts none of {', '.join(_FIREWALLS)}")
    if definition.firewall.open_ports and not definition.firewall.enabled:
        wrong.append("firewall.open names ports, and firewall.enabled is false")
    if wrong:
        raise BuildError(
            f"{definition.name} says of its image what is not so: {wrong[0]}",
            details="\n".join(wrong),
            resolution=f"Correct {definition.path}, or have the image changed by the builder image.",
        )


def _starts(tree: GuestTree, units: tuple[str, ...]) -> bool:
    return any(node.name in units and node.path.rpartition("/")[0].endswith(".wants") for node in tree.below(_UNITS))
