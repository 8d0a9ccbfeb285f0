# SPDX-License-Identifier: Apache-2.0
"""The files that tell of a build: what they are called, how they are written beside it, and how they are told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.factory.evidence.bill import bill_of
from coppice.factory.evidence.inventory import FILE_NAME as INVENTORY_NAME
from coppice.factory.evidence.inventory import write_inventory
from coppice.factory.record import FILE_NAME as RECORD_NAME
from coppice.formats.cyclonedx import write_cyclonedx
from coppice.formats.intoto import write_statement
from coppice.formats.spdx import write_spdx
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.evidence.inventory import Inventory
    from coppice.factory.model import BuildResult

CYCLONEDX_NAME = "sbom.cdx.json"
SPDX_NAME = "sbom.spdx.json"
PROVENANCE_NAME = "provenance.json"
EVIDENCE_FILES = {
    "build-record": RECORD_NAME,
    "files": INVENTORY_NAME,
    "sbom-cyclonedx": CYCLONEDX_NAME,
    "sbom-spdx": SPDX_NAME,
    "provenance": PROVENANCE_NAME,
}
"""Kind → name of the file."""


def write_evidence(into: Path, result: BuildResult, inventory: Inventory) -> None:
    """Write what is known of a build into ``into``, beside its record.

    Raises:
        DocumentError: A package cannot be told of in a bill of materials.
        StorageError: A file cannot be written.
    """
    write_inventory(into / INVENTORY_NAME, inventory)
    bill = bill_of(result, inventory)
    by_products = []
    for name, payload in ((CYCLONEDX_NAME, write_cyclonedx(bill)), (SPDX_NAME, write_spdx(bill))):
        _write(into / name, payload)
        by_products.append((name, Checksum.of(payload, "sha256")))
    _write(into / PROVENANCE_NAME, write_statement(result, by_products))


def evidence_in(directory: Path) -> tuple[tuple[str, Path, Checksum], ...]:
    """Return kind, path and digest of each file in ``directory`` that tells of a build; builds of old have none.

    Raises:
        StorageError: A file cannot be read.
    """
    found = []
    for kind, name in EVIDENCE_FILES.items():
        path = directory / name
        with storage_errors("reading", path):
            if path.is_file():
                found.append((kind, path, Checksum.of(path.read_bytes(), "sha256")))
    return tuple(found)


def _write(path: Path, payload: bytes) -> None:
    with storage_errors("writing", path):
        path.write_bytes(payload)
