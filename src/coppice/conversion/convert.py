# SPDX-License-Identifier: Apache-2.0
"""`Converter`: brings a cached image into a format that a cloud takes, with qemu-img under limits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice import atomic, process
from coppice.cache.model import Held
from coppice.conversion.choose import choose
from coppice.conversion.files import hash_file, is_merely_linked, locked, state_of
from coppice.conversion.inspect import inspect
from coppice.conversion.keep import Made, mark_used, read_made, size_of, write_made
from coppice.conversion.model import ConversionLimits, ConvertedImage, Formats, GuestBytes, Inspection, Source
from coppice.errors import (
    ChecksumMismatchError,
    ConversionError,
    ImageRefusedError,
    NoSpaceError,
    ToolFailedError,
    ToolTimeoutError,
)
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.monitor import Monitor, Task

_RESERVE_BYTES = 16 * 1024 * 1024
_TRIES = 3
"""Kept free for the database and all else that lies on the same file system."""
_OVERHEAD_BYTES = 256 * 1024 * 1024
_PROGRESS = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")
_SECTOR = 512
_GUEST_FORMATS = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose file is what a guest sees, byte for byte."""
_QEMU_NAMES = {
    DiskFormat.RAW: "raw",
    DiskFormat.QCOW2: "qcow2",
    DiskFormat.VMDK: "vmdk",
    DiskFormat.VDI: "vdi",
    DiskFormat.VHD: "vpc",
    DiskFormat.VHDX: "vhdx",
}
_OPTIONS: dict[DiskFormat, tuple[str, ...]] = {
    DiskFormat.QCOW2: ("-c", "-o", "compat=1.1,compression_type=zstd"),
    DiskFormat.VMDK: ("-o", "subformat=streamOptimized"),
    DiskFormat.VHD: ("-o", "subformat=dynamic,force_size=on"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One conversion."""

    source: Source
    found: Inspection
    wanted: DiskFormat
    version: str
    path: Path
    is_seed: bool = False


class Converter:
    """Converts, and keeps what it made for the next time.

    Args:
        directory: Where results are; made when first needed.
        limits: Bounds on images and on the tool.
    """

    def __init__(self, directory: Path, limits: ConversionLimits) -> None:
        self.directory = directory
        self._limits = limits
        self._version: str | None = None
        self._verified: dict[Path, tuple[int, ...]] = {}

    def convert(self, cached: CachedImage, accepted: Formats, monitor: Monitor = SILENT) -> ConvertedImage:
        """Return the image in a format of ``accepted``; the published file itself where its format is one.

        Raises:
            ChecksumMismatchError: The cached bytes were altered since they were verified.
            ImageRefusedError: The image is dangerous, or not one; no tool opened it.
            ConversionError: No accepted format can be made, or the tool failed.
            ToolMissingError: qemu-img is not installed.
            NoSpaceError: The result does not fit on the disk.
            StorageError: The directory cannot be used.
        """
        source = Source.of(cached)
        state = self._verify_source(source, monitor)
        found = self._inspect_source(source)
        wanted = choose(found.format, accepted)
        if wanted is found.format:
            image = Image(
                format=found.format,
                size_bytes=found.size_bytes,
                virtual_size_bytes=found.virtual_size_bytes,
                checksum=cached.checksum,
            )
            for _ in range(_TRIES):
                if not is_merely_linked(state, state_of(source.path)):
                    break
                state = self._verify_source(source, monitor)
            self._unchanged(source, state)
            return _result(cached, cached.path, image, converter="none", reused=True)
        work = self._work(source, found, wanted)
        image, reused = self._give(work, state, monitor)
        return _result(cached, work.path, image, converter=work.version, reused=reused)

    def guest_bytes(self, source: Source, monitor: Monitor = SILENT) -> GuestBytes:
        """Return the disk of a held file as a guest sees it: the file itself where it is raw, else a raw one.

        It is made once; a raw file that a cloud had is taken as well. What was made before is not read again: whoever
        uses it must verify what comes of it. `coppice.conversion.keep.prune_guest_bytes` bounds how many stay.

        Raises:
            ChecksumMismatchError: The file was altered since it was verified.
            ImageRefusedError: The image is dangerous, or not one; no tool opened it.
            ConversionError: The tool failed.
            ToolMissingError: qemu-img is not installed.
            NoSpaceError: The result does not fit on the disk.
            StorageError: The directory cannot be used.
        """
        found = self._inspect_source(source)
        if found.format in _GUEST_FORMATS:
            return GuestBytes(path=source.path, checksum=source.checksum, size_bytes=found.size_bytes)
        work = self._work(source, found, DiskFormat.RAW, is_seed=True)
        made = read_made(work.path)
        if made is None or made.image.size_bytes != size_of(work.path):
            image, _ = self._give(work, self._verify_source(source, monitor), monitor)
        else:
            image = made.image
        mark_used(work.path)
        return GuestBytes(path=work.path, checksum=image.checksum, size_bytes=image.size_bytes)

    def _work(self, source: Source, found: Inspection, wanted: DiskFormat, *, is_seed: bool = False) -> _Work:
        version = self._tool_version()
        identity = "\0".join((str(source.checksum), wanted, *_OPTIONS.get(wanted, ()), version))
        path = self.directory / "objects" / f"{hashlib.sha256(identity.encode()).hexdigest()}.{wanted}"
        return _Work(source=source, found=found, wanted=wanted, version=version, path=path, is_seed=is_seed)

    def _give(self, work: _Work, state: tuple[int, ...], monitor: Monitor) -> tuple[Image, bool]:
        """Return what is kept or made, and whether it was kept."""
        with locked(self.directory / "locks" / work.path.name):
            kept = self._kept(work, monitor)
            return (kept, True) if kept is not None else (self._make(work, state, monitor), False)

    def _inspect_source(self, source: Source) -> Inspection:
        found = inspect(source.path, self._limits)
        if source.held is Held.GUEST and found.format not in _GUEST_FORMATS:
            # What a guest wrote at the beginning of its disk must not decide how the disk is read.
            raise ImageRefusedError(
                f"the disk of image {source.name} begins like {found.format}: each tool would read another disk",
                resolution="No tool opened it. Tell whoever publishes it.",
                context={"path": str(source.path)},
            )
        return found

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

    def _unchanged(self, source: Source, state: tuple[int, ...]) -> None:
        if state_of(source.path) != state:
            raise _altered(source, "It changed while it was used.")

    def _tool_version(self) -> str:
        if self._version is None:
            said = process.run(["qemu-img", "--version"], timeout_seconds=30).text()
            number = re.search(r"version (\d+(?:\.\d+)*)", said)
            self._version = f"qemu-img {number[1]}" if number else "qemu-img"
        return self._version

    def _kept(self, work: _Work, monitor: Monitor) -> Image | None:
        """Return the facts of an earlier result that is still what it was."""
        path = work.path
        made = read_made(path)
        if made is None:
            return None
        image = made.image
        if self._verified.get(path) != state_of(path):
            try:
                with monitor.task("verifying the converted image", total=image.size_bytes, unit=Unit.BYTES) as task:
                    found, state = hash_file(path, image.checksum.algorithm, task.advance)
            except (OSError, ImageRefusedError):
                # Not there, or not what was made: it is made again.
                return None
            if not found.matches(image.checksum):
                return None
            self._verified[path] = state
        if made.is_seed and not work.is_seed:
            # A cloud needs it from now on.
            self._write_record(work, image)
        return image

    def _make(self, work: _Work, state: tuple[int, ...], monitor: Monitor) -> Image:
        path = work.path
        with atomic.storage_errors("making", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"{atomic.PARTIAL_PREFIX}{path.name}-*{atomic.PARTIAL_SUFFIX}"):
            # The lock is held, so whoever made it is dead.
            leftover.unlink(missing_ok=True)
        self._admit(work)
        label = f"converting {work.found.format} to {work.wanted}"
        with atomic.replacing(path, mode=0o444) as temporary:
            for _ in range(_TRIES):
                with monitor.task(label, total=work.found.virtual_size_bytes, unit=Unit.BYTES) as task:
                    self._run(work, temporary, task)
                if not is_merely_linked(state, state_of(work.source.path)):
                    break
                # Another run handed the file out meanwhile; or somebody changed it and put it back. It is read anew.
                state = self._verify_source(work.source, monitor)
            else:
                raise _altered(work.source, "It changed each time that it was read.")
            self._unchanged(work.source, state)
            made = self._inspect_result(work, temporary)
            with monitor.task("reading what was converted", total=made.size_bytes, unit=Unit.BYTES) as task:
                checksum, _ = hash_file(temporary, "sha512", task.advance)
        image = Image(
            format=work.wanted,
            size_bytes=made.size_bytes,
            virtual_size_bytes=made.virtual_size_bytes,
            checksum=checksum,
        )
        self._verified[path] = state_of(path)
        self._write_record(work, image)
        return image

    def _write_record(self, work: _Work, image: Image) -> None:
        made = Made(image=image, source=work.source.checksum, converter=work.version, is_seed=work.is_seed)
        write_made(work.path, made)

    def _inspect_result(self, work: _Work, temporary: Path) -> Inspection:
        try:
            made = inspect(temporary, self._limits)
        except ImageRefusedError as problem:
            raise ConversionError(
                "qemu-img said that it was done, and what it wrote is no good", details=problem.message
            ) from problem
        sectors = -(-work.found.virtual_size_bytes // _SECTOR)
        if made.format is not work.wanted or -(-made.virtual_size_bytes // _SECTOR) != sectors:
            raise ConversionError(
                f"qemu-img wrote a {made.format} disk of {made.virtual_size_bytes} bytes; "
                f"{work.wanted} with {work.found.virtual_size_bytes} was wanted"
            )
        return made

    def _admit(self, work: _Work) -> None:
        # What the guest's data takes uncompressed bounds every target: a small file may hold one cluster many times.
        needed = work.found.size_bytes
        done = self._tool(
            ["qemu-img", "measure", "-f", _QEMU_NAMES[work.found.format], "-O", "raw", "--output=json"],
            work.source.path,
        )
        with contextlib.suppress(ValueError, KeyError, TypeError):
            needed = max(needed, int(json.loads(done.stdout)["required"]))
        free = max(0, shutil.disk_usage(work.path.parent).free - _RESERVE_BYTES)
        if free < needed:
            raise NoSpaceError(
                f"the converted image needs about {needed} bytes; {self.directory} has room for {free}",
                resolution="Free space there, then run again.",
                context={"path": str(self.directory), "free_bytes": free, "needed_bytes": needed},
            )

    def _run(self, work: _Work, temporary: Path, task: Task) -> None:
        total = work.found.virtual_size_bytes

        def progress(text: str) -> None:
            shares = _PROGRESS.findall(text)
            if shares:
                task.reach(int(float(shares[-1]) / 100 * total), total)

        argv = ["qemu-img", "convert", "-p", "-f", _QEMU_NAMES[work.found.format], "-O", _QEMU_NAMES[work.wanted]]
        self._tool(
            [*argv, *_OPTIONS.get(work.wanted, ())],
            work.source.path,
            temporary,
            on_output=progress,
            file_size_bytes=total + total // 8 + _OVERHEAD_BYTES,
        )

    def _tool(
        self,
        argv: list[str],
        *paths: Path,
        on_output: Callable[[str], None] | None = None,
        file_size_bytes: int | None = None,
    ) -> process.Completed:
        limits = process.Limits(
            address_space_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            file_size_bytes=file_size_bytes,
            open_files=64,
        )
        # Absolute paths: a name with a colon would be taken for a protocol.
        files = [str(path.absolute()) for path in paths]
        try:
            return process.run(
                [*argv, *files], timeout_seconds=self._limits.timeout_seconds, on_output=on_output, limits=limits
            )
        except ToolTimeoutError as problem:
            raise ConversionError(
                f"qemu-img did not end within {self._limits.timeout_seconds:.0f} s and was stopped",
                details=problem.details,
                resolution="Raise conversion.timeout_seconds if the image is large and the machine slow.",
            ) from problem
        except ToolFailedError as problem:
            if "No space left on device" in (problem.details or ""):
                raise NoSpaceError(
                    f"no space left while converting into {self.directory}",
                    details=problem.details,
                    resolution="Free space there, then run again.",
                ) from problem
            raise ConversionError(
                f"the image could not be converted: {problem.message}",
                details=problem.details,
                resolution="The image may be damaged, or too large for the limits in [conversion].",
            ) from problem


def _result(cached: CachedImage, path: Path, image: Image, *, converter: str, reused: bool) -> ConvertedImage:
    return ConvertedImage(
        key=cached.key,
        version=cached.version,
        path=path,
        image=image,
        source_checksum=cached.listed_checksum,
        converter=converter,
        reused=reused,
    )


def _altered(source: Source, details: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the cached file of image {source.name} was altered after it was verified",
        details=details,
        resolution="It is not used. Run again: the cache fetches it anew. Find out who writes to the cache.",
        context={"image": source.name, "path": str(source.path)},
    )
