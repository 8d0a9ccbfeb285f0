# SPDX-License-Identifier: Apache-2.0
"""Names and identifiers of what Coppice makes in a libvirt: each follows from the marker, none can be chosen by a list.

An image's machine definition has the UUID that its marker gives. One that bears a marker and has another UUID is a copy
that somebody made (``virt-clone`` copies what is written on a definition): it is theirs.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING

from coppice.cloud.image_folder import identity

if TYPE_CHECKING:
    from coppice.cloud.model import OwnershipMarker
    from coppice.model.identifiers import ImageKey
    from coppice.model.image import DiskFormat

OVERLAY = ".TRANSIENT-"
"""What libvirt puts between a disk's name and a machine's, in the name of the file for what the machine writes."""
_NAMESPACE = uuid.UUID("0f6a3c52-5f0e-4b8e-9a54-2f6c6a7e1d3b")
_VERSION = 5
"""Of UUIDs that follow from a name; those that libvirt makes are random (version 4)."""


def image_uuid(marker: OwnershipMarker) -> str:
    """Return the UUID of the machine definition of an image in one version."""
    return _uuid("image", marker.site, str(marker.key), marker.version, str(marker.digest))


def current_uuid(site: str, key: str) -> str:
    """Return the UUID of the machine definition that leads to an image's current version: the same over all of them.

    Args:
        site: Whose it is.
        key: Text of the image's key.
    """
    return _uuid("current", site, key)


def may_be_ours(identifier: str) -> bool:
    """Tell whether a UUID can be one of the above, without looking at what bears it."""
    try:
        return uuid.UUID(identifier).version == _VERSION
    except ValueError:
        return False


def image_name(marker: OwnershipMarker, shown: str) -> str:
    """Return the name of an image's machine definition, for people; the end of it says which image it is."""
    return f"{_slug(shown, 36)}-{_slug(marker.version, 20)}-{_key_tag(marker.site, marker.key)}-{identity(marker)}"


def current_name(marker: OwnershipMarker, shown: str) -> str:
    """Return the name of the machine definition that leads to the current version."""
    return f"{_slug(shown, 48)}-{_key_tag(marker.site, marker.key)}"


def is_version_of(name: str, marker: OwnershipMarker) -> bool:
    """Tell whether `image_name` can have given ``name`` for some version of the image of ``marker``."""
    return f"-{_key_tag(marker.site, marker.key)}-" in name


def volume_name(marker: OwnershipMarker, shown: str, disk_format: DiskFormat) -> str:
    """Return the name of an image's file."""
    return (
        f"{volume_prefix(marker.site)}{_slug(shown, 36)}-{_slug(marker.version, 20)}-{identity(marker)}.{disk_format}"
    )


def volume_prefix(site: str) -> str:
    """Return how the names of all of a site's files begin."""
    return f"coppice-{_digest(site)[:8]}-"


def overlay_name(volume: str, machine: str) -> str:
    """Return the name of the file that takes what a machine writes to a disk."""
    return f"{volume}{OVERLAY}{machine}"


def network_address(identifier: str) -> str:
    """Return the address of a machine's network card; the same each time that its definition is written."""
    digits = _digest(identifier)
    return f"52:54:00:{digits[:2]}:{digits[2:4]}:{digits[4:6]}"


def _key_tag(site: str, key: ImageKey) -> str:
    return _digest(site, str(key))[:8]


def _uuid(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, _digest(*parts)))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _slug(text: str, limit: int) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:limit].strip("-.") or "image"
