# SPDX-License-Identifier: Apache-2.0
"""Write the file of a conversion: how large it may become, whether there is room, and what each format asks for."""

from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice import atomic
from coppice.conversion.options import MOST_BYTES, is_compressed
from coppice.conversion.ova_write import write_ova
from coppice.conversion.qemu import is_whole_file
from coppice.conversion.unpack_spool import RESERVE_BYTES
from coppice.conversion.window import FileWindow
from coppice.errors import ConversionError, ImageRefusedError, NoSpaceError
from coppice.model.image import DiskFormat
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.conversion.options import Options
    from coppice.conversion.qemu import QemuImg
    from coppice.conversion.unpack import OpenedDisk
    from coppice.monitor import Task

_TABLES_BYTES = 256 * 1024 * 1024
"""For the tables of a format, beside an eighth of the disk."""
_SECTOR = 512


def write_disk(
    disk: OpenedDisk, wanted: DiskFormat, destination: Path, *, options: Options, tool: QemuImg, task: Task
) -> None:
    """Write a disk in the format ``wanted``.

    Args:
        disk: What to read.
        wanted: The format.
        destination: The new file.
        options: How it is written.
        tool: What writes it.
        task: Told how far it is, in bytes of the disk.

    Raises:
        ConversionError: It failed, or the disk is too large for the format.
        ImageRefusedError: Another file took the place of what was unpacked.
        CageError: The tool cannot be shut in as the options demand.
        ToolMissingError: It is not installed.
        NoSpaceError: The result does not fit on the disk.
        StorageError: It cannot be written.
    """
    total = disk.inspection.virtual_size_bytes
    if total > MOST_BYTES.get(wanted, total):
        raise ConversionError(
            f"a disk of {total} bytes is too large for the format {wanted}, which holds {MOST_BYTES[wanted]}",
            resolution="Convert it to another format.",
        )
    with _by_sectors(disk, destination) as readable:
        most = _most_bytes(readable, wanted, destination, options, tool)

        def write(kind: DiskFormat, path: Path) -> None:
            with atomic.storage_errors("writing", path):
                _make_empty(path)
            tool.convert(
                readable, kind, path, file_size_bytes=most, on_share=lambda share: task.reach(int(share * total))
            )
            _require_own(readable)

        if wanted is DiskFormat.OVA:
            _archive(disk, destination, write, options, task)
        else:
            write(wanted, destination)


def _require_own(disk: OpenedDisk) -> None:
    """See that what was unpacked, or copied, beside the new file is what was read: others may write in its folder.

    Whoever named the published file sees to that one.
    """
    if disk.path != disk.published and not disk.window.is_at_its_path():
        raise ImageRefusedError(
            f"another file took the place of {disk.path} while it was converted",
            details="What was looked at is not what qemu-img read.",
            resolution="Nothing was made of it. See who writes to its folder, then run again.",
            context={"path": str(disk.path)},
        )


def _archive(
    disk: OpenedDisk, destination: Path, write: Callable[[DiskFormat, Path], None], options: Options, task: Task
) -> None:
    """Write a disk as an archive's, and make that the archive."""
    part = atomic.partial_path(destination)
    try:
        if _is_stream_optimized(disk):
            disk.take(part)
        else:
            write(DiskFormat.VMDK, part)
        task.note("writing the descriptor and the manifest")
        write_ova(
            part,
            destination,
            requirements=options.requirements or _told(disk) or Requirements(),
            name=options.name,
            virtual_size_bytes=_whole_sectors(disk.inspection.virtual_size_bytes),
        )
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _most_bytes(disk: OpenedDisk, wanted: DiskFormat, destination: Path, options: Options, tool: QemuImg) -> int:
    """Return the most that the file may become, having seen that there is room.

    What is not compressed takes what the data takes, whatever the source's own length: one cluster of it may be listed
    many times. Of what is compressed nobody knows: it may take what is there, and not more.
    """
    total = disk.inspection.virtual_size_bytes
    most = total + total // 8 + _TABLES_BYTES
    with atomic.storage_errors("looking for room for", destination):
        free = max(0, shutil.disk_usage(destination.parent).free - RESERVE_BYTES)
    if is_compressed(wanted, options):
        return min(most, free)
    needed = _data_bytes(disk, tool)
    if free < needed:
        raise NoSpaceError(
            f"the converted image needs about {needed} bytes; {destination.parent} has room for {free}",
            resolution="Free space there, then run again.",
            context={"path": str(destination.parent), "free_bytes": free, "needed_bytes": needed},
        )
    return most


def _data_bytes(disk: OpenedDisk, tool: QemuImg) -> int:
    known = disk.inspection.disk.allocated_bytes
    if known is not None:
        return known
    if disk.inspection.disk.format is DiskFormat.RAW:
        with atomic.storage_errors("looking at", disk.path):
            return min(disk.size_bytes, disk.path.stat().st_blocks * _SECTOR)
    return tool.data_bytes(disk)


@contextmanager
def _by_sectors(disk: OpenedDisk, destination: Path) -> Iterator[OpenedDisk]:
    """Yield the disk as QEMU can read it: a stretch of a file that ends within a sector is made a file of its own."""
    if is_whole_file(disk) or disk.size_bytes % _SECTOR == 0:
        yield disk
        return
    copy = atomic.partial_path(destination)
    try:
        disk.take(copy)
        with FileWindow(copy) as window:
            yield replace(disk, path=copy, offset=0, window=window)
    finally:
        with contextlib.suppress(OSError):
            copy.unlink()


def _is_stream_optimized(disk: OpenedDisk) -> bool:
    """Tell whether a disk is what an OVA holds already."""
    found = disk.inspection.disk
    return found.format is DiskFormat.VMDK and found.variant == "streamOptimized" and not found.must_be_rewritten


def _told(disk: OpenedDisk) -> Requirements | None:
    packaging = disk.inspection.packaging
    return None if packaging is None else packaging.hardware


def _whole_sectors(size_bytes: int) -> int:
    return -(-size_bytes // _SECTOR) * _SECTOR


def _make_empty(destination: Path) -> None:
    os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
