# SPDX-License-Identifier: Apache-2.0
"""From a build and the inventory of its image to a bill of materials."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from coppice import __version__
from coppice.formats.bill import Bill, BillFile

if TYPE_CHECKING:
    from coppice.factory.evidence.inventory import Inventory
    from coppice.factory.model import BuildResult

_MADE_OF_PACKAGES = (
    "/boot/initramfs-",
    "/boot/initrd",
    "/boot/vmlinuz-",
    "/etc/alternatives/",
    "/etc/ld.so.cache",
    "/etc/pki/ca-trust/extracted/",
    "/etc/ssl/certs/",
    "/usr/lib/locale/",
    "/usr/lib/modules/",
    "/usr/lib/sysimage/rpm/",
    "/usr/share/mime/",
    "/var/cache/",
    "/var/lib/dpkg/",
    "/var/lib/rpm/",
    "/var/lib/systemd/",
    "/var/lib/ucf/",
    "/var/log/",
)
"""Where packages' own scripts write what is made of the packages: of a bill, they are told of by those."""


def bill_of(result: BuildResult, inventory: Inventory) -> Bill:
    """Return the bill of materials of a build: its packages, and the files that none of them brought."""
    files = (inventory.files[path] for path in sorted(inventory.files))
    return Bill(
        name=result.definition.name,
        title=result.definition.title,
        build=result.key,
        operating_system=result.definition.operating_system,
        images=result.images,
        packages=result.packages,
        files=tuple(
            BillFile(path=file.path, sha256=file.sha256, sha1=file.sha1)
            for file in files
            if stat.S_ISREG(file.mode) and file.sha1 and not _is_made_of_packages(file.path)
        ),
        created=result.provenance.started_at,
        tool=("coppice", __version__),
    )


def _is_made_of_packages(path: str) -> bool:
    return path.startswith(_MADE_OF_PACKAGES) or "/__pycache__/" in path
