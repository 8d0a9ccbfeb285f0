# SPDX-License-Identifier: Apache-2.0
"""A btrfs file system inside a disk image, made of a listing and contents without mounting it.

``mkfs.btrfs`` fills it from a tree that stands in memory, in namespaces of its own. What it leaves to chance is then
settled, and what came out is read back: whatever it lost is an error.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, NoSpaceError, ToolFailedError, ToolTimeoutError
from coppice.factory.bootstrap.btrfs_inside import Filling
from coppice.factory.bootstrap.btrfs_settled import Identity, settle
from coppice.factory.bootstrap.listing import Kind, write_listing
from coppice.factory.bootstrap.room import room_in_memory
from coppice.factory.bootstrap.tree import advice, last_complaint, own_namespaces
from coppice.factory.evidence.btrfs import CAPABILITY, BtrfsDisk
from coppice.factory.evidence.btrfs_nodes import FIRST_INODE
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.bootstrap.listing import Listing, Node
    from coppice.factory.evidence.btrfs import Inode

TOOLS = ("mkfs.btrfs", "btrfs")
_INSIDE = "coppice.factory.bootstrap.btrfs_inside"
LONGEST_SECONDS = 86400.0
"""For the making of one, where nobody says less."""
_LIST_SECONDS = 60.0
_NAMESPACE_SECONDS = 30.0
_PAGE_BYTES = 4096
_SPARE_BYTES = 64 * 1024**2
_MOST_TOLD = 20
_COPY_BYTES = 1024**2
_KINDS = {Kind.DIRECTORY: stat.S_IFDIR, Kind.FILE: stat.S_IFREG, Kind.SYMLINK: stat.S_IFLNK}
_DEFAULT_FEATURE = re.compile(r"^([a-z0-9-]+) .*\bdefault=", re.MULTILINE)
# What every kernel has that these releases have; GRUB reads it, too.
_FEATURES = ("extref", "skinny-metadata", "no-holes", "free-space-tree")
_FULL = re.compile(r"No space left on device|not enough (?:free )?space|too small|ENOSPC", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Btrfs:
    """A btrfs file system in a disk image.

    Attributes:
        disk: The disk image, with nothing written where the file system is to be.
        offset_bytes: Where it starts.
        size_bytes: How long it is.
        uuid: Its name; the names of its parts follow from it.
        epoch: Seconds since 1970: no file is younger, and the file system is that old.
        seconds: How long the making of it may take.
    """

    disk: Path
    offset_bytes: int
    size_bytes: int
    uuid: uuid.UUID
    epoch: int
    seconds: float = LONGEST_SECONDS

    def make(self, listing: Listing, contents: Path, work: Path) -> None:
        """Make it, with all that ``listing`` says in it.

        Args:
            listing: What is in it.
            contents: Directory with the content of each file, by its sha256.
            work: An existing, empty directory.

        Raises:
            BuildError: It could not be made, or does not hold what it should.
            NoSpaceError: It is too small for what is in it, or the memory for the tree.
            StorageError: The disk failed.
        """
        deadline = time.monotonic() + self.seconds
        image = work / "root.btrfs"
        with storage_errors("making", image):
            work.chmod(0o711)
            with image.open("xb") as stream:
                stream.truncate(self.size_bytes)
        self._fill(image, listing, contents, work, deadline)
        if image.stat().st_size != self.size_bytes:
            # It made itself room.
            raise self._too_small(f"mkfs.btrfs made it {image.stat().st_size} bytes long")
        settle(image, self._identity)
        try:
            run(["btrfs", "check", "--readonly", image], timeout_seconds=_left(deadline))
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise _failed("the root file system is not clean", problem) from problem
        check_filled(BtrfsDisk(image, 0), listing)
        with storage_errors("writing", self.disk):
            copy_written(image, self.disk, self.offset_bytes)
            image.unlink()

    @property
    def _identity(self) -> Identity:
        device, chunks, files = (uuid.uuid5(self.uuid, part) for part in ("device", "chunks", "files"))
        return Identity(device=device, chunks=chunks, files=files, epoch=self.epoch)

    def _fill(self, image: Path, listing: Listing, contents: Path, work: Path, deadline: float) -> None:
        space, facts = work / "space", work / "listing"
        with storage_errors("making", space):
            space.mkdir()
        write_listing(facts, listing)
        filling = Filling(
            space=str(space),
            memory_bytes=_memory_for(listing),
            listing=str(facts),
            contents=str(contents),
            command=("mkfs.btrfs", "-q", "-L", "root", "-U", str(self.uuid), *_features(), "--rootdir"),
            image=str(image),
            seconds=_left(deadline),
        )
        argv = [*own_namespaces(is_mapped=os.geteuid() != 0), sys.executable, "-P", "-m", _INSIDE]
        try:
            # The time is up in there first, so that what took too long is told.
            run(argv, timeout_seconds=filling.seconds + _NAMESPACE_SECONDS, input_bytes=filling.document())
        except (ToolFailedError, ToolTimeoutError) as problem:
            if _FULL.search(problem.details or ""):
                raise self._too_small(problem.details) from problem
            raise _failed("making the root file system failed", problem) from problem

    def _too_small(self, details: str | None) -> NoSpaceError:
        return NoSpaceError(
            f"the root file system of {self.size_bytes} bytes is too small for what is in it",
            details=details,
            resolution="Give the appliance a larger build.disk-size.",
        )


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _failed(what: str, problem: ToolFailedError | ToolTimeoutError) -> BuildError:
    complaint = last_complaint(problem)
    return BuildError(
        f"{what}: {complaint}", details=problem.details, resolution=advice(complaint, problem.details or "")
    )


def _memory_for(listing: Listing) -> int:
    """Return how much memory the tree takes.

    Raises:
        NoSpaceError: There is not that much.
    """
    needed = _SPARE_BYTES + sum(
        -(-max(node.size_bytes, len(node.target)) // _PAGE_BYTES) * _PAGE_BYTES
        for node in listing.values()
        if node.kind in {Kind.FILE, Kind.SYMLINK}
    )
    room = room_in_memory(always=True)
    if needed > room:
        raise NoSpaceError(
            f"a root of btrfs is made of a tree in memory, which takes {needed} bytes; {room} may be taken",
            resolution="Build it where more memory is free, or set build.file-system to ext4.",
        )
    return needed


def _features() -> tuple[str, ...]:
    """Return what leaves out the features that only newer kernels read."""
    try:
        said = run(["mkfs.btrfs", "-O", "list-all"], timeout_seconds=_LIST_SECONDS).combined
    except (ToolFailedError, ToolTimeoutError) as problem:
        raise _failed("mkfs.btrfs does not say what it can", problem) from problem
    left_out = [f"^{name}" for name in _DEFAULT_FEATURE.findall(said) if name not in _FEATURES]
    return ("-O", ",".join(left_out)) if left_out else ()


def copy_written(source: Path, target: Path, offset_bytes: int) -> None:
    """Copy what is written of ``source`` to that place of ``target``; where nothing is written, nothing is.

    Raises:
        OSError: One of them failed.
    """
    with source.open("rb") as reader, target.open("r+b") as writer:
        end, at = os.fstat(reader.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(reader.fileno(), at, os.SEEK_DATA)
            except OSError as problem:
                if problem.errno != errno.ENXIO:
                    raise
                # Nothing more is written.
                return
            stop = os.lseek(reader.fileno(), at, os.SEEK_HOLE)
            while at < stop:
                # Not by copy_file_range: the disk may be made in another file system.
                piece = os.pread(reader.fileno(), min(_COPY_BYTES, stop - at), at)
                at += os.pwrite(writer.fileno(), piece, offset_bytes + at)


def check_filled(disk: BtrfsDisk, listing: Listing) -> None:
    """Refuse a file system that does not hold what ``listing`` says, and nothing else.

    Raises:
        BuildError: It does not; ``details`` name what is otherwise.
    """
    tree = disk.tree()
    numbers = {node.path: node.inode for node in tree} | {"/": FIRST_INODE}
    targets = {node.path: node.target for node in tree if node.is_link}
    contents = disk.contents(tree)
    names = Counter(numbers.values())
    wrong = [f"{path}: nobody asked for it" for path in sorted(numbers.keys() - listing.keys())]
    for path, node in listing.items():
        if path not in numbers:
            wrong.append(f"{path}: it is not there")
        elif node.kind is Kind.LINK:
            if numbers[path] != numbers.get(node.target):
                wrong.append(f"{path}: it is not the same file as {node.target}")
        else:
            inode = disk.inodes[numbers[path]]
            links = 1 if node.kind is Kind.DIRECTORY else names[numbers[path]]
            if (targets.get(path, ""), links, *_facts(inode)) != (node.target, inode.links, *_wanted(node)):
                wrong.append(f"{path}: its facts are not those that were given")
            elif node.kind is Kind.FILE and contents[numbers[path]] != node.digest:
                wrong.append(f"{path}: its content is not the one that was given")
    if wrong:
        raise BuildError(
            f"mkfs.btrfs did not write what it was given: {wrong[0]}",
            details="\n".join(wrong[:_MOST_TOLD]),
            resolution="Set build.file-system to ext4, or build on a machine with another btrfs-progs.",
        )


def _facts(inode: Inode) -> tuple[object, ...]:
    size = 0 if stat.S_ISDIR(inode.mode) else inode.size_bytes
    return inode.mode, inode.uid, inode.gid, size, inode.mtime, inode.attributes


def _wanted(node: Node) -> tuple[object, ...]:
    size = len(os.fsencode(node.target)) if node.kind is Kind.SYMLINK else node.size_bytes
    attributes = {CAPABILITY: bytes.fromhex(node.capability)} if node.capability else {}
    return _KINDS[node.kind] | node.mode, node.uid, node.gid, size, node.mtime, attributes
