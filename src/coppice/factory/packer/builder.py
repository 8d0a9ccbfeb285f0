# SPDX-License-Identifier: Apache-2.0
"""The builder ``packer``: an appliance that is made in a running machine, by the real Packer.

It starts from an installation medium, from a disk, or from the image of the parent; logs in by a key that is made for
this one build; does there what the definition says; and takes the key and every trace of the machine away again. What
comes out is read from the disk, and is searched for the key.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.build_log import LOG_NAME, BuildLog
from coppice.factory.model import BuilderOutput, BuildInput
from coppice.factory.outputs import read_disk, write_images
from coppice.factory.packer.disk import (
    as_raw,
    check_bytes,
    check_key_is_gone,
    check_start,
    installed_packages,
    lay_start,
    made_disk,
    settle,
)
from coppice.factory.packer.options import QemuOptions
from coppice.factory.packer.prepared import lay_out
from coppice.factory.packer.runner import PROGRAM, PackerRun, version_of_packer
from coppice.factory.packer.supported import check_supported, starting_formats
from coppice.factory.packer.template import Start
from coppice.factory.provision.inputs import provision_inputs
from coppice.factory.workplace import workplace
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.process import find_tool, run

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildOptions, Package
    from coppice.factory.packer.options import PlatformOptions
    from coppice.monitor import Monitor, Task

_NEEDED_TOOLS = (
    "unshare",
    PROGRAM,
    "qemu-img",
    "ssh-keygen",
    "mkfs.vfat",
    "mcopy",
    "sfdisk",
    "e2fsck",
    "dumpe2fs",
    "debugfs",
)
_QEMU = "qemu-system-x86_64"
_VIRTUALBOX = "VBoxManage"
_VERSION_SECONDS = 60.0


class PackerBuilder:
    """Builds appliances in a running machine, with Packer."""

    name = "packer"
    version = "1"

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Make the images of ``definition`` as files in the empty directory ``into``.

        Raises:
            BuildError: The image could not be made, or the definition asks for what this builder does not do.
            DefinitionError: The definition contradicts itself.
            ProvisionError: A provisioner failed.
            ToolMissingError: A program that the builder needs is not installed.
            NoSpaceError: The disk is full.
        """
        said = check_supported(definition, options)
        for tool in (*_NEEDED_TOOLS, _QEMU if isinstance(said, QemuOptions) else _VIRTUALBOX):
            find_tool(tool)
        version = version_of_packer()
        deadline = time.monotonic() + options.timeout_seconds
        with (
            monitor.task(f"building {definition.name}", total=4) as task,
            workplace(options.work_directory) as work,
            BuildLog(into / LOG_NAME, task.note) as log,
        ):
            work.chmod(0o700)
            making = _Making(definition=definition, said=said, options=options, work=work, task=task, log=log)
            start, inputs = making.find_start()
            task.reach(1)
            raw, packages = making.make_disk(start, deadline)
            task.reach(3)
            task.note("compressing the image")
            images = write_images(raw, into, definition, deadline=deadline)
            task.reach(4)
        return BuilderOutput(
            images=images,
            packages=packages,
            tools=(("packer", version), ("qemu-img", _qemu_version())),
            inputs=inputs,
            log=into / LOG_NAME,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    definition: Definition
    said: PlatformOptions
    options: BuildOptions
    work: Path
    task: Task
    log: BuildLog

    def find_start(self) -> tuple[Start | None, tuple[BuildInput, ...]]:
        """Return what the machine starts from, and what goes into the build."""
        more = provision_inputs(self.definition)
        if self.options.ancestors and self.definition.parent is not None:
            parent = self.options.ancestors[0]
            image = parent.images[0]
            self.task.note(f"starting from {parent.definition.name}")
            start = self._disk_start(image.path, image.image.format, image.image.checksum)
            name = f"parent {parent.definition.name}"
            return start, (BuildInput(name=name, uri="", digest=str(image.image.checksum)), *more)
        assert not hasattr(self.said, "cloud")  # noqa: S101 - refused before
        said = self.said
        if isinstance(said, QemuOptions) and said.disk is not None and said.disk_checksum is not None:
            checksum = Checksum.parse(said.disk_checksum)
            start = self._disk_start(Path(said.disk), DiskFormat(said.disk_format), checksum)
            return start, (BuildInput(name="disk", uri="", digest=said.disk_checksum), *more)
        address, digest = str(getattr(said, "iso_url", "")), str(getattr(said, "iso_checksum", ""))
        if address.startswith("/") and not Path(address).is_file():
            raise BuildError(f"there is no installation medium at {address}", resolution="Correct iso-url.")
        # What follows a question mark may be somebody's leave to fetch it.
        uri = "" if address.startswith("/") else address.partition("?")[0]
        return Start(address=address, checksum=digest, is_disk=False), (
            BuildInput(name="medium", uri=uri, digest=digest),
            *more,
        )

    def make_disk(self, start: Start | None, deadline: float) -> tuple[Path, tuple[Package, ...]]:
        """Have Packer make the disk; return it as a raw one, and what is installed."""
        laid = lay_out(self.definition, self.said, start=start, options=self.options, work=self.work)
        cache = (self.options.cache_directory or self.work) / "packer"
        with storage_errors("making", cache):
            cache.mkdir(parents=True, exist_ok=True)
        packer = PackerRun(
            template=laid.template,
            variables=laid.variables,
            work=self.work,
            cache=cache,
            serial_log=laid.serial_log,
            provisioners=tuple(each.name for each in self.definition.provisioners),
        )
        packer.validate()
        packer.build(timeout_seconds=deadline - time.monotonic(), log=self.log)
        self.task.reach(2)
        self.task.note("reading the disk")
        disk, disk_format = made_disk(laid.output)
        raw = self.work / "made.raw"
        as_raw(disk, disk_format, raw, None if start is None else start.upon)
        disk.unlink()
        offset = settle(raw)
        check_key_is_gone(raw, laid.public_key)
        reading = self.work / "reading"
        with storage_errors("making", reading):
            reading.mkdir()
        return raw, installed_packages(raw, offset, reading)

    def _disk_start(self, path: Path, disk_format: DiskFormat, checksum: Checksum) -> Start:
        if not path.is_file():
            raise BuildError(f"there is no disk at {path}", resolution="Correct platform.qemu.disk, or build it anew.")
        if disk_format not in starting_formats():
            check_bytes(path, checksum)
            other, image = self.work / "parent.raw", self.options.ancestors[0].images[0]
            read_disk(image, other, timeout_seconds=self.options.timeout_seconds)
            path, disk_format, size = other, DiskFormat.RAW, image.image.virtual_size_bytes
        else:
            size = check_start(path, disk_format, checksum)
            if size > self.definition.disk_size_bytes:
                raise BuildError(
                    f"{self.definition.name}: the disk {path} has {size} bytes, more than build.disk-size",
                    resolution="Set build.disk-size to as much or more.",
                )
        place = self.work / "start.qcow2"
        checksum = lay_start(path, disk_format, size, place)
        return Start(address=str(place), checksum=str(checksum), is_disk=True, upon=(path.resolve(), disk_format))


def _qemu_version() -> str:
    said = run(["qemu-img", "--version"], timeout_seconds=_VERSION_SECONDS).text().split()
    return said[2].rstrip(",") if len(said) > 2 else json.dumps(said[:1])  # noqa: PLR2004 - qemu-img version N
