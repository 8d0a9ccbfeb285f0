# SPDX-License-Identifier: Apache-2.0
"""`Converter`: brings a cached image into a format that a cloud takes, once however many clouds want it.

Who makes something holds first the lock on the source, then the one on the result; who looks only for what is there
holds the latter alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.model import Held
from coppice.conversion.bound import remove_halves
from coppice.conversion.choose import cheapest_to_read, choose, is_costly_to_open, is_taken_as_it_is
from coppice.conversion.declared import DeclaredFormat, difference
from coppice.conversion.files import hash_file, is_merely_linked, locked, state_of
from coppice.conversion.keep import Made, lock_of, place_of
from coppice.conversion.model import ConvertedImage, Formats, GuestBytes, Inspection, Source
from coppice.conversion.options import GUEST_FORMATS, Options, identity, joined, result_algorithm
from coppice.conversion.packed import is_packed
from coppice.conversion.qemu import qemu_version
from coppice.conversion.results import Results
from coppice.conversion.transform import of_own_making, transform
from coppice.conversion.unpack import opened_disk
from coppice.conversion.verified import TRIES, altered, require_unchanged, settled_state, verified_state
from coppice.errors import ImageRefusedError, NoSpaceError
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.conversion.keep import Leases
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.unpack import OpenedDisk
    from coppice.model.requirements import Requirements
    from coppice.monitor import Monitor

    Choice = Callable[[Inspection], DiskFormat | None]
    """Which format is wanted of an image; None: the file itself serves."""

UNPACKED = "unpacked"
"""The converter of what was taken out of its compression or its archive, and not converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is wanted of a source."""

    source: Source
    pick: Choice
    options: Options
    is_seed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One conversion."""

    source: Source
    found: Inspection
    wanted: DiskFormat
    options: Options
    version: str
    path: Path
    is_seed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Had:
    """What came of a request; without ``made``, the source itself serves."""

    found: Inspection
    path: Path
    made: Made | None = None
    reused: bool = True


