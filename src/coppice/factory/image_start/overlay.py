# SPDX-License-Identifier: Apache-2.0
"""What is laid over an image's tree: access, firewall and cloud-init, as over every appliance. Pure.

Its boot loader, its fstab, its names and its sources of packages are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.errors import BuildError, DefinitionError
from coppice.factory.bootstrap.overlay_access import access
from coppice.factory.bootstrap.overlay_cloud import contextualisation
from coppice.factory.bootstrap.overlay_firewall import firewall
from coppice.factory.bootstrap.overlay_model import UNITS, File, Overlay
from coppice.factory.image_start.layer import is_left_alone

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.listing import Listing
    from coppice.factory.bootstrap.overlay_model import Part, Symlink

_OWN = ("/etc/hostname", "/etc/resolv.conf", "/etc/apt/sources.list")
_OWN_FOLDER = "/etc/apt/sources.list.d/"


def overlay_of(definition: Definition) -> Overlay:
    """Return what is laid over an image for ``definition``.

    Raises:
        DefinitionError: A value in it cannot be what it says.
    """
    entries: dict[str, File | Symlink] = {"/etc/machine-id": File(b"")}
    left_out: set[str] = set()
    for part in _parts(definition):
        entries |= part.entries
        left_out.update(part.left_out)
    return Overlay(entries=entries, left_out=frozenset(left_out))


def packages_of(definition: Definition) -> tuple[str, ...]:
    """Return every package that ``definition`` needs, sorted.

    Raises:
        DefinitionError: A value in it cannot be what it says.
    """
    needed = {package for part in _parts(definition) for package in part.packages}
    return tuple(sorted({*definition.packages, *needed}))


def check_overlay(definition: Definition, parent: Definition | None) -> None:
    """Refuse what neither the overlay nor the tree could honour.

    Raises:
        DefinitionError: It contradicts itself, or a value in it cannot be what it says.
        BuildError: It takes away what its parent's image has.
    """
    overlay = overlay_of(definition)
    for file in definition.files:
        if file.path in overlay.entries or overlay.leaves_out(file.path) or file.path in _OWN:
            raise DefinitionError(
                f"{definition.name}: the file {file.path} cannot be laid in",
                resolution="Say what it is for by access, firewall or contextualisation, or choose another path.",
            )
    services = definition.services
    for unit in (*services.enabled, *services.disabled, *services.masked):
        switched = [path for path in overlay.entries if path.endswith(f".wants/{unit}")]
        if f"{UNITS}/{unit}" in overlay.entries or switched:
            raise DefinitionError(
                f"{definition.name}: whether {unit} starts is not for services to say",
                resolution="Set it by access or by firewall.enabled, and leave it out of services.",
            )
    kernels = [package for package in definition.packages if is_left_alone(package)]
    had = () if parent is None else parent.packages
    if set(kernels) - set(had):
        raise BuildError(
            f"{definition.name}: the image builder leaves kernel and boot loader as the image has them, and installs "
            f"no {', '.join(kernels)}",
            resolution="Leave it out of build.packages, or start from an image that has it.",
        )
    gone = () if parent is None else sorted(overlay_of(parent).entries.keys() - overlay.entries.keys())
    if gone:
        raise BuildError(
            f"{definition.name} takes away what its parent's image has: {', '.join(gone[:5])}",
            resolution="Have access, firewall and contextualisation as its parent has them, or more; or start from "
            "another image.",
        )


def with_own(definition: Definition, before: Listing, after: Listing) -> Listing:
    """Return ``after`` with what is the image's own affair as it was ``before``: building passes over it.

    What the definition itself lays there, and what comes anew to the sources of packages, stays.
    """
    stated = {file.path for file in definition.files}

    def is_own(path: str) -> bool:
        return path in _OWN or (path.startswith(_OWN_FOLDER) and path in before and path not in stated)

    kept = {path: node for path, node in after.items() if not is_own(path)}
    return kept | {path: node for path, node in before.items() if is_own(path)}


def _parts(definition: Definition) -> tuple[Part, ...]:
    return (access(definition), firewall(definition), contextualisation(definition, private_mirror=False))
