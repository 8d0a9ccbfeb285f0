# SPDX-License-Identifier: Apache-2.0
"""From a tree's layers to a disk: whole, or as changes to the disk of its parent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.changes import EMPTY, Script, capability_name, with_folders
from coppice.factory.bootstrap.dpkg import STATUS
from coppice.factory.bootstrap.filesystem import Ext4, zero_written
from coppice.factory.bootstrap.layers import DISK, LISTING, Stage, apply_layer, find_content, layer_paths
from coppice.factory.bootstrap.listing import OVERLAY, Kind, Listing, Node, read_listing, write_listing
from coppice.factory.bootstrap.overlay import Overlay, Symlink, make_overlay
from coppice.factory.bootstrap.tree import BIOS_BOOT, BIOS_CORE, EFI_CORE
from coppice.factory.files import sha512_of
from coppice.factory.outputs import read_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.suites import Suite
    from coppice.factory.model import BuildResult

_BOOT = (BIOS_BOOT, BIOS_CORE, EFI_CORE)
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
    """

    definition: Definition
    suite: Suite
    tree: Path
    ancestors: tuple[BuildResult, ...]
    private_mirror: bool
    builder: str
    work: Path
    note: Callable[[str], None]
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
        self._stage = Stage(staging, _NEVER_KEPT.leaves_out, (STATUS, *_BOOT))
        self._raw = self.work / "disk.raw"
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
            disks.partition(self._raw, self.definition.disk_size_bytes, self._names)
            root.make()
        else:
            self._take_parents_disk()
        if parent is None or any(not after[path].same(before.get(path)) for path in _BOOT):
            self._write_boot_loader(after)
        root.change(commands)
        root.clear()
        write_listing(self.tree / LISTING, listing)
        write_listing(self.tree / DISK, after)
        return self._raw

    def content(self, path: str) -> bytes | None:
        """Return the content of one of the files that the build looks into; None: it is the parent's."""
        return self._stage.kept.get(path)

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
        overlay = make_overlay(self.definition, root_uuid=self._names.uuid("root"), private_mirror=self.private_mirror)
        missing = {STATUS, *_BOOT} - listing.keys()
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
        read_disk(image, self._raw, timeout_seconds=_READ_SECONDS)

    def _write_boot_loader(self, after: Listing) -> None:
        boot, core, efi_core = (self._staged(after[path].digest).read_bytes() for path in _BOOT)
        with storage_errors("writing", self._raw), self._raw.open("r+b") as stream:
            zero_written(stream.fileno(), disks.BIOS_START_BYTES, disks.ROOT_START_BYTES)
        disks.write_bios_boot(self._raw, boot, core)
        efi = self.work / "BOOTX64.EFI"
        with storage_errors("writing", efi):
            efi.write_bytes(efi_core)
            os.utime(efi, (self.suite.epoch, self.suite.epoch))
        disks.write_esp(self._raw, efi, self.suite.epoch, self._names)


def _kept(listing: Listing) -> Listing:
    return {path: node for path, node in listing.items() if not _NEVER_KEPT.leaves_out(path)}
