# SPDX-License-Identifier: Apache-2.0
"""`Converter`: brings a cached image into a format that a cloud takes, once however many clouds want it.

Who makes something holds first the lock on the source, then the one on the result; who looks only for what is there
holds the latter alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.cache.model import Held
from coppice.conversion.bound import remove_halves
from coppice.conversion.choose import cheapest_to_read, choose, is_costly_to_open, is_taken_as_it_is
from coppice.conversion.declared import DeclaredFormat, difference
from coppice.conversion.files import hash_file, is_merely_linked, locked, state_of
from coppice.conversion.keep import Made, lock_of, place_of
from coppice.conversion.model import ConvertedImage, Formats, GuestBytes, Inspection, Source
from coppice.conversion.options import Options, identity
from coppice.conversion.packed import is_packed
from coppice.conversion.qemu import qemu_version
from coppice.conversion.results import Results
from coppice.conversion.transform import of_own_making, transform
from coppice.conversion.unpack import opened_disk
from coppice.errors import ChecksumMismatchError, ImageRefusedError, NoSpaceError
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.conversion.keep import Leases
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.unpack import OpenedDisk
    from coppice.monitor import Monitor

    Choice = Callable[[Inspection], DiskFormat | None]
    """Which format is wanted of an image; None: the file itself serves."""

UNPACKED = "unpacked"
"""The converter of what was taken out of its compression or its archive, and not converted."""
_TRIES = 3
_GUEST_FORMATS = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose file is what a guest sees, byte for byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One conversion."""

    source: Source
    found: Inspection
    wanted: DiskFormat
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

    def convert(self, cached: CachedImage, accepted: Formats, monitor: Monitor = SILENT) -> ConvertedImage:
        """Return the image in a format of ``accepted``; the published file itself where its format is one.

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
        state = self._verify_source(source, monitor)
        differs: str | None = None

        def pick(found: Inspection) -> DiskFormat | None:
            nonlocal differs
            if source.held is Held.PUBLISHED:
                differs = difference(cached.declared_format, found, self._declared, source.name)
            wanted = choose(found, accepted)
            return None if found.is_usable_as_it_is and wanted is found.format else wanted

        had = self._have(source, state, pick, monitor)
        if had.made is None:
            self._verify_manifest(source, had.found, monitor)
            self._unchanged(source, self._settled(source, state, monitor))
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
            if found.packaging is None and found.format in _GUEST_FORMATS:
                return None
            return found.disk.format if found.disk.format in _GUEST_FORMATS else DiskFormat.RAW

        had = self._have(source, None, pick, monitor, is_seed=True)
        if had.made is None:
            return GuestBytes(path=source.path, checksum=source.checksum, size_bytes=had.found.size_bytes)
        image = had.made.image
        return GuestBytes(path=had.path, checksum=image.checksum, size_bytes=image.size_bytes)

    def _have(
        self,
        source: Source,
        state: tuple[int, ...] | None,
        pick: Choice,
        monitor: Monitor,
        *,
        is_seed: bool = False,
    ) -> _Had:
        """Return what is kept or made, whichever comes first.

        Args:
            source: Of what.
            state: In which its bytes were verified; None: they are verified when they are needed.
            pick: Says what is wanted.
            monitor: Where progress is told.
            is_seed: It is to serve deltas alone.
        """
        found = self._facts(source)
        if found is not None:
            had = self._kept(source, found, pick, monitor, is_seed=is_seed)
            if had is not None:
                return had
        state = state or self._verify_source(source, monitor)
        try:
            return self._make(source, state, pick, monitor, is_seed=is_seed)
        except NoSpaceError as problem:
            missing = _missing_bytes(problem)
            if not self._results.make_room(missing):
                raise
        return self._make(source, state, pick, monitor, is_seed=is_seed)

    def _facts(self, source: Source) -> Inspection | None:
        """Return what a source is; None: it has to be unpacked to know that, and was not before."""
        packed = is_packed(source.path)
        if packed and source.held is Held.GUEST:
            raise _guests_choice(source, "a packed file")
        if packed:
            return next((each.made.found for each in self._results.of_source(source.checksum)), None)
        with self._opened(source, SILENT) as disk:
            return disk.inspection

    def _kept(self, source: Source, found: Inspection, pick: Choice, monitor: Monitor, *, is_seed: bool) -> _Had | None:
        wanted = pick(found)
        if wanted is None:
            return _Had(found=found, path=source.path)
        work = self._work(source, found, wanted, is_seed=is_seed)
        with locked(lock_of(work.path)):
            made = self._results.find(work.path, monitor, is_seed=is_seed)
        return None if made is None else _Had(found=found, path=work.path, made=made)

    def _make(self, source: Source, state: tuple[int, ...], pick: Choice, monitor: Monitor, *, is_seed: bool) -> _Had:
        with ExitStack() as stack:
            stack.enter_context(locked(self.directory / "locks" / f"source-{source.checksum.hexdigest}"))
            # Another may have made it, or unpacked it for something else, while the lock was waited for.
            found, disk = self._facts(source), None
            if found is None:
                disk = stack.enter_context(self._opened(source, monitor))
                found = disk.inspection
            wanted = pick(found)
            if wanted is None:
                return _Had(found=found, path=source.path)
            work = self._work(source, found, wanted, is_seed=is_seed)
            stack.enter_context(locked(lock_of(work.path)))
            made = self._results.find(work.path, monitor, is_seed=is_seed)
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
            for _ in range(_TRIES):
                with self._readable(work, disk, monitor) as readable:
                    written = transform(
                        readable, work.wanted, temporary, options=self._options, limits=self._limits, monitor=monitor
                    )
                if not is_merely_linked(state, state_of(source.path)):
                    break
                # Another run handed the file out meanwhile; or somebody changed it and put it back. It is read anew.
                state, disk = self._verify_source(source, monitor), None
            else:
                raise _altered(source, "It changed each time that it was read.")
            self._unchanged(source, state)
            with monitor.task("reading what was converted", total=written.size_bytes, unit=Unit.BYTES) as task:
                checksum, _ = hash_file(temporary, "sha512", task.advance)
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
        kept = self._cheaper(work, monitor) if is_costly_to_open(work.found) else None
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
                if self._results.find(path, monitor) is not None:
                    return path
        return None

    def _work(self, source: Source, found: Inspection, wanted: DiskFormat, *, is_seed: bool) -> _Work:
        version = UNPACKED if is_taken_as_it_is(found, wanted) else self._tool_version()
        path = place_of(self.directory, source.checksum, (*identity(wanted, self._options), version), wanted)
        return _Work(source=source, found=found, wanted=wanted, version=version, path=path, is_seed=is_seed)

    @contextmanager
    def _opened(self, source: Source, monitor: Monitor) -> Iterator[OpenedDisk]:
        with opened_disk(
            source.path, self._limits, spool=self.directory / "spool", monitor=monitor, name=source.name
        ) as disk:
            if source.held is Held.GUEST and disk.inspection.format not in _GUEST_FORMATS:
                raise _guests_choice(source, disk.inspection.format)
            yield disk

    def _verify_source(self, source: Source, monitor: Monitor) -> tuple[int, ...]:
        """Return the state of the cached file, whose bytes are known to be the signed ones in that state."""
        state = state_of(source.path)
        if source.fingerprint and state == source.fingerprint:
            return state
        with monitor.task("verifying before conversion", total=source.size_bytes, unit=Unit.BYTES) as task:
            found, state = hash_file(source.path, source.checksum.algorithm, task.advance)
        if not found.matches(source.checksum):
            raise _altered(source, f"signed {source.checksum}\nfound  {found}")
        return state

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

    def _settled(self, source: Source, state: tuple[int, ...], monitor: Monitor) -> tuple[int, ...]:
        for _ in range(_TRIES):
            if not is_merely_linked(state, state_of(source.path)):
                break
            state = self._verify_source(source, monitor)
        return state

    def _unchanged(self, source: Source, state: tuple[int, ...]) -> None:
        if state_of(source.path) != state:
            raise _altered(source, "It changed while it was used.")

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


def _altered(source: Source, details: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the cached file of image {source.name} was altered after it was verified",
        details=details,
        resolution="It is not used. Run again: the cache fetches it anew. Find out who writes to the cache.",
        context={"image": source.name, "path": str(source.path)},
    )
