# SPDX-License-Identifier: Apache-2.0
"""A bill of materials in the form SPDX 2.3, as JSON: the same bill always makes the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC
from typing import TYPE_CHECKING

from coppice.formats.bill import package_url, source_of

if TYPE_CHECKING:
    from coppice.factory.model import BuiltImage, Package
    from coppice.formats.bill import Bill, BillFile
    from coppice.model.operating_system import OperatingSystem

_NOT_OF_AN_IDENTIFIER = re.compile(r"[^a-zA-Z0-9.-]+")
_UNKNOWN = "NOASSERTION"
_LICENCES = {"licenseConcluded": _UNKNOWN, "licenseDeclared": _UNKNOWN, "copyrightText": _UNKNOWN}
_DOCUMENT = "SPDXRef-DOCUMENT"
_SYSTEM = "SPDXRef-appliance"


def write_spdx(bill: Bill) -> bytes:
    """Return ``bill`` as an SPDX 2.3 document.

    Raises:
        DocumentError: A package has no package URL.
    """
    packages = [_package(package, bill.operating_system) for package in bill.packages]
    files = [_file(file) for file in bill.files]
    images = [_image_file(built) for built in bill.images]
    relationships = [_relationship(_DOCUMENT, "DESCRIBES", _SYSTEM)]
    relationships += [_relationship(str(each["SPDXID"]), "PACKAGE_OF", _SYSTEM) for each in images]
    relationships += [_relationship(_SYSTEM, "CONTAINS", str(each["SPDXID"])) for each in packages]
    relationships += [_relationship(str(each["SPDXID"]), "FILE_ADDED", _SYSTEM) for each in files]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": bill.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{bill.name}-{bill.identifier}",
        "creationInfo": {
            "created": bill.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: {'-'.join(bill.tool)}"],
        },
        "packages": [_system(bill), *images, *packages],
        "files": files,
        "relationships": relationships,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _system(bill: Bill) -> dict[str, object]:
    system = bill.operating_system
    return {
        "SPDXID": _SYSTEM,
        "name": bill.name,
        "versionInfo": bill.build[:16],
        "summary": bill.title,
        "comment": f"{system.distribution} {system.version}, {system.architecture}; build {bill.build}",
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        **_LICENCES,
    }


def _package(package: Package, system: OperatingSystem) -> dict[str, object]:
    said: dict[str, object] = {
        "SPDXID": _identifier("package", package.name, f"{package.name}/{package.architecture}/{package.version}"),
        "name": package.name,
        "versionInfo": package.version,
        "sourceInfo": f"built from the source package {source_of(package)}",
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        **_LICENCES,
    }
    if package.licence:
        said["licenseComments"] = f"The package manager says: {package.licence}"
    said["externalRefs"] = [
        {
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package_url(package, system),
        }
    ]
    return said


def _image_file(built: BuiltImage) -> dict[str, object]:
    checksum = built.image.checksum
    # A package, not a file: of files the form demands sha1, for which the image would have to be read once more.
    return {
        "SPDXID": _identifier("image", built.path.name, built.path.name),
        "name": built.path.name,
        "packageFileName": built.path.name,
        "primaryPackagePurpose": "FILE",
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": checksum.algorithm.upper(), "checksumValue": checksum.hexdigest}],
        **_LICENCES,
    }


def _file(file: BillFile) -> dict[str, object]:
    return {
        "SPDXID": _identifier("guest", file.path, file.path),
        "fileName": f".{file.path}",
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": file.sha1},
            {"algorithm": "SHA256", "checksumValue": file.sha256},
        ],
        "licenseConcluded": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _identifier(kind: str, name: str, whole: str) -> str:
    # Readable, and different for what differs only in signs that an identifier cannot have.
    told = _NOT_OF_AN_IDENTIFIER.sub("-", name).strip("-")[:60]
    digest = hashlib.sha256(whole.encode("utf-8", errors="surrogateescape")).hexdigest()[:12]
    return f"SPDXRef-{kind}-{told}-{digest}"


def _relationship(element: str, kind: str, related: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}
