# SPDX-License-Identifier: Apache-2.0
"""A bill of materials in the form CycloneDX 1.6, as JSON: the same bill always makes the same bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.formats.bill import package_url, source_of

if TYPE_CHECKING:
    from coppice.factory.model import BuiltImage, Package
    from coppice.formats.bill import Bill, BillFile
    from coppice.model.operating_system import OperatingSystem

_ALGORITHMS = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_IMAGE = "image"


def write_cyclonedx(bill: Bill) -> bytes:
    """Return ``bill`` as a CycloneDX 1.6 document.

    Raises:
        DocumentError: A package has no package URL.
    """
    system = bill.operating_system
    packages = [_package(package, system) for package in bill.packages]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{bill.identifier}",
        "version": 1,
        "metadata": {
            "timestamp": to_rfc3339(bill.created),
            "tools": {"components": [{"type": "application", "name": bill.tool[0], "version": bill.tool[1]}]},
            "component": {
                "type": "operating-system",
                "bom-ref": _IMAGE,
                "name": bill.name,
                "description": bill.title,
                "components": [_image(built) for built in bill.images],
                "properties": [{"name": "coppice:build", "value": bill.build}],
            },
        },
        "components": [
            {
                "type": "operating-system",
                "bom-ref": "system",
                "name": system.distribution,
                "version": system.version,
                "properties": [{"name": "coppice:architecture", "value": system.architecture}],
            },
            *packages,
            *(_file(file) for file in bill.files),
        ],
        "dependencies": [{"ref": _IMAGE, "dependsOn": ["system", *(str(each["bom-ref"]) for each in packages)]}],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _image(built: BuiltImage) -> dict[str, object]:
    checksum = built.image.checksum
    return {
        "type": "file",
        "bom-ref": f"file:{built.path.name}",
        "name": built.path.name,
        "hashes": [{"alg": _ALGORITHMS[checksum.algorithm], "content": checksum.hexdigest}],
    }


def _package(package: Package, system: OperatingSystem) -> dict[str, object]:
    url = package_url(package, system)
    said: dict[str, object] = {
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
    }
    if package.licence:
        said["licenses"] = [{"license": {"name": package.licence}}]
    said["properties"] = [
        {"name": "coppice:architecture", "value": package.architecture},
        {"name": "coppice:source", "value": source_of(package)},
    ]
    return said


def _file(file: BillFile) -> dict[str, object]:
    return {
        "type": "file",
        "bom-ref": f"guest:{file.path}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
    }
