# SPDX-License-Identifier: Apache-2.0
"""The builder ``prebuilt``: a finished image as it is, looked into, held against its definition, and given on."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.digests import new_digest
from coppice.errors import BuildError, ChecksumMismatchError
from coppice.factory.bootstrap.dpkg import read_packages
from coppice.factory.build_log import LOG_NAME, BuildLog
from coppice.factory.evidence.dpkg_record import dpkg_record
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.files import describe_image
from coppice.factory.image_start.content import check_clean
from coppice.factory.image_start.release import check_release
from coppice.factory.image_start.taking import start_input, take_start
from coppice.factory.model import BuilderOutput
from coppice.factory.outputs import write_images
from coppice.factory.partition_table import find_root
from coppice.factory.prebuilt.claims import check_claims, check_supported
from coppice.factory.tool_versions import tool_versions
from coppice.factory.workplace import workplace
from coppice.model.image import DiskFormat
from coppice.process import find_tool

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions, BuiltImage, Package, StartDisk
    from coppice.monitor import Monitor

_NEEDED_TOOLS = ("debugfs", "e2fsck", "sfdisk", "qemu-img")
_TOLD_TOOLS = ("debugfs", "qemu-img")
_CHUNK_BYTES = 1024 * 1024


class PrebuiltBuilder:
    """Gives finished images on."""

    name = "prebuilt"
    version = "1"

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Lay the images of ``definition`` as files into the empty directory ``into``.

        Of the format that the image has, its bytes are the publisher's own; other formats are made of its disk.

        Raises:
            BuildError: It is not what the definition says, or that asks for what this builder does not do.
            ToolMissingError: A program that the builder needs is not installed.
            NoSpaceError: The disk is full.
            CoppiceError: The image cannot be had, or was refused; the class says why.
        """
        check_supported(definition, options)
        for tool in _NEEDED_TOOLS:
            find_tool(tool)
        deadline = time.monotonic() + options.timeout_seconds
        with (
            monitor.task(f"building {definition.name}", total=3) as task,
            workplace(options.work_directory) as work,
            BuildLog(into / LOG_NAME, task.note) as log,
        ):
            start = take_start(definition, options, work, monitor)
            log.write(f"the image {start.name}, {start.checksum}\n")
            task.reach(1)
            task.note("looking into the image")
            packages = _looked_into(definition, start, work)
            log.write(f"{len(packages)} packages are installed in it\n")
            task.reach(2)
            images = _given_on(definition, start, into, deadline)
            disk = _left(start, definition, options.disk_directory)
            task.reach(3)
        return BuilderOutput(
            images=images,
            packages=packages,
            tools=tool_versions(_TOLD_TOOLS),
            inputs=(start_input(start),),
            log=into / LOG_NAME,
            disk=disk,
        )


def _left(start: StartDisk, definition: Definition, directory: Path | None) -> Path | None:
    """Leave the disk to the audit: QEMU's reading of an image that a stranger wrote, as a machine has it."""
    first = definition.formats[0]
    # Writing a qcow2 ends with reading it back; what qemu-img writes is for the audit to read.
    is_seen = first is DiskFormat.QCOW2 or (first is start.format and start.original is not None)
    if directory is None or not is_seen:
        return None
    disk = directory / "disk.raw"
    with storage_errors("moving", start.raw):
        shutil.move(start.raw, disk)
    return disk


def _given_on(definition: Definition, start: StartDisk, into: Path, deadline: float) -> tuple[BuiltImage, ...]:
    images: list[BuiltImage] = []
    for wanted in definition.formats:
        if wanted is start.format and start.original is not None:
            path = into / f"{definition.name}.{wanted.value}"
            _copy(start.original, path, start)
            images.append(describe_image(path, wanted))
        else:
            images += write_images(start.raw, into, replace(definition, formats=(wanted,)), deadline=deadline)
    return tuple(images)


def _looked_into(definition: Definition, start: StartDisk, work: Path) -> tuple[Package, ...]:
    root = find_root(start.raw)
    check_clean(start.raw, root)
    tree = Ext4Disk(start.raw, root.start_bytes, work).tree()
    status = dpkg_record(tree)
    if not status:
        raise BuildError(
            f"{start.name} has no package database that could be read",
            resolution="Images of Debian and Ubuntu have one.",
        )
    check_release(definition, tree, start.name)
    packages = read_packages(status)
    check_claims(definition, packages, tree, start.raw.stat().st_size)
    return packages


def _copy(source: Path, target: Path, start: StartDisk) -> None:
    digest = new_digest(start.checksum.algorithm)
    with storage_errors("copying to", target), source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(_CHUNK_BYTES):
            digest.update(piece)
            writer.write(piece)
    if digest.hexdigest() != start.checksum.hexdigest:
        raise ChecksumMismatchError(
            f"the image {start.name} changed while it was read",
            resolution="See who writes to it, then run again.",
            context={"path": str(source)},
        )
