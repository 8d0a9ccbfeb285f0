# SPDX-License-Identifier: Apache-2.0
"""Deltas of the images of a list that is about to be published: catalogue and conversion → `coppice.imagelist`.

They are made before the list is composed, since it names them, and are kept: what did not change is not made again.
An image whose delta cannot be made is published without one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.model import PublicationState
from coppice.conversion.bound import prune_guest_bytes
from coppice.conversion.model import Source
from coppice.errors import CageError, ConversionError, DeltaError, ImageError, NoSpaceError, ToolMissingError
from coppice.formats.delta import read_patch
from coppice.imagelist.delta_make import DeltaMaker
from coppice.imagelist.delta_scan import Guest
from coppice.imagelist.delta_store import DeltaStore
from coppice.imagelist.model import DeltaPatch, ImageDelta, RemoteFile
from coppice.model.checksum import Checksum
from coppice.model.version import Version
from coppice.workflows.obtain import conversion_directory, conversion_leases, open_converter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from coppice.catalogue.history import PublicationHistory
    from coppice.catalogue.model import ApplianceVersion, Selection
    from coppice.database import Database
    from coppice.imagelist.delta_store import DeltaFile, DeltaRecord
    from coppice.imagelist.model import ImageList
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDelta:
    """The delta of one image.

    Attributes:
        record: Index and packs.
        patches: Each with the checksum of the disk that it starts from.
    """

    record: DeltaRecord
    patches: tuple[tuple[Checksum, DeltaFile], ...]

    @property
    def files(self) -> tuple[DeltaFile, ...]:
        """Return all files of it."""
        record = self.record
        return (record.index, *(pack.file for pack in record.packs), *(file for _, file in self.patches))


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDeltas:
    """The deltas of a list.

    Attributes:
        images: By appliance name.
        files: Every file of them by its name.
        warnings: What was not, or would be, made.
    """

    images: Mapping[str, MadeDelta]
    files: Mapping[str, Path]
    warnings: tuple[str, ...] = ()


NO_DELTAS = MadeDeltas(images={}, files={})


def make_deltas(
    selection: Selection,
    *,
    settings: Settings,
    database: Database,
    history: PublicationHistory,
    monitor: Monitor,
    dry_run: bool = False,
) -> MadeDeltas:
    """Return the deltas of the images that ``selection`` carries as files; make those that are not there.

    Args:
        selection: What is to be published.
        settings: From how many versions there are patches, and where all is kept.
        database: Where earlier versions are known.
        history: Which of them were published.
        monitor: Where progress is told.
        dry_run: Make nothing; say what would be made.

    Raises:
        StorageError: Something cannot be read or written.
        NoSpaceError: The disk is full.
    """
    work = _Work(selection, settings, database, history, monitor)
    made: dict[str, MadeDelta] = {}
    warnings: list[str] = []
    for version in selection.listed_versions:
        if version.path is None:
            continue
        if dry_run:
            found = work.known(version)
            warnings.extend(work.missing(version))
        else:
            try:
                found = work.make(version)
            except NoSpaceError:
                raise
            except (CageError, DeltaError, ConversionError, ImageError, ToolMissingError) as problem:
                found = None
                warnings.append(f"{_named(version)} is published without a delta: {problem.message}")
            # Disks are large: those of one image are not kept for long while the next one's are made.
            work.give_back()
        if found is not None:
            made[version.appliance.name] = found
    files = {file.name: work.store.path(file) for each in made.values() for file in each.files}
    return MadeDeltas(images=made, files=files, warnings=tuple(warnings))


def with_deltas(content: ImageList, selection: Selection, made: MadeDeltas, address: Callable[[str], str]) -> ImageList:
    """Return a list in which each image says how it can be had without its whole file.

    Args:
        content: The list.
        selection: What it was composed of.
        made: The deltas.
        address: Under which URI a file of that name will be fetched.
    """
    by_identifier = {
        version.appliance.identifier: made.images[version.appliance.name]
        for version in selection.listed_versions
        if version.appliance.name in made.images
    }
    return replace(
        content,
        images=tuple(
            replace(image, delta=_listed(by_identifier[image.identifier], address))
            if image.identifier in by_identifier
            else image
            for image in content.images
        ),
    )


def prune_deltas(selection: Selection, *, settings: Settings) -> None:
    """Remove what is kept for images that the list does not carry any more.

    Raises:
        StorageError: It cannot be removed.
    """
    checksums = [version.image.checksum for version in selection.listed_versions if version.path is not None]
    _store(selection, settings).prune(checksums)


class _Work:
    """Makes the deltas of one list."""

    def __init__(
        self,
        selection: Selection,
        settings: Settings,
        database: Database,
        history: PublicationHistory,
        monitor: Monitor,
    ) -> None:
        self.store = _store(selection, settings)
        self._maker = DeltaMaker(self.store, monitor)
        self._monitor = monitor
        self._leases = conversion_leases(settings)
        self._converter = open_converter(settings, self._leases)
        self._conversions = conversion_directory(settings)
        self._catalogue = Catalogue(database)
        self._most_patches = settings.publishing.delta_versions
        out = {PublicationState.PUBLISHED, PublicationState.IMPORTED}
        self._published = {
            image.checksum for entry in history.entries(selection.name) if entry.state in out for image in entry.images
        }

    def make(self, version: ApplianceVersion) -> MadeDelta:
        checksum, name = version.image.checksum, _named(version)
        record = self._maker.image(checksum, lambda: self._guest(version), name)
        patches: list[tuple[Checksum, DeltaFile]] = []
        for earlier in self._earlier(version):
            file = self._maker.patch(
                (earlier.image.checksum, lambda earlier=earlier: self._guest(earlier)),  # type: ignore[misc]
                (checksum, lambda: self._guest(version)),
                most_bytes=version.image.size_bytes,
                name=name,
            )
            if file is not None:
                patches.append((self._origin(file), file))
        return MadeDelta(record=record, patches=tuple(patches))

    def give_back(self) -> None:
        """Use no disk any more that was made for a delta; those that were used last stay for the next time."""
        self._leases.close()
        prune_guest_bytes(self._conversions, self._leases)

    def known(self, version: ApplianceVersion) -> MadeDelta | None:
        """Return what is there of a delta; None where an index or a pack is not."""
        record = self.store.record(version.image.checksum)
        if record is None or not self.store.is_whole(record):
            return None
        found = (self.store.patch(each.image.checksum, version.image.checksum)[0] for each in self._earlier(version))
        return MadeDelta(record=record, patches=tuple((self._origin(file), file) for file in found if file is not None))

    def missing(self, version: ApplianceVersion) -> Iterator[str]:
        """Say what would be made."""
        if self.known(version) is None:
            yield f"a delta of {_named(version)} would be made: its index, and a pack of what no earlier pack has"
        for earlier in self._earlier(version):
            if not self.store.patch(earlier.image.checksum, version.image.checksum)[1]:
                yield f"a patch from {_named(earlier)} to {version.version} would be made"

    def _earlier(self, version: ApplianceVersion) -> list[ApplianceVersion]:
        """Return the versions before, newest first, that subscribers may hold and whose files are still there."""
        found = [
            each
            for each in self._catalogue.versions(version.appliance.name)
            if Version(each.version) < Version(version.version)
            and each.image.checksum.hexdigest in self._published
            and each.image.checksum != version.image.checksum
            and each.path is not None
            and _is_there(each.path, each.image.size_bytes)
        ]
        return sorted(found, key=lambda each: Version(each.version), reverse=True)[: self._most_patches]

    def _guest(self, version: ApplianceVersion) -> Guest:
        assert version.path is not None  # noqa: S101 - only versions with files come here
        found = self._converter.guest_bytes(
            Source(
                path=version.path,
                checksum=version.image.checksum,
                size_bytes=version.image.size_bytes,
                name=_named(version),
            ),
            self._monitor,
        )
        return Guest(path=found.path, size_bytes=found.size_bytes, checksum=found.checksum)

    def _origin(self, file: DeltaFile) -> Checksum:
        path = self.store.path(file)
        with storage_errors("reading", path), path.open("rb") as stream:
            return read_patch(stream, size_bytes=file.facts.size_bytes).origin_checksum


def _store(selection: Selection, settings: Settings) -> DeltaStore:
    return DeltaStore(settings.state_directory / "deltas" / selection.identifier)


def _is_there(path: Path, size_bytes: int) -> bool:
    with storage_errors("looking for", path):
        return path.is_file() and path.stat().st_size == size_bytes


def _named(version: ApplianceVersion) -> str:
    return f"{version.appliance.name} {version.version}"


def _listed(made: MadeDelta, address: Callable[[str], str]) -> ImageDelta:
    def remote(file: DeltaFile) -> RemoteFile:
        return RemoteFile(
            uri=address(file.name), size_bytes=file.facts.size_bytes, checksum=Checksum("sha512", file.facts.sha512)
        )

    return ImageDelta(
        guest_size_bytes=made.record.guest_size_bytes,
        guest_checksum=made.record.guest_checksum,
        index=remote(made.record.index),
        packs=tuple(remote(pack.file) for pack in made.record.packs),
        patches=tuple(DeltaPatch(origin=origin, file=remote(file)) for origin, file in made.patches),
    )
