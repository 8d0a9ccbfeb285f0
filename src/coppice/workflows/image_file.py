# SPDX-License-Identifier: Apache-2.0
"""Image files that a person names: what one is, and another one made of it."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.choose import is_taken_as_it_is
from coppice.conversion.options import Options, Qcow2Compression, joined
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.errors import (
    ExistsError,
    ImageRefusedError,
    InputError,
    StorageError,
    UnreadableFileError,
)
from coppice.model.image import DiskFormat
from coppice.monitor import Unit
from coppice.workflows.image_limits import limits_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.conversion.guest.model import GuestFacts
    from coppice.conversion.model import Inspection
    from coppice.conversion.unpack import OpenedDisk
    from coppice.model.requirements import Requirements
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

ENDINGS = {each: f".{each}" for each in DiskFormat}
"""What a file of a format is called at its end."""
_PACKED_ENDINGS = frozenset({".gz", ".tgz", ".bz2", ".xz", ".txz", ".zst", ".zip"})
_DISK_ENDINGS = frozenset({*ENDINGS.values(), ".img", ".vpc", ".tar"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What an image file is.

    Attributes:
        path: The file, as it was named.
        inspection: What it is, by its content.
        has_manifest: Whether it is an archive with a manifest, which its files agree with.
        signer: Whose signature the manifest bears; None: nobody's.
        guest: What is in its disk; None: nobody looked, or it could not be looked at.
        problem: Why there was no place to look at it.
    """

    path: Path
    inspection: Inspection
    has_manifest: bool = False
    signer: str | None = None
    guest: GuestFacts | None = None
    problem: StorageError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFile:
    """A file that was made of another.

    Attributes:
        source: What the other one is.
        path: The new file.
        inspection: What it is.
        is_converted: Whether the disk was written anew; else its bytes were taken as they were.
    """

    source: Inspection
    path: Path
    inspection: Inspection
    is_converted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be made of an image file.

    Attributes:
        format: The format.
        destination: The new file.
        overwrite: Whether what has its name is replaced.
        compression: Of qcow2; None: what the settings say, and a disk that is qcow2 already is taken as it is.
        name: Of an OVA; None: the new file's.
        requirements: Of an OVA: what its descriptor has to say; None where it is as the source's own says.
    """

    format: DiskFormat
    destination: Path
    overwrite: bool = False
    compression: Qcow2Compression | None = None
    name: str | None = None
    requirements: Requirements | None = None


def default_destination(source: Path, wanted: DiskFormat) -> Path:
    """Return what a new file is called: as the source without the endings of its packing and format, beside it.

    Raises:
        InputError: The source is the root of all folders.
    """
    path = source.absolute()
    if not path.name:
        raise InputError(f"{source} is a folder", resolution="Name an image file.")
    for endings in (_PACKED_ENDINGS, _DISK_ENDINGS):
        if path.suffix.lower() in endings:
            path = path.with_suffix("")
    return path.with_name(path.name + ENDINGS[wanted])


def report_on(path: Path, settings: Settings, monitor: Monitor, *, with_guest: bool) -> FileReport:
    """Return what an image file is, and, if wanted, what is in its disk.

    Args:
        path: The file; a symbolic link is followed, as a person named it.
        settings: Bounds, and where what is packed is unpacked.
        monitor: Where progress is told.
        with_guest: Whether the disk is looked into. What of it nobody knows, the report says.

    Raises:
        ImageRefusedError: It is refused, and no tool opened it; or it changed meanwhile.
        UnreadableFileError: It cannot be read.
        StorageError: What is packed cannot be unpacked.
    """
    limits = limits_of(settings.conversion)
    spool = settings.state_directory / "conversion" / "spool"
    with opened_disk(_real(path), limits, spool=spool, monitor=monitor, name=path.name) as disk:
        _verify_manifest(disk, monitor)
        report = _report(path, disk)
        disk.require_unchanged()
        if not with_guest:
            return report
        from coppice.conversion.guest.facts import guest_facts

        bounds = settings.conversion
        try:
            guest = guest_facts(disk, limits, workplace=spool, monitor=monitor, require_cage=bounds.require_cage)
            disk.require_unchanged()
        except StorageError as problem:
            return replace(report, problem=problem)
        return replace(report, guest=guest)


def _report(path: Path, disk: OpenedDisk) -> FileReport:
    layout = disk.layout
    return FileReport(
        path=path,
        inspection=disk.inspection,
        has_manifest=layout is not None and bool(layout.manifest),
        signer=None if layout is None else layout.signer,
    )


def convert_file(path: Path, wish: Wish, settings: Settings, monitor: Monitor) -> MadeFile:
    """Make a file of a format out of an image file.

    Args:
        path: The image file; a symbolic link is followed.
        wish: What is wanted.
        settings: Bounds and defaults.
        monitor: Where progress is told.

    Raises:
        ExistsError: The new file is there already, and is not to be replaced.
        InputError: The new file would be the old one, or has no place.
        ImageRefusedError: The image file is refused, and no tool opened it; or it changed meanwhile.
        UnreadableFileError: It cannot be read.
        ConversionError: It cannot be converted.
        MachineError: The tools or the cage for them are missing.
        StorageError: The result cannot be written.
    """
    limits = limits_of(settings.conversion)
    source, destination = _real(path), wish.destination
    _check_destination(source, wish)
    # What is unpacked and what is written lie beside the new file: the former may become the latter.
    with opened_disk(source, limits, spool=destination.parent, monitor=monitor, name=path.name) as opened:
        found = opened.inspection
        disk = _to_be_written_anew(opened) if wish.compression is not None else opened
        options = _options(wish, found, settings)
        atomic.sweep_partials(destination.parent, older_than_seconds=atomic.ABANDONED_SECONDS, of=destination.name)
        with _placing(wish) as temporary:
            made = transform(disk, wish.format, temporary, options=options, limits=limits, monitor=monitor)
            disk.require_unchanged()
    is_converted = not is_taken_as_it_is(disk.inspection, wish.format)
    return MadeFile(source=found, path=destination, inspection=made, is_converted=is_converted)


def _to_be_written_anew(disk: OpenedDisk) -> OpenedDisk:
    """Return a disk that is not taken as it is: who names a compression wants that one, also of what is qcow2."""
    found = disk.inspection
    return replace(disk, inspection=replace(found, disk=replace(found.disk, must_be_rewritten=True)))


def _verify_manifest(disk: OpenedDisk, monitor: Monitor) -> None:
    """Hold an archive against its manifest, before any tool looks into its disk."""
    if disk.layout is not None and disk.layout.manifest:
        total = disk.layout.bytes_to_verify
        with monitor.task("verifying the manifest", total=total, unit=Unit.BYTES) as task:
            disk.verify_manifest(task)


def _options(wish: Wish, found: Inspection, settings: Settings) -> Options:
    return Options(
        qcow2_compression=wish.compression or Qcow2Compression(settings.conversion.qcow2_compression),
        name=wish.name or wish.destination.name.removesuffix(ENDINGS[DiskFormat.OVA]),
        requirements=joined(_told_by(found), wish.requirements),
        require_cage=settings.conversion.require_cage,
    )


def _told_by(found: Inspection) -> Requirements | None:
    return None if found.packaging is None else found.packaging.hardware


def _real(path: Path) -> Path:
    """Return the file that a path leads to, which can be read."""
    try:
        real = path.resolve(strict=True)
        # A pipe would be waited for.
        os.close(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if not real.is_file():
            # A folder may have no name of its own: ".", "/".
            kind = "a folder" if real.is_dir() else "not a regular file"
            raise ImageRefusedError(f"{path} is {kind}; an image is a file", resolution="Name the image file itself.")
    except (OSError, RuntimeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "its links go round in a circle"
        raise UnreadableFileError(
            f"cannot read {path}: {why}",
            resolution="Check the path, and that this user may read the file.",
            context={"path": str(path)},
        ) from problem
    return real


def _check_destination(source: Path, wish: Wish) -> None:
    destination = wish.destination
    with atomic.storage_errors("looking at", destination):
        if not destination.parent.is_dir():
            raise InputError(f"there is no folder {destination.parent} for {destination.name}")
        if destination.is_dir():
            raise InputError(f"{destination} is a folder", resolution="Name the new file itself.")
        if atomic.is_special(destination):
            raise InputError(
                f"{destination} is a device, a pipe or a socket, and no image is written there",
                resolution="Name a new file with --output.",
            )
        if destination.exists() and destination.samefile(source):
            raise InputError(
                f"{destination} is the very file that is converted", resolution="Name another one with --output."
            )
        if not wish.overwrite and os.path.lexists(destination):
            raise _exists(destination)
        # Said now, and not after hours of unpacking.
        if not os.access(destination.parent, os.W_OK | os.X_OK):
            raise StorageError(
                f"this user may not write in the folder {destination.parent}",
                resolution="Name a file in another folder with --output.",
                context={"path": str(destination.parent)},
            )


def _exists(destination: Path) -> ExistsError:
    return ExistsError(
        f"there is a file {destination} already",
        resolution="Name another one with --output, or have it replaced with --overwrite.",
        context={"path": str(destination)},
    )


@contextmanager
def _placing(wish: Wish) -> Iterator[Path]:
    """Yield a temporary path; what is written there gets its name in one step, durably, when the block ends well."""
    destination = wish.destination
    if wish.overwrite:
        with atomic.replacing(destination, mode=_new_file_mode()) as temporary:
            yield temporary
        return
    temporary = atomic.partial_path(destination)
    try:
        yield temporary
        with atomic.storage_errors("writing", destination):
            atomic.settle_file(temporary, _new_file_mode())
            _link(temporary, destination)
            atomic.fsync_directory(destination.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _link(temporary: Path, destination: Path) -> None:
    """Give a file its name, which nobody else's may have."""
    try:
        destination.hardlink_to(temporary)
    except FileExistsError:
        # Somebody made it while this worked.
        raise _exists(destination) from None
    except OSError:
        # A file system without hard links (vfat): the time between looking and renaming is as short as can be.
        if os.path.lexists(destination):
            raise _exists(destination) from None
        temporary.rename(destination)


def _new_file_mode() -> int:
    """Return the permissions of a file that a program of this user makes."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask
