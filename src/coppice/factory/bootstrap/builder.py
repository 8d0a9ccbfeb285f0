# SPDX-License-Identifier: Apache-2.0
"""The builder ``bootstrap``: a distribution from its packages into a disk image that boots under BIOS and UEFI.

A child starts from its parent's tree and its parent's disk: what it does not change is not made again, and its blocks
stay where they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

from coppice.definition.model import FileSystemKind
from coppice.factory.bootstrap.assembly import Assembly
from coppice.factory.bootstrap.btrfs import TOOLS as BTRFS_TOOLS
from coppice.factory.bootstrap.dpkg import STATUS, read_packages
from coppice.factory.bootstrap.indices import index_inputs
from coppice.factory.bootstrap.layers import adopt_layers, keep_layer, layer_name, layer_paths
from coppice.factory.bootstrap.overlay import packages_for
from coppice.factory.bootstrap.parents import obtain_parent, parent_key
from coppice.factory.bootstrap.rpm_releases import is_rpm_release
from coppice.factory.bootstrap.suites import bootstrapper_version, find_suite, sources
from coppice.factory.bootstrap.supported import check_supported
from coppice.factory.bootstrap.tree import TreeMaker
from coppice.factory.build_log import LOG_NAME, BuildLog
from coppice.factory.files import keys_of
from coppice.factory.model import BuilderOutput, BuildInput
from coppice.factory.outputs import write_images
from coppice.factory.provision.hook import prepare_provision
from coppice.factory.provision.inputs import provision_inputs
from coppice.factory.tool_versions import tool_versions
from coppice.factory.workplace import workplace
from coppice.model.image import DiskFormat
from coppice.process import find_tool

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.bootstrap.tree import Made
    from coppice.factory.model import BuildOptions, Package
    from coppice.factory.qcow2 import ReadQcow2
    from coppice.monitor import Monitor, Task

TREE = "tree"
_NEEDED_TOOLS = (
    "unshare",
    "mmdebstrap",
    "tar",
    "zstd",
    "sfdisk",
    "mkfs.vfat",
    "mmd",
    "mcopy",
    "qemu-img",
)
_EXT4_TOOLS = ("mke2fs", "debugfs", "dumpe2fs", "e2fsck")
_GRUB_MODULES = {FileSystemKind.BTRFS: ("btrfs",)}


class BootstrapBuilder:
    """Builds appliances of Debian and Ubuntu with mmdebstrap, and of the RPM family with dnf."""

    name = "bootstrap"
    version = "3"

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Make the images of ``definition`` as files in the empty directory ``into``.

        Raises:
            BuildError: The image could not be made, or the definition asks for what this builder does not do.
            DefinitionError: The definition contradicts itself.
            ProvisionError: A provisioner failed.
            ToolMissingError: A program that the builder needs is not installed.
            NoSpaceError: The disk is full.
        """
        if is_rpm_release(definition.suite):
            from coppice.factory.bootstrap.rpm_builder import build_rpm

            return build_rpm(definition, into, options, monitor)
        check_supported(definition, options)
        is_btrfs = definition.file_system is FileSystemKind.BTRFS
        for tool in (*_NEEDED_TOOLS, *(BTRFS_TOOLS if is_btrfs else _EXT4_TOOLS)):
            find_tool(tool)
        deadline = time.monotonic() + options.timeout_seconds
        with (
            monitor.task(f"building {definition.name}", total=4) as task,
            workplace(options.work_directory) as work,
            BuildLog(into / LOG_NAME, task.note) as log,
        ):
            run_of_it = _Run(definition=definition, into=into, options=options, work=work, task=task, log=log)
            inputs = run_of_it.make_tree(f"{self.name} {self.version}")
            task.reach(1)
            raw, packages, like = run_of_it.make_disk(self.name, deadline=deadline)
            task.reach(3)
            task.note("compressing the image")
            images = write_images(raw, into, definition, deadline=deadline, like=like)
            task.reach(4)
        return BuilderOutput(
            images=images,
            packages=packages,
            tools=_tool_versions("mkfs.btrfs" if is_btrfs else "mke2fs"),
            inputs=inputs,
            tree=into / TREE,
            log=into / LOG_NAME,
            # Writing a qcow2 ends with reading it back.
            disk=raw if options.disk_directory is not None and definition.formats[0] is DiskFormat.QCOW2 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    definition: Definition
    into: Path
    options: BuildOptions
    work: Path
    task: Task
    log: BuildLog

    @property
    def suite(self) -> Suite:
        return find_suite(self.definition.suite, self.definition.operating_system.architecture)

    @property
    def tree(self) -> Path:
        return self.into / TREE

    @property
    def is_private(self) -> bool:
        """Whether the image keeps to itself where its packages came from."""
        return self.options.mirror is not None or bool(self.definition.snapshot)

    def make_tree(self, builder: str) -> tuple[BuildInput, ...]:
        """Make the tree's layers; return what went into them."""
        maker = self._maker(builder)
        made: list[Made] = []
        ancestors = self.options.ancestors
        if ancestors and ancestors[0].tree is not None:
            adopt_layers(ancestors[0].tree, self.tree)
            parent = ancestors[0].images[0].image.checksum
            inputs = [BuildInput(name=f"parent {ancestors[0].definition.name}", uri="", digest=str(parent))]
        else:
            self._take_base(maker, builder, made)
            inputs = []
        packages = packages_for(self.definition)
        hook = prepare_provision(
            self.definition,
            parent=ancestors[0].definition if ancestors else None,
            directory=self.work / "provision",
            epoch=self.suite.epoch,
        )
        if not made or set(packages) - set(self.suite.base_packages) or hook is not None:
            self.task.note("installing packages")
            before = layer_paths(self.tree)
            last = maker.make_child(
                before,
                packages,
                None if hook is None else hook.command,
                (lambda: None) if hook is None else hook.raise_failure,
            )
            made.append(last)
            keep_layer(last.tar, self.tree / layer_name(len(before)))
            last.tar.unlink()
        lines = sources(self.suite, self.options.mirror, self.definition.snapshot)
        return (*inputs, *index_inputs(lines, made, self.options), *provision_inputs(self.definition))

    def make_disk(self, builder: str, *, deadline: float) -> tuple[Path, tuple[Package, ...], ReadQcow2 | None]:
        """Make the disk of the tree; return it, what is installed, and the image that it was made of."""
        assembly = Assembly(
            definition=self.definition,
            suite=self.suite,
            tree=self.tree,
            ancestors=self.options.ancestors,
            private_mirror=self.is_private,
            builder=builder,
            work=self.work,
            note=self.task.note,
            disk_directory=self.options.disk_directory,
            deadline=deadline,
        )
        raw = assembly.make()
        status = assembly.content(STATUS)
        if status is None:
            return raw, self.options.ancestors[0].packages, assembly.like
        return raw, read_packages(status), assembly.like

    def _take_base(self, maker: TreeMaker, builder: str, made: list[Made]) -> None:
        def make(layer: Path) -> None:
            self.task.note("installing the base packages")
            made.append(maker.make_base())
            keep_layer(made[0].tar, layer)
            made[0].tar.unlink()

        base, _ = obtain_parent(
            self.options.cache_directory or self.work / "parents",
            parent_key(self.suite, maker.sources, builder, keys_of(self.options.keyring)),
            make,
            on_wait=lambda: self.task.note("another build is making the same tree; waiting for it"),
        )
        adopt_layers(base, self.tree)

    def _maker(self, builder: str) -> TreeMaker:
        lines = sources(self.suite, self.options.mirror, self.definition.snapshot)
        place = self.work / "making"
        place.mkdir()
        for directory in (self.work, place):
            directory.chmod(0o711)
        caches = self.options.cache_directory
        return TreeMaker(
            suite=self.suite,
            sources=lines,
            work=place,
            timeout_seconds=self.options.timeout_seconds,
            on_output=self.log.write,
            keyring=self.options.keyring,
            packages=None if caches is None else caches / "packages" / self.suite.family.value,
            lists=None if caches is None else caches / "lists" / parent_key(self.suite, lines, builder)[:16],
            root_modules=_GRUB_MODULES.get(self.definition.file_system, ()),
        )


def _tool_versions(maker: str) -> tuple[tuple[str, str], ...]:
    # Of libzstd, which compresses images, other versions make other bytes.
    own = (("mmdebstrap", bootstrapper_version()), ("libzstd", ".".join(map(str, zstandard.ZSTD_VERSION))))
    return (own[0], *tool_versions((maker, "qemu-img")), own[1])
