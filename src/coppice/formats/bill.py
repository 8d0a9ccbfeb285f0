# SPDX-License-Identifier: Apache-2.0
"""A bill of materials: what an image is made of, before it is written in one form or the other."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from coppice.errors import DocumentError

if TYPE_CHECKING:
    from datetime import datetime

    from coppice.factory.model import BuiltImage, Package
    from coppice.model.operating_system import OperatingSystem

_NAMESPACE = uuid.UUID("5c1f0e0a-3b1e-5f7e-9d53-7f3f2f3c6f0e")
_TYPES = {"deb": "deb", "rpm": "rpm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BillFile:
    """A file that no package brought.

    Attributes:
        path: In the image.
        sha256: Of its content.
        sha1: Of its content.
    """

    path: str
    sha256: str
    sha1: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What an image is made of.

    Attributes:
        name: Of the appliance.
        title: For people.
        build: Key of the build.
        operating_system: What runs in it.
        images: Its files; the first is the one that is published.
        packages: That are installed.
        files: That no package brought.
        created: When the image was made.
        tool: Name and version of what wrote the bill.
    """

    name: str
    title: str
    build: str
    operating_system: OperatingSystem
    images: tuple[BuiltImage, ...]
    packages: tuple[Package, ...]
    files: tuple[BillFile, ...]
    created: datetime
    tool: tuple[str, str]

    @property
    def identifier(self) -> uuid.UUID:
        """The same for the same images, and for no others."""
        return uuid.uuid5(_NAMESPACE, " ".join(str(built.image.checksum) for built in self.images))


def package_url(package: Package, system: OperatingSystem) -> str:
    """Return the package URL (purl) of an installed package.

    Raises:
        DocumentError: Its package manager has no package URLs here.
    """
    kind = _TYPES.get(package.manager)
    if kind is None:
        raise DocumentError(f"the package {package.name} is of an unknown kind: {package.manager[:40]!r}")
    vendor = system.distribution.lower().replace(" ", "-")
    distribution = f"{vendor}-{system.version}"
    return (
        f"pkg:{kind}/{_quoted(vendor)}/{_quoted(package.name)}@{_quoted(package.version)}"
        f"?arch={_quoted(package.architecture)}&distro={_quoted(distribution)}"
    )


def source_of(package: Package) -> str:
    """Return name and version of the source package that a package was built from."""
    return f"{package.source or package.name} {package.source_version or package.version}"


def _quoted(text: str) -> str:
    # A colon stands as it is in package URLs, everything else that is special does not.
    return quote(text, safe=":~")
