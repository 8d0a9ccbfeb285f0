# SPDX-License-Identifier: Apache-2.0
"""`QemuImg`: the one program that reads and writes disks, run in the cage, its failures told in our words."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from typing import TYPE_CHECKING

from coppice import atomic, process
from coppice.cage import Cage
from coppice.conversion.options import QEMU_NAMES, arguments
from coppice.errors import ConversionError, NoSpaceError, ToolFailedError, ToolTimeoutError
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.options import Options
    from coppice.conversion.unpack import OpenedDisk

_PROGRESS = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")
_PROGRESS_LINE = re.compile(r"[ \r\n]*\(\d+(?:\.\d+)?/100%\)(?=\s|$)")
_OPEN_FILES = 64
_NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")
_SIGXFSZ = 25
"""What ends a program that wrote beyond its limit on files (signal(7)); 128 more where a shell or the cage tells it."""
_FULL_BYTES = 128 * 1024
"""A disk that has less is full: the least that is written at once is a cluster of 64 KiB."""
_VERSION_SECONDS = 30.0


class QemuImg:
    """Runs qemu-img on opened disks.

    Args:
        limits: Bounds on each call.
        options: How images are written, and whether a full cage is demanded.
    """

    def __init__(self, limits: ConversionLimits, options: Options) -> None:
        self._limits = limits
        self._options = options

    def convert(
        self,
        disk: OpenedDisk,
        wanted: DiskFormat,
        destination: Path,
        *,
        file_size_bytes: int,
        on_share: Callable[[float], object],
    ) -> None:
        """Write a disk to a file that is there and empty.

        Args:
            disk: What to read.
            wanted: The format.
            destination: The file.
            file_size_bytes: Most that it may become.
            on_share: Called with the share that is done, 0 to 1.

        Raises:
            ConversionError: It failed.
            CageError: It cannot be shut in as the options demand.
            ToolMissingError: It is not installed.
            NoSpaceError: The result does not fit, on the disk or into ``file_size_bytes``.
        """

        def progress(text: str) -> None:
            shares = _PROGRESS.findall(text)
            if shares:
                on_share(min(1.0, float(shares[-1]) / 100))

        cage = self._cage(disk, destination)
        argv = ["qemu-img", "convert", "-p", *arguments(wanted, self._options), "-O", QEMU_NAMES[wanted]]
        argv += [source_of(disk, cage.inside(disk.path)), cage.inside(destination)]
        try:
            self._run(cage, argv, on_output=progress, file_size_bytes=file_size_bytes)
        except ConversionError as problem:
            if _is_full(destination, file_size_bytes):
                raise _no_space(problem.details) from problem
            raise

    def data_bytes(self, disk: OpenedDisk) -> int:
        """Return how many bytes of data a disk has, uncompressed, and a little for tables.

        Raises:
            ConversionError: It failed, or its answer cannot be read.
            CageError: It cannot be shut in as the options demand.
            ToolMissingError: It is not installed.
        """
        cage = self._cage(disk)
        # Of raw, QEMU would say the whole length; of qcow2 it says the data, and a little for tables.
        argv = ["qemu-img", "measure", "-O", "qcow2", "--output=json", source_of(disk, cage.inside(disk.path))]
        said = self._run(cage, argv).stdout
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(said)["required"])
        raise ConversionError("qemu-img does not say how many bytes the disk has", details=repr(said[:200]))

    def _cage(self, disk: OpenedDisk, *writes: Path) -> Cage:
        return Cage(reads=[disk.path], writes=writes, is_required=self._options.require_cage)

    def _run(
        self,
        cage: Cage,
        argv: list[str],
        *,
        on_output: Callable[[str], None] | None = None,
        file_size_bytes: int = 0,
    ) -> process.Completed:
        limits = process.Limits(
            address_space_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            file_size_bytes=file_size_bytes,
            open_files=_OPEN_FILES,
        )
        seconds = self._limits.timeout_seconds
        try:
            return cage.run(argv, limits=limits, timeout_seconds=seconds, on_output=on_output)
        except ToolTimeoutError as problem:
            raise ConversionError(
                f"qemu-img did not end within {seconds:.0f} s and was stopped",
                details=problem.details,
                resolution="Raise conversion.timeout_seconds if the image is large and the machine slow.",
            ) from problem
        except ToolFailedError as problem:
            raise _failure(problem) from problem


def source_of(disk: OpenedDisk, inside: str) -> str:
    """Return how a disk is named to QEMU: its format and where it lies in the file, nothing left to guess.

    Args:
        disk: The disk; a stretch of a file, if not all of it, of whole sectors.
        inside: The file's path, as the program sees it.
    """
    file: dict[str, object] = {"driver": "file", "filename": inside}
    if not is_whole_file(disk):
        # The name of the driver that shows a stretch of a file is "raw".
        file = {"driver": "raw", "offset": disk.offset, "size": disk.size_bytes, "file": file}
    said: dict[str, object] = {"driver": QEMU_NAMES[disk.inspection.disk.format], "file": file}
    if disk.inspection.disk.format is DiskFormat.QCOW2:
        said["backing"] = None
    if disk.inspection.disk.format is DiskFormat.VHD:
        # As the disk was looked at; by the geometry, QEMU would leave out the end of some.
        said["force_size_calc"] = "current_size"
    return f"json:{json.dumps(said)}"


def is_whole_file(disk: OpenedDisk) -> bool:
    """Tell whether a disk is all that its file holds.

    Raises:
        StorageError: The file cannot be looked at.
    """
    with atomic.storage_errors("looking at", disk.path):
        return disk.offset == 0 and disk.size_bytes == disk.path.lstat().st_size


def qemu_version() -> str:
    """Return the name and version of the installed qemu-img.

    Raises:
        ToolMissingError: It is not installed.
        ToolFailedError: It does not start.
    """
    said = process.run(["qemu-img", "--version"], timeout_seconds=_VERSION_SECONDS).text()
    number = re.search(r"version (\d+(?:\.\d+)*)", said)
    return f"qemu-img {number[1]}" if number else "qemu-img"


def _failure(problem: ToolFailedError) -> ConversionError | NoSpaceError:
    details = _PROGRESS_LINE.sub("", problem.details or "")
    ended = problem.context.get("returncode")
    if any(words in details for words in _NO_SPACE) or ended in {-_SIGXFSZ, 128 + _SIGXFSZ}:
        return _no_space(details)
    return ConversionError(
        f"the image could not be converted: {problem.message}",
        details=details,
        resolution="The image may be damaged, or too large for the limits in [conversion].",
    )


def _no_space(details: str | None) -> NoSpaceError:
    return NoSpaceError(
        "no space left while converting",
        details=details,
        resolution="Free space there, then run again; `coppice cache prune` removes what nothing needs.",
    )


def _is_full(destination: Path, most_bytes: int) -> bool:
    """Tell whether a file grew as far as it could: QEMU calls a write that was cut short an invalid argument (VMDK)."""
    with contextlib.suppress(OSError):
        return destination.stat().st_size >= most_bytes or shutil.disk_usage(destination.parent).free < _FULL_BYTES
    return False
