# SPDX-License-Identifier: Apache-2.0
"""Build an appliance of the RPM family: from a release's packages to a disk image that boots under BIOS and UEFI."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.assembly import Assembly
from coppice.factory.bootstrap.filesystem import Ext4
from coppice.factory.bootstrap.layers import DISK, adopt_layers, keep_layer, layer_name, layer_paths
from coppice.factory.bootstrap.listing import read_listing
from coppice.factory.bootstrap.parents import obtain_parent
from coppice.factory.bootstrap.rpm_keys import find_keys
from coppice.factory.bootstrap.rpm_labels import (
    CONTEXTS,
    POLICY_SETTINGS,
    SUBSTITUTES,
    Labels,
    label_script,
    labels_of,
    policy_folder,
)
from coppice.factory.bootstrap.rpm_overlay import make_rpm_overlay, rpm_packages_for
from coppice.factory.bootstrap.rpm_releases import find_release
from coppice.factory.bootstrap.rpm_repositories import repositories
from coppice.factory.bootstrap.rpm_supported import check_rpm_supported
from coppice.factory.bootstrap.rpm_tree import RpmTreeMaker
from coppice.factory.bootstrap.suites import Suite
from coppice.factory.build_log import LOG_NAME, BuildLog
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.rpm_database import packages_of, read_headers
from coppice.factory.model import BuilderOutput, BuildInput
from coppice.factory.outputs import write_images
from coppice.factory.provision.hook import prepare_provision
from coppice.factory.provision.inputs import provision_inputs
from coppice.factory.tool_versions import tool_versions
from coppice.factory.workplace import workplace
from coppice.process import find_tool

if TYPE_CHECKING:
    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.listing import Listing
    from coppice.factory.bootstrap.rpm_releases import RpmRelease
    from coppice.factory.bootstrap.tree import Made
    from coppice.factory.model import BuildOptions, Package
    from coppice.factory.qcow2 import ReadQcow2
    from coppice.monitor import Monitor, Task

TREE = "tree"
_NEEDED_TOOLS = (
    "unshare",
    "dnf",
    "rpm",
    "rpmkeys",
    "tar",
    "zstd",
    "mke2fs",
    "debugfs",
    "dumpe2fs",
    "e2fsck",
    "sfdisk",
    "mkfs.vfat",
    "mmd",
    "mcopy",
    "qemu-img",
)
_TOLD_TOOLS = ("dnf", "rpm", "qemu-img")
BUILDER = "bootstrap-rpm 1"
"""What decides, beside the definition and the packages, what comes out."""


def build_rpm(definition: Definition, into: Path, options: BuildOptions, monitor: Monitor) -> BuilderOutput:
    """Make the images of ``definition``, which is of the RPM family, in the empty directory ``into``.

    Raises:
        BuildError: The image could not be made, or the definition asks for what this builder does not do.
        DefinitionError: The definition contradicts itself.
        ProvisionError: A provisioner failed.
        ToolMissingError: A program that the builder needs is not installed.
        NoSpaceError: The disk is full.
    """
    check_rpm_supported(definition, options)
    for tool in _NEEDED_TOOLS:
        find_tool(tool)
    release = find_release(definition.suite)
    keys = find_keys(release, options.keyring)
    deadline = time.monotonic() + options.timeout_seconds
    with (
        monitor.task(f"building {definition.name}", total=4) as task,
        workplace(options.work_directory) as work,
        BuildLog(into / LOG_NAME, task.note) as log,
    ):
        building = _Building(
            definition=definition,
            release=release,
            keys=keys,
            into=into,
            options=options,
            work=work,
            task=task,
            log=log,
        )
        inputs = building.make_tree()
        task.reach(1)
        raw, packages, like = building.make_disk()
        task.reach(3)
        task.note("compressing the image")
        images = write_images(raw, into, definition, deadline=deadline, like=like)
        task.reach(4)
    return BuilderOutput(
        images=images,
        packages=packages,
        tools=tool_versions(_TOLD_TOOLS),
        inputs=inputs,
        tree=into / TREE,
        log=into / LOG_NAME,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Building:
    definition: Definition
    release: RpmRelease
    keys: str
    into: Path
    options: BuildOptions
    work: Path
    task: Task
    log: BuildLog

    @property
    def tree(self) -> Path:
        return self.into / TREE

    @property
    def suite(self) -> Suite:
        """The release as those parts know it that all families share."""
        return Suite(name=self.release.name, epoch=self.release.epoch, processor=self.release.processor)

    @property
    def repositories(self) -> tuple[tuple[str, str], ...]:
        return repositories(self.release, self.options.mirror, self.definition.snapshot)

    def make_tree(self) -> tuple[BuildInput, ...]:
        """Make the tree's layers; return what went into them."""
        maker = self._maker()
        made: list[Made] = []
        ancestors = self.options.ancestors
        if ancestors and ancestors[0].tree is not None:
            adopt_layers(ancestors[0].tree, self.tree)
            parent = ancestors[0].images[0].image.checksum
            inputs = [BuildInput(name=f"parent {ancestors[0].definition.name}", uri="", digest=str(parent))]
        else:
            self._take_base(maker, made)
            inputs = []
        packages = rpm_packages_for(self.definition)
        hook = prepare_provision(
            self.definition,
            parent=ancestors[0].definition if ancestors else None,
            directory=self.work / "provision",
            epoch=self.release.epoch,
        )
        if not made or set(packages) - set(self.release.packages) or hook is not None:
            self.task.note("installing packages")
            before = layer_paths(self.tree)
            last = maker.make_layer(
                before,
                packages,
                () if hook is None else hook.words,
                (lambda: None) if hook is None else hook.raise_failure,
            )
            made.append(last)
            keep_layer(last.tar, self.tree / layer_name(len(before)))
            last.tar.unlink()
        return (*inputs, *self._index_inputs(made), *provision_inputs(self.definition))

    def make_disk(self) -> tuple[Path, tuple[Package, ...], ReadQcow2 | None]:
        """Make the disk of the tree; return it, what is installed, and the image that it was made of."""
        assembly = Assembly(
            definition=self.definition,
            suite=self.suite,
            tree=self.tree,
            ancestors=self.options.ancestors,
            private_mirror=self.options.mirror is not None,
            builder="bootstrap",
            work=self.work,
            note=self.task.note,
            lays_over=make_rpm_overlay,
            record=self.release.record,
        )
        raw = assembly.make()
        self.task.note("writing SELinux labels")
        write_labels(
            Ext4(
                disk=raw,
                offset_bytes=disks.ROOT_START_BYTES,
                size_bytes=disks.root_size_bytes(self.definition.disk_size_bytes),
                uuid=disks.Names("").uuid("root"),
                epoch=self.release.epoch,
            ),
            read_listing(self.tree / DISK),
            self.work / "labels",
        )
        record = assembly.content(self.release.record)
        if record is None:
            return raw, self.options.ancestors[0].packages, assembly.like
        return raw, packages_of(read_headers(record)), assembly.like

    def _take_base(self, maker: RpmTreeMaker, made: list[Made]) -> None:
        def make(layer: Path) -> None:
            self.task.note("installing the base packages")
            made.append(maker.make_base())
            keep_layer(made[0].tar, layer)
            made[0].tar.unlink()

        base, _ = obtain_parent(
            self.options.cache_directory or self.work / "parents",
            base_key(self.release, self.repositories, self.keys),
            make,
            on_wait=lambda: self.task.note("another build is making the same tree; waiting for it"),
        )
        adopt_layers(base, self.tree)

    def _maker(self) -> RpmTreeMaker:
        place = self.work / "making"
        place.mkdir()
        for directory in (self.work, place):
            directory.chmod(0o711)
        caches = self.options.cache_directory
        return RpmTreeMaker(
            suite=self.suite,
            sources=(),
            work=place,
            timeout_seconds=self.options.timeout_seconds,
            on_output=self.log.write,
            release=self.release,
            repositories=self.repositories,
            keys=self.keys,
            kept=None if caches is None else caches / "packages" / self.release.name,
        )

    def _index_inputs(self, made: list[Made]) -> tuple[BuildInput, ...]:
        found: dict[str, BuildInput] = {}
        for name, address in self.repositories:
            for each in made:
                if name in each.indices:
                    # The address of a site's own mirror is nobody else's affair.
                    uri = "" if self.options.mirror is not None else f"{address}repodata/repomd.xml"
                    found[name] = BuildInput(name=f"index {name}", uri=uri, digest=f"sha256:{each.indices[name]}")
        return tuple(found.values())


