# SPDX-License-Identifier: Apache-2.0
"""The evidence of builds: kept with the versions of the catalogue, found again, signed and verified."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors, write_bytes
from coppice.catalogue.catalogue import Catalogue
from coppice.descriptor.model import EvidenceFile
from coppice.errors import ChecksumMismatchError, NotFoundError, StorageError, UnreadableFileError
from coppice.factory.evidence.inventory import read_inventory
from coppice.factory.evidence.keeping import EVIDENCE_FILES, evidence_in
from coppice.factory.evidence.lineage import Layer
from coppice.factory.record import read_record
from coppice.model.checksum import Checksum
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.catalogue.model import ApplianceVersion
    from coppice.database import Database
    from coppice.descriptor.model import Descriptor
    from coppice.factory.evidence.inventory import InventoryFile
    from coppice.factory.model import Ancestor, Package
    from coppice.settings.model import Settings

FOLDER = "evidence"
MAX_EVIDENCE_BYTES = 256 * 1024 * 1024
_KEPT_NAME = re.compile(r"[0-9a-f]{128}")


def describe_evidence(directory: Path) -> tuple[EvidenceFile, ...]:
    """Return the files in a build's directory that tell of it, as its descriptor names them."""
    return tuple(
        EvidenceFile(kind=kind, path=path.name, checksum=checksum) for kind, path, checksum in evidence_in(directory)
    )


def keep_evidence(descriptor: Descriptor, directory: Path, settings: Settings) -> Path | None:
    """Have the catalogue hold the evidence that a descriptor names; return where, or None where it names none.

    A later build may take the place of the one that a version was made of; what is known of the version stays.

    Raises:
        UnreadableFileError: A file cannot be read, or is too long.
        ChecksumMismatchError: It is not the one that is described.
        StorageError: The catalogue's directory cannot be written.
    """
    known = [each for each in descriptor.evidence if each.kind in EVIDENCE_FILES]
    if not known:
        return None
    into = evidence_directory(settings, descriptor.disks[0].image.checksum)
    for each in known:
        content = _read(directory / each.path)
        if not Checksum.of(content, each.checksum.algorithm).matches(each.checksum):
            raise ChecksumMismatchError(
                f"{directory / each.path} is not the file that is described",
                resolution="Describe it anew, or restore the one that was described.",
                context={"path": str(directory / each.path)},
            )
        write_bytes(into / EVIDENCE_FILES[each.kind], content)
    return into


def with_kept_evidence(descriptor: Descriptor, kept: Path | None) -> Descriptor:
    """Return ``descriptor`` with its evidence where `keep_evidence` put it: a later build replaces the factory's."""
    if kept is None:
        return descriptor
    files = (each for each in descriptor.evidence if each.kind in EVIDENCE_FILES)
    return replace(
        descriptor, evidence=tuple(replace(each, path=str(kept / EVIDENCE_FILES[each.kind])) for each in files)
    )


def evidence_directory(settings: Settings, image: Checksum) -> Path:
    """Return where the evidence of the image with that digest is kept."""
    return settings.state_directory / "catalogue" / FOLDER / image.hexdigest


def forget_evidence(settings: Settings, image_file: Path) -> None:
    """Remove the evidence of an image file of the catalogue that is removed.

    Raises:
        StorageError: It cannot be removed.
    """
    stem = image_file.name.partition(".")[0]
    directory = settings.state_directory / "catalogue" / FOLDER / stem
    if not _KEPT_NAME.fullmatch(stem) or not directory.is_dir():
        return
    with storage_errors("removing", directory):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def evidence_of(version: ApplianceVersion) -> Path:
    """Return where the evidence of a version is kept.

    Raises:
        NotFoundError: There is none.
    """
    if version.evidence is None or not version.evidence.is_dir():
        raise NotFoundError(
            f"nothing is known of how {version.appliance.name} {version.version} was built",
            resolution="Evidence is kept of what `coppice build` made and `coppice appliance add` brought in. Build it "
            "anew with --fresh, and add that.",
        )
    return version.evidence


