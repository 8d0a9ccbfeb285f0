# SPDX-License-Identifier: Apache-2.0
"""The builder ``bootstrap``: Debian from its packages into a disk image that boots under BIOS and UEFI."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.filesystem import Ext4, Population
from coppice.factory.bootstrap.overlay import check_definition, make_overlay, packages_for
from coppice.factory.bootstrap.parents import obtain_parent, parent_key
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.bootstrap.tree import BIOS_BOOT, BIOS_CORE, EFI_CORE, TreeMaker
from coppice.factory.files import describe_image, qemu_format
from coppice.factory.model import BuilderOutput, Package
from coppice.factory.workplace import workplace
from coppice.model.image import DiskFormat
from coppice.process import find_tool, run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.model import BuildOptions, BuiltImage
    from coppice.monitor import Monitor, Task

_STATUS = "/var/lib/dpkg/status"
_NEEDED_TOOLS = (
    "unshare",
    "mmdebstrap",
    "mke2fs",
    "debugfs",
    "e2fsck",
    "sfdisk",
    "mkfs.vfat",
    "mmd",
    "mcopy",
    "qemu-img",
)
_VERSIONS = (
    ("mmdebstrap", ("mmdebstrap", "--version")),
    ("mke2fs", ("mke2fs", "-V")),
    ("qemu-img", ("qemu-img", "--version")),
)
_FORMATS = {DiskFormat.QCOW2: ("-c", "-o", "compression_type=zstd"), DiskFormat.RAW: ()}
_VERSION_SECONDS = 30.0


class BootstrapBuilder:
    """Builds Debian appliances with mmdebstrap."""

    name = "bootstrap"
    version = "1"

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Make the images of ``definition`` as files in the empty directory ``into``.

        Raises:
            BuildError: The image could not be made.
            ToolMissingError: A program that the builder needs is not installed.
            NoSpaceError: The disk is full.
        """
        suite = find_suite(definition.suite)
        _check(definition)
        for tool in _NEEDED_TOOLS:
            find_tool(tool)
        deadline = time.monotonic() + options.timeout_seconds
        with monitor.task(f"building {definition.name}", total=4) as task, workplace(options.work_directory) as work:
            tree = self._tree(definition, suite, options, work, task)
            task.reach(1)
            private = options.mirror is not None
            raw, packages = self._disk(definition, suite, private_mirror=private, tree=tree, work=work, task=task)
            task.reach(3)
            task.note("compressing the image")
            images = tuple(
                _convert(raw, into, definition, disk_format, deadline - time.monotonic())
                for disk_format in definition.formats
            )
            task.reach(4)
        return BuilderOutput(images=images, packages=packages, tools=_tool_versions())

    def _tree(self, definition: Definition, suite: Suite, options: BuildOptions, work: Path, task: Task) -> Path:
        lines = sources(suite, options.mirror)
        key = parent_key(suite, lines, f"{self.name} {self.version}")
        trees = work / "trees"
        trees.mkdir()
        # mmdebstrap's helpers change to other users, who must be able to reach their own tree.
        for directory in (work, trees):
            directory.chmod(0o711)
        maker = TreeMaker(
            suite=suite, sources=lines, work=trees, timeout_seconds=options.timeout_seconds, on_line=task.note
        )
        parent, made_now = obtain_parent(
            options.cache_directory or work / "parents",
            key,
            maker.make_parent,
            on_wait=lambda: task.note("another build is making the same tree; waiting for it"),
        )
        packages = packages_for(definition)
        if made_now and not packages:
            return parent
        child = work / "tree.tar"
        maker.make_child(parent, packages, child)
        return child

    def _disk(
        self, definition: Definition, suite: Suite, *, private_mirror: bool, tree: Path, work: Path, task: Task
    ) -> tuple[Path, tuple[Package, ...]]:
        names = disks.Names(f"{self.name}/{self.version}/{definition.digest()}")
        overlay = make_overlay(definition, root_uuid=names.uuid("root"), private_mirror=private_mirror)
        task.note("reading the tree")
        staging = work / "staging"
        staging.mkdir()
        population = Population(staging=staging, epoch=suite.epoch)
        population.add_tree(tree, overlay, keep=(_STATUS, BIOS_BOOT, BIOS_CORE, EFI_CORE))
        missing = {_STATUS, BIOS_BOOT, BIOS_CORE, EFI_CORE} - population.kept.keys()
        if missing:
            raise BuildError(f"the tree lacks {', '.join(sorted(missing))}")
        population.write_script(work / "script")
        task.reach(2)
        task.note("writing the file system")
        raw = work / "disk.raw"
        disks.partition(raw, definition.disk_size_bytes, names)
        disks.write_bios_boot(raw, population.kept[BIOS_BOOT], population.kept[BIOS_CORE])
        efi = work / "BOOTX64.EFI"
        with storage_errors("writing", efi):
            efi.write_bytes(population.kept[EFI_CORE])
            os.utime(efi, (suite.epoch, suite.epoch))
        disks.write_esp(raw, efi, suite.epoch, names)
        root = Ext4(
            disk=raw,
            offset_bytes=disks.ROOT_START_BYTES,
            size_bytes=disks.root_size_bytes(definition.disk_size_bytes),
            uuid=names.uuid("root"),
            epoch=suite.epoch,
        )
        root.make()
        root.fill(work / "script")
        return raw, read_packages(population.kept[_STATUS])


