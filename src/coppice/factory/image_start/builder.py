# SPDX-License-Identifier: Apache-2.0
"""The builder ``image``: a finished image of Debian or Ubuntu, with what the definition adds, and without its identity.

The image is never started. Its tree is read, what is added is made as a layer over that, and the difference is written
into a copy of its disk: what did not change stays where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.bootstrap.changes import Script, capability_name, with_folders
from coppice.factory.bootstrap.disk import Names
from coppice.factory.bootstrap.dpkg import STATUS, read_packages
from coppice.factory.bootstrap.filesystem import Ext4
from coppice.factory.bootstrap.indices import index_inputs
from coppice.factory.bootstrap.layers import Stage, apply_layer
from coppice.factory.bootstrap.listing import OVERLAY, Kind, Listing, Node
from coppice.factory.bootstrap.overlay_model import Symlink
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.build_log import LOG_NAME, BuildLog
from coppice.factory.image_start.content import read_content
from coppice.factory.image_start.layer import ImageLayerMaker
from coppice.factory.image_start.overlay import overlay_of, packages_of, with_own
from coppice.factory.image_start.release import check_release
from coppice.factory.image_start.root import grow_root
from coppice.factory.image_start.supported import check_supported
from coppice.factory.image_start.taking import start_input, take_start
from coppice.factory.model import BuilderOutput
from coppice.factory.outputs import write_images
from coppice.factory.partition_table import find_root
from coppice.factory.provision.hook import prepare_provision
from coppice.factory.provision.inputs import provision_inputs
from coppice.factory.tool_versions import tool_versions
from coppice.factory.workplace import workplace
from coppice.process import find_tool

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.bootstrap.tree import Made
    from coppice.factory.image_start.content import StartContent
    from coppice.factory.model import BuildInput, BuildOptions, Package, StartDisk
    from coppice.factory.partition_table import Root
    from coppice.monitor import Monitor, Task

_NEEDED_TOOLS = (
    "unshare",
    "mmdebstrap",
    "tar",
    "zstd",
    "debugfs",
    "dumpe2fs",
    "e2fsck",
    "resize2fs",
    "sfdisk",
    "qemu-img",
)
_TOLD_TOOLS = ("mmdebstrap", "debugfs", "qemu-img")
_LAYER = 1


class ImageBuilder:
    """Builds appliances from finished images."""

    name = "image"
    version = "1"

    def build(self, definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
        """Make the images of ``definition`` as files in the empty directory ``into``.

        Raises:
            BuildError: The image could not be made, or the definition asks for what this builder does not do.
            DefinitionError: The definition contradicts itself.
            ProvisionError: A provisioner failed.
            ToolMissingError: A program that the builder needs is not installed.
            NoSpaceError: The disk is full.
            CoppiceError: What it starts from cannot be had, or was refused; the class says why.
        """
        check_supported(definition, options)
        for tool in _NEEDED_TOOLS:
            find_tool(tool)
        deadline = time.monotonic() + options.timeout_seconds
        with (
            monitor.task(f"building {definition.name}", total=4) as task,
            workplace(options.work_directory) as work,
            BuildLog(into / LOG_NAME, task.note) as log,
        ):
            start = take_start(definition, options, work, monitor)
            task.reach(1)
            run_of_it = _Run(definition=definition, options=options, work=work, start=start, task=task, log=log)
            packages, inputs = run_of_it.change()
            task.reach(3)
            task.note("compressing the image")
            images = write_images(start.raw, into, definition, deadline=deadline)
            task.reach(4)
        return BuilderOutput(
            images=images,
            packages=packages,
            tools=tool_versions(_TOLD_TOOLS),
            inputs=(start_input(start), *inputs, *provision_inputs(definition)),
            log=into / LOG_NAME,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    definition: Definition
    options: BuildOptions
    work: Path
    start: StartDisk
    task: Task
    log: BuildLog

    def change(self) -> tuple[tuple[Package, ...], tuple[BuildInput, ...]]:
        """Change the disk; return what is installed in it, and what went into it."""
        self.task.note("reading the image")
        root = self._sized(find_root(self.start.raw))
        content = read_content(self.start.raw, root, self.work)
        if not content.status:
            raise BuildError(
                f"{self.start.name} has no packages of Debian or Ubuntu in it",
                resolution="The image builder works on images of Debian and Ubuntu alone.",
            )
        check_release(self.definition, content.tree, self.start.name)
        suite = find_suite(self.definition.suite)
        suite = replace(suite, epoch=max(suite.epoch, content.epoch))
        self.task.note("installing packages")
        made = self._made(suite, content)
        self.task.reach(2)
        staging = self.work / "staging"
        staging.mkdir()
        overlay = overlay_of(self.definition)
        stage = Stage(staging, overlay.leaves_out, (STATUS,))
        after = apply_layer(content.listing, made.tar, epoch=suite.epoch, number=_LAYER, stage=stage)
        status = stage.kept.get(STATUS) or content.status
        self.task.note("writing the file system")
        self._write(root, content, self._finished(content.listing, after, stage, suite.epoch), stage, suite.epoch)
        installed = read_packages(status)
        lines = sources(suite, self.options.mirror, self.definition.snapshot)
        return installed, index_inputs(lines, (made,), self.options)

    def _sized(self, root: Root) -> Root:
        has, wanted = self.start.raw.stat().st_size, self.definition.disk_size_bytes
        if wanted < has:
            raise BuildError(
                f"{self.definition.name}: the disk of {self.start.name} has {has} bytes, more than build.disk-size",
                resolution=f"Set build.disk-size to {-(-has // 1024**2)} MiB or more.",
            )
        if wanted == has:
            return root
        self.task.note("making the disk larger")
        return grow_root(self.start.raw, root, wanted, work=self.work, epoch=find_suite(self.definition.suite).epoch)

    def _made(self, suite: Suite, content: StartContent) -> Made:
        ancestors = self.options.ancestors
        hook = prepare_provision(
            self.definition,
            parent=ancestors[0].definition if ancestors else None,
            directory=self.work / "provision",
            epoch=suite.epoch,
        )
        place = self.work / "making"
        place.mkdir()
        for directory in (self.work, place):
            directory.chmod(0o711)
        caches = self.options.cache_directory
        maker = ImageLayerMaker(
            suite=suite,
            sources=sources(suite, self.options.mirror, self.definition.snapshot),
            work=place,
            timeout_seconds=self.options.timeout_seconds,
            on_output=self.log.write,
            keyring=self.options.keyring,
            packages=None if caches is None else caches / "packages" / suite.family.value,
        )
        return maker.make_over(
            content.layer,
            packages_of(self.definition),
            None if hook is None else hook.command,
            (lambda: None) if hook is None else hook.raise_failure,
        )

    def _finished(self, before: Listing, changed: Listing, stage: Stage, epoch: int) -> Listing:
        overlay = overlay_of(self.definition)
        after = {
            path: node
            for path, node in with_own(self.definition, before, changed).items()
            if not overlay.leaves_out(path)
        }
        for path, entry in sorted(overlay.entries.items()):
            with_folders(after, path)
            if isinstance(entry, Symlink):
                after[path] = Node(kind=Kind.SYMLINK, mode=0o777, mtime=epoch, target=entry.target, layer=OVERLAY)
                continue
            after[path] = Node(
                kind=Kind.FILE,
                mode=entry.mode,
                mtime=epoch,
                size_bytes=len(entry.content),
                digest=stage.put(entry.content),
                layer=OVERLAY,
            )
        return after

    def _write(self, root: Root, content: StartContent, after: Listing, stage: Stage, epoch: int) -> None:
        def staged(name: str) -> Path:
            found = stage.find(name)
            if found is not None:
                return found
            _, _, capability = name.partition("-")
            if capability and name == capability_name(Node(kind=Kind.FILE, capability=capability)):
                return stage.put_as(name, bytes.fromhex(capability))
            # A further name of a file that another name had: the image itself has it.
            for path, node in content.listing.items():
                known = content.tree.get(path) if node.digest == name else None
                if known is not None:
                    stage.put(content.tree.content(known), name)
                    return self.work / "staging" / name
            raise BuildError(f"nothing has the content sha256:{name}")

        # By their names alone: debugfs is shut in, with the folder of all contents.
        script = Script(epoch, lambda name: Path(staged(name).name))
        script.change(content.listing, after)
        commands = self.work / "script"
        with storage_errors("writing", commands):
            commands.write_text(script.text(), encoding="utf-8", errors="surrogateescape")
        file_system = Ext4(
            disk=self.start.raw,
            offset_bytes=root.start_bytes,
            size_bytes=root.size_bytes,
            uuid=Names(self.definition.name).uuid("root"),
            epoch=epoch,
            contents=stage.directory,
        )
        file_system.change(commands)
        file_system.clear()
