# SPDX-License-Identifier: Apache-2.0
"""From a tree's layers to a disk: whole, or as changes to the disk of its parent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.definition.model import FileSystemKind
from coppice.errors import BuildError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.boot_loader import BootLoader
from coppice.factory.bootstrap.btrfs import LONGEST_SECONDS, Btrfs
from coppice.factory.bootstrap.changes import EMPTY, Script, capability_name, with_folders
from coppice.factory.bootstrap.dpkg import STATUS
from coppice.factory.bootstrap.filesystem import Ext4
from coppice.factory.bootstrap.layers import DISK, LISTING, Stage, apply_layer, find_content, layer_paths
from coppice.factory.bootstrap.listing import OVERLAY, Kind, Listing, Node, read_listing, write_listing
from coppice.factory.bootstrap.overlay import Overlay, Symlink, make_overlay
from coppice.factory.files import sha512_of
from coppice.factory.outputs import read_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.model import BuildResult
    from coppice.factory.qcow2 import ReadQcow2

_READ_SECONDS = 600.0
_NEVER_KEPT = Overlay(entries={}, left_out=frozenset())


@dataclass(slots=True, kw_only=True)
class Assembly:
    """A disk on its way.

    Attributes:
        definition: What is built.
        suite: Its release.
        tree: The directory of its layers; the listings are written there.
        ancestors: What it is built upon, the nearest first.
        private_mirror: Whether the sources of its packages are left out.
        builder: Name of the builder, in the seed of all identifiers.
        work: A directory to work in.
        note: Called with what is going on.
        disk_directory: Where the disk is made; None: where everything is.
        like: Once it is made: the image whose disk it was made of; None: it was made from nothing, or of another kind.
        lays_over: Returns what is laid over the tree.
        record: Path of the file that says which packages are installed.
        deadline: When it has to be made, on the monotonic clock.
    """

    definition: Definition
    suite: Suite
    tree: Path
    ancestors: tuple[BuildResult, ...]
    private_mirror: bool
    builder: str
    work: Path
    note: Callable[[str], None]
    disk_directory: Path | None = None
    lays_over: Callable[..., Overlay] = make_overlay
    record: str = STATUS
    deadline: float = math.inf
    like: ReadQcow2 | None = field(init=False, default=None)
    _stage: Stage = field(init=False)
    _raw: Path = field(init=False)

    def make(self) -> Path:
        """Make the disk; return where it is.

        Raises:
            BuildError: It could not be made.
            NoSpaceError: The disk is full, or the one that is made too small.
        """
        staging = self.work / "staging"
        staging.mkdir()
        self._stage = Stage(staging, _NEVER_KEPT.leaves_out, (self.record, *self._loader.files))
        self._raw = (self.disk_directory or self.work) / "disk.raw"
        made = self._make_btrfs if self.definition.file_system is FileSystemKind.BTRFS else self._make_ext4
        listing, after = made()
        write_listing(self.tree / LISTING, listing)
        write_listing(self.tree / DISK, after)
        return self._raw

    def _make_ext4(self) -> tuple[Listing, Listing]:
        parent = self._parent_disk()
        self.note("reading the tree")
        script = Script(self.suite.epoch, self._staged)
        if parent is None:
            before, listing = self._change_from_nothing(script)
        else:
            before, listing = parent, self._read_last_layer()
        after = self._finished(listing)
        script.change(before, after)
        commands = self.work / "script"
        with storage_errors("writing", commands):
            commands.write_text(script.text(), encoding="utf-8", errors="surrogateescape")
        self.note("writing the file system")
        root = self._root()
        if parent is None:
            self._partition()
            root.make()
        else:
            self._take_parents_disk()
        if parent is None or self._has_other_loader(before, after):
            self._write_boot_loader(after)
        root.change(commands)
        root.clear()
        return listing, after

    def _make_btrfs(self) -> tuple[Listing, Listing]:
        # Nothing writes into such a file system from outside: a child's is made anew, too.
        self.note("reading the tree")
        listing = Listing()
        for number, layer in enumerate(layer_paths(self.tree)):
            listing = apply_layer(listing, layer, epoch=self.suite.epoch, number=number, stage=self._stage)
        after = self._finished(listing)
        for node in after.values():
            if node.kind is Kind.FILE:
                self._staged(node.digest)
        self.note("writing the file system")
        self._partition()
        self._write_boot_loader(after)
        work = self.work / "btrfs"
        with storage_errors("making", work):
            work.mkdir()
        root = Btrfs(
            disk=self._raw,
            offset_bytes=disks.ROOT_START_BYTES,
            size_bytes=disks.root_size_bytes(self.definition.disk_size_bytes),
            uuid=self._names.uuid("root"),
            epoch=self.suite.epoch,
            seconds=min(LONGEST_SECONDS, self.deadline - time.monotonic()),
        )
        root.make(after, self._stage.directory, work)
        return listing, after

    def _partition(self) -> None:
        processor = self.suite.processor
        disks.partition(
            self._raw,
            self.definition.disk_size_bytes,
            self._names,
            architecture=processor.architecture,
            has_bios=processor.has_bios,
        )

    def content(self, path: str) -> bytes | None:
        """Return the content of one of the files that the build looks into; None: it is the parent's."""
        return self._stage.kept.get(path)

    @property
    def _loader(self) -> BootLoader:
        return BootLoader(processor=self.suite.processor, is_secure=self.definition.boot.secure_boot)

    @property
    def _names(self) -> disks.Names:
        # Of one appliance, every version has the same names, and so has everything that is built upon it: they stand
        # all over the file system, whose blocks are to stay as they are.
        first = self.ancestors[-1].definition if self.ancestors else self.definition
        return disks.Names(f"{self.builder}/{first.name}/{first.variant}")

    def _root(self) -> Ext4:
        return Ext4(
            disk=self._raw,
            offset_bytes=disks.ROOT_START_BYTES,
            size_bytes=disks.root_size_bytes(self.definition.disk_size_bytes),
            uuid=self._names.uuid("root"),
            epoch=self.suite.epoch,
        )

    def _parent_disk(self) -> Listing | None:
        """Return what the parent's disk holds; None: this one has to be made from nothing."""
        if not self.ancestors:
            return None
        parent = self.ancestors[0]
        assert parent.tree is not None  # noqa: S101 - looked at before anything was built
        if parent.definition.disk_size_bytes != self.definition.disk_size_bytes:
            self.note("the disk has another size than the parent's: it is written anew")
            return None
        if parent.definition.file_system is not self.definition.file_system:
            self.note("the root has another file system than the parent's: it is written anew")
            return None
        return read_listing(parent.tree / DISK)

    def _change_from_nothing(self, script: Script) -> tuple[Listing, Listing]:
        # Layer by layer, so that what the first ones have lies where it lies in every other image built upon them.
        before, listing = EMPTY, Listing()
        for number, layer in enumerate(layer_paths(self.tree)):
            listing = apply_layer(listing, layer, epoch=self.suite.epoch, number=number, stage=self._stage)
            after = _kept(listing)
            script.change(before, after)
            before = after
        return before, listing

    def _read_last_layer(self) -> Listing:
        parent = self.ancestors[0].tree
        assert parent is not None  # noqa: S101 - looked at before anything was built
        layers = layer_paths(self.tree)
        listing = read_listing(parent / LISTING)
        if len(layers) == len(layer_paths(parent)):
            return listing
        last = len(layers) - 1
        return apply_layer(listing, layers[last], epoch=self.suite.epoch, number=last, stage=self._stage)

    def _finished(self, listing: Listing) -> Listing:
        overlay = self.lays_over(
            self.definition, root_uuid=self._names.uuid("root"), private_mirror=self.private_mirror
        )
        missing = {self.record, *self._loader.files} - {
            path for path, node in listing.items() if node.kind is Kind.FILE
        }
        if missing:
            raise BuildError(f"the tree lacks {', '.join(sorted(missing))}")
        after = {path: node for path, node in listing.items() if not overlay.leaves_out(path)}
        for path, entry in sorted(overlay.entries.items()):
            with_folders(after, path)
            if isinstance(entry, Symlink):
                after[path] = Node(
                    kind=Kind.SYMLINK, mode=0o777, mtime=self.suite.epoch, target=entry.target, layer=OVERLAY
                )
            else:
                after[path] = Node(
                    kind=Kind.FILE,
                    mode=entry.mode,
                    mtime=self.suite.epoch,
                    size_bytes=len(entry.content),
                    digest=self._stage.put(entry.content),
                    layer=OVERLAY,
                )
        return after

    def _staged(self, name: str) -> Path:
        """Return where the content with a sha256, or a capability, waits."""
        found = self._stage.find(name)
        if found is not None:
            return found
        prefix, _, capability = name.partition("-")
        if capability and name == capability_name(Node(kind=Kind.FILE, capability=capability)):
            return self._stage.put_as(name, bytes.fromhex(capability))
        # What an ancestor put there, and its disk did not show: a file under its overlay, a name that was another's.
        return find_content(self.tree, prefix, self._stage)

    def _take_parents_disk(self) -> None:
        self.note("taking over the parent's disk")
        image = self.ancestors[0].images[0]
        if not sha512_of(image.path).matches(image.image.checksum):
            raise BuildError(
                f"the parent's image {image.path} is not what it was when it was built",
                resolution=f"Build it anew: coppice build {self.ancestors[0].definition.name} --fresh.",
            )
        self.like = read_disk(image, self._raw, timeout_seconds=_READ_SECONDS, remembers=True)

    def _has_other_loader(self, before: Listing, after: Listing) -> bool:
        # A child may have its parent's packages, and yet start otherwise.
        parent = self.ancestors[0].definition
        return parent.boot.secure_boot is not self.definition.boot.secure_boot or any(
            not after[path].same(before.get(path)) for path in self._loader.files
        )

    def _write_boot_loader(self, after: Listing) -> None:
        self._loader.write(
            self._raw,
            lambda path: self._staged(after[path].digest).read_bytes(),
            names=self._names,
            epoch=self.suite.epoch,
            work=self.work,
        )


def _kept(listing: Listing) -> Listing:
    return {path: node for path, node in listing.items() if not _NEVER_KEPT.leaves_out(path)}