def write_labels(file_system: Ext4, listing: Listing, work: Path) -> None:
    """Label all that is in ``file_system`` as its own SELinux policy says, where it has one.

    Args:
        file_system: The root.
        listing: What is in it.
        work: A new directory to work in.

    Raises:
        BuildError: The policy cannot be read, or a label not written.
    """
    with storage_errors("making", work):
        work.mkdir()
    disk = Ext4Disk(file_system.disk, file_system.offset_bytes, work)
    tree = disk.tree()
    folder = policy_folder(tree.text(POLICY_SETTINGS))
    if folder is None or tree.find(f"{folder}/{CONTEXTS[0]}") is None:
        return
    texts, aliases = ([tree.text(f"{folder}/{name}") or "" for name in names] for names in (CONTEXTS, SUBSTITUTES))
    found = labels_of(listing, Labels(texts, aliases))
    files = {label: str(work / f"label-{number}") for number, label in enumerate(sorted(set(found.values())))}
    script = work / "script"
    with storage_errors("writing", work):
        for label, place in files.items():
            Path(place).write_bytes(label.encode() + b"\0")
        script.write_text(label_script(found, files), encoding="utf-8", errors="surrogateescape")
    file_system.change(script)


def base_key(release: RpmRelease, found: tuple[tuple[str, str], ...], keys: str) -> str:
    """Return the sha256 of all that decides a base tree's content, but for the day it was made."""
    said = {
        "release": release.name,
        "epoch": release.epoch,
        "repositories": found,
        "packages": release.packages,
        "keys": keys,
        "builder": BUILDER,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