def read_packages(status: bytes) -> tuple[Package, ...]:
    """Return the installed packages of a dpkg ``status`` file, by name.

    Raises:
        BuildError: It is not such a file, or a package is only half installed.
    """
    packages: list[Package] = []
    for paragraph in re.split(r"\n\n+", status.decode("utf-8", errors="replace").strip()):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, flags=re.MULTILINE))
        state = fields.get("Status", "")
        if state.endswith((" config-files", " not-installed")):
            continue
        if not state.endswith(" ok installed") or not {"Package", "Version", "Architecture"} <= fields.keys():
            raise BuildError(f"the package {fields.get('Package', '?')} is not properly installed", details=state)
        packages.append(Package(name=fields["Package"], version=fields["Version"], architecture=fields["Architecture"]))
    return tuple(sorted(packages, key=lambda package: (package.name, package.architecture)))


def _check(definition: Definition) -> None:
    if definition.operating_system.architecture != "x86_64":
        raise BuildError(f"the bootstrap builder builds for x86_64, not for {definition.operating_system.architecture}")
    unknown = [disk_format.value for disk_format in definition.formats if disk_format not in _FORMATS]
    if unknown:
        raise BuildError(
            f"the bootstrap builder does not write {', '.join(unknown)}",
            resolution=f"Set build.formats to some of: {', '.join(_FORMATS)}. Subscribers convert to what they need.",
        )
    check_definition(definition)


def _convert(raw: Path, into: Path, definition: Definition, disk_format: DiskFormat, seconds: float) -> BuiltImage:
    path = into / f"{definition.name}.{disk_format.value}"
    argv: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", qemu_format(disk_format)]
    # Without -W: writing out of order is quicker, but no two runs then give the same bytes.
    argv += [*_FORMATS[disk_format], "--", raw, path]
    try:
        run(argv, timeout_seconds=max(1.0, seconds))
    except ToolFailedError as problem:
        raise BuildError(f"writing {path.name} failed: {problem.message}", details=problem.details) from problem
    return describe_image(path, disk_format)


def _tool_versions() -> tuple[tuple[str, str], ...]:
    found = []
    for tool, argv in _VERSIONS:
        completed = run(argv, timeout_seconds=_VERSION_SECONDS)
        version = re.search(r"\d+(?:\.\d+)+\S*", completed.combined)
        found.append((tool, version[0].rstrip(",)") if version else "unknown"))
    return tuple(found)
