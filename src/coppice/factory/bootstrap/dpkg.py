# SPDX-License-Identifier: Apache-2.0
"""What is installed in a tree, from dpkg's own record. Pure."""

from __future__ import annotations

import re

from coppice.errors import BuildError
from coppice.factory.model import Package

STATUS = "/var/lib/dpkg/status"
_FIELD = re.compile(r"^(Package|Version|Architecture|Status|Source): (.*)$", re.MULTILINE)
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")


def read_packages(status: bytes) -> tuple[Package, ...]:
    """Return the installed packages of a dpkg ``status`` file, by name.

    Raises:
        BuildError: It is not such a file, or a package is only half installed.
    """
    packages: list[Package] = []
    for paragraph in re.split(r"\n\n+", status.decode("utf-8", errors="replace").strip()):
        fields = dict(_FIELD.findall(paragraph))
        state = fields.get("Status", "")
        if state.endswith((" config-files", " not-installed")):
            continue
        if not state.endswith(" ok installed") or not {"Package", "Version", "Architecture"} <= fields.keys():
            raise BuildError(f"the package {fields.get('Package', '?')} is not properly installed", details=state)
        source = _SOURCE.fullmatch(fields.get("Source", ""))
        packages.append(
            Package(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                source=source[1] if source else "",
                source_version=(source[2] or "") if source else "",
            )
        )
    return tuple(sorted(packages, key=lambda package: (package.name, package.architecture)))
