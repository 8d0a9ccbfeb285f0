# SPDX-License-Identifier: Apache-2.0
"""`Converter`: brings a cached image into a format that a cloud takes, with qemu-img under limits."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice import atomic, process
from coppice.conversion.choose import choose
from coppice.conversion.inspect import inspect
from coppice.conversion.model import ConversionLimits, ConvertedImage, Formats, Inspection
from coppice.errors import (
    ChecksumMismatchError,
    ConversionError,
    ImageRefusedError,
    NoSpaceError,
    ToolFailedError,
    ToolTimeoutError,
)
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.monitor import SILENT, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.cache.model import CachedImage
    from coppice.monitor import Monitor, Task

_PIECE_BYTES = 1024 * 1024
_RESERVE_BYTES = 16 * 1024 * 1024
"""Kept free for the database and all else that lies on the same file system."""
_OVERHEAD_BYTES = 256 * 1024 * 1024
_PROGRESS = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")
_SECTOR = 512
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

    cached: CachedImage
    found: Inspection
    wanted: DiskFormat
    version: str
    path: Path


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
        state = self._verify_source(cached, monitor)
        found = inspect(cached.path, self._limits)
        wanted = choose(found.format, accepted)
        if wanted is found.format:
            image = Image(
                format=found.format,
                size_bytes=found.size_bytes,
                virtual_size_bytes=found.virtual_size_bytes,
                checksum=cached.checksum,
            )
            self._unchanged(cached, state)
            return _result(cached, cached.path, image, converter="none", reused=True)
        version = self._tool_version()
        options = _OPTIONS.get(wanted, ())
        identity = "\0".join((str(cached.checksum), wanted, *options, version))
        path = self.directory / "objects" / f"{hashlib.sha256(identity.encode()).hexdigest()}.{wanted}"
        work = _Work(cached=cached, found=found, wanted=wanted, version=version, path=path)
        with _locked(self.directory / "locks" / path.name):
            kept = self._kept(work, monitor)
            if kept is not None:
                return _result(cached, path, kept, converter=version, reused=True)
            image = self._make(work, state, monitor)
        return _result(cached, path, image, converter=version, reused=False)

    def _verify_source(self, cached: CachedImage, monitor: Monitor) -> tuple[int, ...]:
        """Return the state of the cached file, whose bytes are known to be the signed ones in that state."""
        state = _state(cached.path)
        if cached.fingerprint and state == cached.fingerprint:
            return state
        with monitor.task("verifying before conversion", total=cached.size_bytes, unit=Unit.BYTES) as task:
            found, state = _hash(cached.path, cached.checksum.algorithm, task.advance)
        if not found.matches(cached.checksum):
            raise _altered(cached, f"signed {cached.checksum}\nfound  {found}")
        return state

    def _unchanged(self, cached: CachedImage, state: tuple[int, ...]) -> None:
        if _state(cached.path) != state:
            raise _altered(cached, "It changed while it was used.")

    def _tool_version(self) -> str:
        if self._version is None:
            said = process.run(["qemu-img", "--version"], timeout_seconds=30).text()
            number = re.search(r"version (\d+(?:\.\d+)*)", said)
            self._version = f"qemu-img {number[1]}" if number else "qemu-img"
        return self._version

    def _kept(self, work: _Work, monitor: Monitor) -> Image | None:
        """Return the facts of an earlier result that is still what it was."""
        path = work.path
        record = path.with_name(path.name + ".json")
        try:
            content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            image = Image(
                format=DiskFormat(content["format"]),
                size_bytes=int(content["size_bytes"]),
                virtual_size_bytes=int(content["virtual_size_bytes"]),
                checksum=Checksum.parse(content["checksum"]),
            )
            if self._verified.get(path) == _state(path):
                return image
            with monitor.task("verifying the converted image", total=image.size_bytes, unit=Unit.BYTES) as task:
                found, state = _hash(path, image.checksum.algorithm, task.advance)
        except (OSError, ValueError, KeyError, TypeError, ImageRefusedError):
            # Not there, or not what was made: it is made again.
            return None
        if not found.matches(image.checksum):
            return None
        self._verified[path] = state
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
            with monitor.task(label, total=work.found.virtual_size_bytes, unit=Unit.BYTES) as task:
                self._run(work, temporary, task)
            self._unchanged(work.cached, state)
            made = self._inspect_result(work, temporary)
            with monitor.task("reading what was converted", total=made.size_bytes, unit=Unit.BYTES) as task:
                checksum, _ = _hash(temporary, "sha512", task.advance)
        image = Image(
            format=work.wanted,
            size_bytes=made.size_bytes,
            virtual_size_bytes=made.virtual_size_bytes,
            checksum=checksum,
        )
        self._verified[path] = _state(path)
        content = {
            "format": str(image.format),
            "size_bytes": image.size_bytes,
            "virtual_size_bytes": image.virtual_size_bytes,
            "checksum": str(image.checksum),
            "source": str(work.cached.checksum),
            "converter": work.version,
        }
        atomic.write_text(path.with_name(path.name + ".json"), json.dumps(content, indent=1) + "\n")
        return image

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
            work.cached.path,
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
            work.cached.path,
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
        source_checksum=cached.checksum,
        converter=converter,
        reused=reused,
    )


def _altered(cached: CachedImage, details: str) -> ChecksumMismatchError:
    return ChecksumMismatchError(
        f"the cached file of image {cached.key} was altered after it was verified",
        details=details,
        resolution="It is not used. Run again: the cache fetches it anew. Find out who writes to the cache.",
        context={"image": str(cached.key), "path": str(cached.path)},
    )


def _fingerprint(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _state(path: Path) -> tuple[int, ...]:
    try:
        return _fingerprint(path.lstat())
    except OSError:
        return ()


def _hash(path: Path, algorithm: str, on_piece: Callable[[int], object]) -> tuple[Checksum, tuple[int, ...]]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise ImageRefusedError(f"{path} cannot be opened as a regular file", details=str(problem)) from problem
    with os.fdopen(handle, "rb", buffering=0) as stream:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise ImageRefusedError(f"{path} is not a regular file")
        digest = hashlib.new(algorithm)
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            on_piece(len(piece))
        if _fingerprint(os.fstat(handle)) != _fingerprint(before):
            raise ImageRefusedError(f"{path} changed while it was read", resolution="Run again.")
    return Checksum(algorithm, digest.hexdigest()), _fingerprint(before)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with atomic.storage_errors("locking", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