class Converter:
    """Converts, and keeps what it made for the next time.

    Args:
        directory: Where results are; made when first needed.
        limits: Bounds on images and on the tool.
        leases: What is used of the results; whoever closes them gives them back.
        options: How images are written.
        quota_bytes: Most that results may take; None: no bound.
        declared_format: What follows when an image is not what its list says.
    """

    def __init__(
        self,
        directory: Path,
        limits: ConversionLimits,
        *,
        leases: Leases,
        options: Options | None = None,
        quota_bytes: int | None = None,
        declared_format: DeclaredFormat = DeclaredFormat.REPORT,
    ) -> None:
        self.directory = directory
        self._limits = limits
        self._options = options or Options()
        self._declared = declared_format
        self._results = Results(directory, leases, quota_bytes)
        self._version: str | None = None
        self._manifests: dict[Path, tuple[int, ...]] = {}
        self._refused: dict[tuple[str, tuple[int, ...]], ImageRefusedError] = {}

    def convert(
        self,
        cached: CachedImage,
        accepted: Formats,
        monitor: Monitor = SILENT,
        *,
        name: str | None = None,
        requirements: Requirements | None = None,
    ) -> ConvertedImage:
        """Return the image in a format of ``accepted``; the published file itself where its format is one.

        Args:
            cached: The image.
            accepted: What a cloud takes.
            monitor: Where progress is told.
            name: Of the appliance, where its file says it (OVA).
            requirements: Of the appliance, as its list has them, where its file says them (OVA).

        Raises:
            ChecksumMismatchError: The cached bytes were altered since they were verified.
            ImageRefusedError: The image is dangerous, or not one; no tool opened it.
            ConversionError: No accepted format can be made, or the tool failed.
            CageError: The tool cannot be shut in as the settings demand.
            ToolMissingError: qemu-img is not installed.
            NoSpaceError: The result does not fit on the disk.
            StorageError: The directory cannot be used.
        """
        source = Source.of(cached)
        state = verified_state(source, monitor)
        differs: str | None = None

        def pick(found: Inspection) -> DiskFormat | None:
            nonlocal differs
            if source.held is Held.PUBLISHED:
                differs = difference(cached.declared_format, found, self._declared, source.name)
            wanted = choose(found, accepted)
            return None if found.is_usable_as_it_is and wanted is found.format else wanted

        options = replace(self._options, name=name or self._options.name, requirements=requirements)
        had = self._have(_Request(source=source, pick=pick, options=options), state, monitor)
        if had.made is None:
            self._verify_manifest(source, had.found, monitor)
            require_unchanged(source, settled_state(source, state, monitor))
        packaging = had.found.packaging
        return ConvertedImage(
            key=cached.key,
            version=cached.version,
            path=had.path,
            image=_image_of(source, had.found) if had.made is None else had.made.image,
            source_checksum=cached.listed_checksum,
            converter="none" if had.made is None else had.made.converter,
            reused=had.reused,
            hardware=None if packaging is None else packaging.hardware,
            differs=differs,
        )

    def guest_bytes(self, source: Source, monitor: Monitor = SILENT) -> GuestBytes:
        """Return the disk of a held file as a guest sees it: the file itself where it is raw, else a raw one.

        It is made once; a raw file that a cloud had is taken as well. What was made before is not read again: whoever
        uses it must verify what comes of it. `coppice.conversion.bound.prune_guest_bytes` bounds how many stay.

        Raises:
            ChecksumMismatchError: The file was altered since it was verified.
            ImageRefusedError: The image is dangerous, or not one; no tool opened it.
            ConversionError: The tool failed.
            CageError: The tool cannot be shut in as the settings demand.
            ToolMissingError: qemu-img is not installed.
            NoSpaceError: The result does not fit on the disk.
            StorageError: The directory cannot be used.
        """

        def pick(found: Inspection) -> DiskFormat | None:
            if found.packaging is None and found.format in GUEST_FORMATS:
                return None
            return found.disk.format if found.disk.format in GUEST_FORMATS else DiskFormat.RAW

        had = self._have(_Request(source=source, pick=pick, options=self._options, is_seed=True), None, monitor)
        if had.made is None:
            return GuestBytes(path=source.path, checksum=source.checksum, size_bytes=had.found.size_bytes)
        image = had.made.image
        return GuestBytes(path=had.path, checksum=image.checksum, size_bytes=image.size_bytes)

    def _have(self, request: _Request, state: tuple[int, ...] | None, monitor: Monitor) -> _Had:
        """Return what is kept or made, whichever comes first.

        Args:
            request: What is wanted.
            state: In which the source's bytes were verified; None: they are verified when they are needed.
            monitor: Where progress is told.
        """
        found = self._facts(request.source)
        if found is not None:
            had = self._kept(request, found, monitor)
            if had is not None:
                return had
        state = state or verified_state(request.source, monitor)
        try:
            return self._make(request, state, monitor)
        except NoSpaceError as problem:
            if not self._results.make_room(_missing_bytes(problem)):
                raise
        return self._make(request, state, monitor)

    def _facts(self, source: Source) -> Inspection | None:
        """Return what a source is; None: it has to be unpacked to know that, and was not before."""
        packed = is_packed(source.path)
        if packed and source.held is Held.GUEST:
            raise _guests_choice(source, "a packed file")
        if packed:
            known = (each.made.found for each in self._results.of_source(source.checksum))
            # What is taken may be less than when the record was written.
            most = self._limits.maximum_virtual_size_bytes
            return next((each for each in known if each.virtual_size_bytes <= most), None)
        with self._opened(source, SILENT) as disk:
            return disk.inspection

    def _kept(self, request: _Request, found: Inspection, monitor: Monitor) -> _Had | None:
        wanted = request.pick(found)
        if wanted is None:
            return _Had(found=found, path=request.source.path)
        work = self._work(request, found, wanted)
        with locked(lock_of(work.path)):
            made = self._results.find(work.path, monitor, is_seed=request.is_seed)
        return None if made is None else _Had(found=found, path=work.path, made=made)

    def _make(self, request: _Request, state: tuple[int, ...], monitor: Monitor) -> _Had:
        source = request.source
        with ExitStack() as stack:
            stack.enter_context(locked(self.directory / "locks" / f"source-{source.checksum.hexdigest}"))
            # Another may have made it, or unpacked it for something else, while the lock was waited for.
            found, disk = self._facts(source), None
            if found is None:
                disk = stack.enter_context(self._opened(source, monitor))
                found = disk.inspection
            wanted = request.pick(found)
            if wanted is None:
                return _Had(found=found, path=source.path)
            work = self._work(request, found, wanted)
            stack.enter_context(locked(lock_of(work.path)))
            made = self._results.find(work.path, monitor, is_seed=request.is_seed)
            if made is not None:
                return _Had(found=found, path=work.path, made=made)
            made = self._write(work, state, disk, monitor)
        self._results.keep_within()
        return _Had(found=found, path=work.path, made=made, reused=False)

    def _write(self, work: _Work, state: tuple[int, ...], disk: OpenedDisk | None, monitor: Monitor) -> Made:
        path, source = work.path, work.source
        # The lock is held, so whoever was at it before is dead.
        remove_halves(path)
        with atomic.replacing(path, mode=0o444) as temporary:
            for _ in range(TRIES):
                with self._readable(work, disk, monitor) as readable:
                    written = transform(
                        readable, work.wanted, temporary, options=work.options, limits=self._limits, monitor=monitor
                    )
                if not is_merely_linked(state, state_of(source.path)):
                    break
                # Another run handed the file out meanwhile; or somebody changed it and put it back. It is read anew.
                state, disk = verified_state(source, monitor), None
            else:
                raise altered(source, "It changed each time that it was read.")
            require_unchanged(source, state)
            with monitor.task("reading what was converted", total=written.size_bytes, unit=Unit.BYTES) as task:
                checksum, _ = hash_file(temporary, result_algorithm(work.wanted), task.advance)
        image = Image(
            format=work.wanted,
            size_bytes=written.size_bytes,
            virtual_size_bytes=written.virtual_size_bytes,
            checksum=checksum,
        )
        made = Made(image=image, source=source.checksum, converter=work.version, is_seed=work.is_seed, found=work.found)
        self._results.record(path, made)
        return made

    @contextmanager
    def _readable(self, work: _Work, disk: OpenedDisk | None, monitor: Monitor) -> Iterator[OpenedDisk]:
        """Yield the disk as it is open already, else out of what was made before where that is cheaper, else anew."""
        if disk is not None:
            yield disk
            return
        # A raw disk is the same bytes whatever it comes from; of other formats there are many files for one disk.
        is_any = work.wanted is DiskFormat.RAW or not is_taken_as_it_is(work.found, work.wanted)
        kept = self._cheaper(work, monitor) if is_any and is_costly_to_open(work.found) else None
        if kept is None:
            with self._opened(work.source, monitor) as opened:
                yield opened
            return
        limits = of_own_making(self._limits)
        with opened_disk(kept, limits, spool=self.directory / "spool", monitor=monitor, name=kept.name) as opened:
            yield opened

    def _cheaper(self, work: _Work, monitor: Monitor) -> Path | None:
        """Return a kept file that has the same disk and is cheaper to read than the source; it is used from now on."""
        size = work.found.virtual_size_bytes
        there = {
            each.made.image.format: each.path
            for each in self._results.of_source(work.source.checksum)
            if each.made.image.virtual_size_bytes == size and each.path != work.path
        }
        while (best := cheapest_to_read(there)) is not None:
            path = there.pop(best)
            with locked(lock_of(path)):
                if self._results.find(path, monitor, is_start=True) is not None:
                    return path
        return None

    def _work(self, request: _Request, found: Inspection, wanted: DiskFormat) -> _Work:
        source, told = request.source, None if found.packaging is None else found.packaging.hardware
        options = replace(request.options, requirements=joined(told, request.options.requirements))
        version = UNPACKED if is_taken_as_it_is(found, wanted) else self._tool_version()
        path = place_of(self.directory, source.checksum, (*identity(wanted, options), version), wanted)
        return _Work(
            source=source,
            found=found,
            wanted=wanted,
            options=options,
            version=version,
            path=path,
            is_seed=request.is_seed,
        )

    @contextmanager
    def _opened(self, source: Source, monitor: Monitor) -> Iterator[OpenedDisk]:
        # To refuse what is packed takes unpacking it, which other clouds need not wait for.
        tried = (source.name, state_of(source.path))
        if tried in self._refused:
            raise copy(self._refused[tried])
        spool = self.directory / "spool"
        with ExitStack() as stack:
            try:
                opening = opened_disk(source.path, self._limits, spool=spool, monitor=monitor, name=source.name)
                disk = stack.enter_context(opening)
            except ImageRefusedError as problem:
                self._refused[tried] = problem
                raise
            if source.held is Held.GUEST and disk.inspection.format not in GUEST_FORMATS:
                raise _guests_choice(source, disk.inspection.format)
            yield disk

    def _verify_manifest(self, source: Source, found: Inspection, monitor: Monitor) -> None:
        """Hold an archive that is handed on whole against its manifest; what is converted was, while it was."""
        state = state_of(source.path)
        if found.packaging is None or self._manifests.get(source.path) == state:
            return
        with (
            self._opened(source, monitor) as disk,
            monitor.task("verifying the manifest", total=source.size_bytes, unit=Unit.BYTES) as task,
        ):
            disk.verify_manifest(task)
        self._manifests[source.path] = state

    def _tool_version(self) -> str:
        if self._version is None:
            self._version = qemu_version()
        return self._version


def _image_of(source: Source, found: Inspection) -> Image:
    return Image(
        format=found.format,
        size_bytes=found.size_bytes,
        virtual_size_bytes=found.virtual_size_bytes,
        checksum=source.checksum,
    )


def _missing_bytes(problem: NoSpaceError) -> int:
    needed, free = problem.context.get("needed_bytes"), problem.context.get("free_bytes")
    return needed - free if isinstance(needed, int) and isinstance(free, int) else 2**63


def _guests_choice(source: Source, what: str) -> ImageRefusedError:
    # What a guest wrote at the beginning of its disk must not decide how the disk is read.
    return ImageRefusedError(
        f"the disk of image {source.name} begins like {what}: each tool would read another disk",
        resolution="No tool opened it. Tell whoever publishes it.",
        context={"path": str(source.path)},
    )