def find_version(database: Database, name: str, version: str | None) -> ApplianceVersion:
    """Return a version of an appliance; the newest where none is named.

    Raises:
        NotFoundError: There is no such appliance or version.
    """
    versions = Catalogue(database).versions(name)
    found = next((each for each in reversed(versions) if version in {None, each.version}), None)
    if found is None:
        raise NotFoundError(
            f"there is no version {version} of {name}",
            details=f"there are: {', '.join(each.version for each in versions)}",
        )
    return found


def version_before(database: Database, version: ApplianceVersion) -> ApplianceVersion:
    """Return the version of the same appliance that came before ``version``.

    Raises:
        NotFoundError: It is the first.
    """
    versions = Catalogue(database).versions(version.appliance.name)
    older = [each for each in versions if Version(each.version) < Version(version.version)]
    if not older:
        raise NotFoundError(f"{version.appliance.name} {version.version} is its first version: there is none before")
    return older[-1]


def bill_in(version: ApplianceVersion, form: str) -> bytes:
    """Return the bill of materials of a version.

    Args:
        version: Which.
        form: ``cyclonedx`` or ``spdx``.

    Raises:
        NotFoundError: There is none.
        StorageError: It cannot be read.
    """
    path = evidence_of(version) / EVIDENCE_FILES[f"sbom-{form}"]
    try:
        with storage_errors("reading", path):
            return path.read_bytes()
    except StorageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            raise NotFoundError(
                f"there is no bill of materials of {version.appliance.name} {version.version}",
                resolution="It was built before there were any: build it anew with --fresh, and add that.",
            ) from problem
        raise


def file_in(lineage: Lineage, path: str) -> InventoryFile:
    """Return the file at ``path`` in the image whose lineage it is.

    Raises:
        NotFoundError: There is no such file.
    """
    layer = lineage.layers[0]
    found = layer.inventory.find(path)
    if found is None:
        raise NotFoundError(
            f"there is no {path[:200]} in {layer.result.definition.name}",
            resolution="Name a file, directory or link by its absolute path in the image.",
        )
    return found


def packages_of(version: ApplianceVersion) -> tuple[Package, ...]:
    """Return the packages that are installed in a version.

    Raises:
        NotFoundError: Nothing is known of its build.
        StorageError: Its record cannot be read.
    """
    return read_record(evidence_of(version)).packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The builds that a version is made of, as far as they are known.

    Attributes:
        layers: The version's own build first, the base last.
        missing: The first ancestor of which nothing is kept any more; None: the lineage is whole.
    """

    layers: tuple[Layer, ...]
    missing: Ancestor | None = None


def lineage_of(version: ApplianceVersion, *, settings: Settings) -> Lineage:
    """Return the builds that ``version`` is made of: from the catalogue, or from the factory while they are there.

    Raises:
        NotFoundError: Nothing is known of its own build.
        StorageError: What is kept cannot be read.
    """
    own = evidence_of(version)
    layers = [Layer(result=read_record(own), inventory=read_inventory(own))]
    for ancestor in layers[0].result.provenance.lineage:
        found = next(_layers_of(ancestor, settings), None)
        if found is None:
            return Lineage(layers=tuple(layers), missing=ancestor)
        layers.append(found)
    return Lineage(layers=tuple(layers))


def _layers_of(ancestor: Ancestor, settings: Settings) -> Iterator[Layer]:
    image = Checksum.parse(ancestor.image_digest)
    builds = settings.state_directory / "factory" / "builds"
    for directory in (evidence_directory(settings, image), builds / ancestor.key):
        try:
            result, inventory = read_record(directory), read_inventory(directory)
        except NotFoundError:
            continue
        # A build that was made anew has the key of the one that it replaced, and other bytes.
        if result.images[0].image.checksum.matches(image):
            yield Layer(result=result, inventory=inventory)


def _read(path: Path) -> bytes:
    try:
        with storage_errors("reading", path), path.open("rb") as stream:
            content = stream.read(MAX_EVIDENCE_BYTES + 1)
    except StorageError as problem:
        raise UnreadableFileError(
            f"the file {path} cannot be read: {problem.message}",
            resolution="Put it where the descriptor says, relative to the descriptor.",
            context={"path": str(path)},
        ) from problem
    if len(content) > MAX_EVIDENCE_BYTES:
        raise UnreadableFileError(
            f"the file {path} is longer than {MAX_EVIDENCE_BYTES} bytes", context={"path": str(path)}
        )
    return content
