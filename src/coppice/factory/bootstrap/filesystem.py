# SPDX-License-Identifier: Apache-2.0
"""An ext4 file system inside a disk image, written without mounting anything and without being root.

``debugfs`` does the writing: owners, modes, times and capabilities come from the tree's listing, everything else is
fixed, so that the same tree makes the same bytes.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, NoSpaceError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from coppice.process import Completed

BLOCK_BYTES = 4096
_TOOL_SECONDS = 900.0
_MOST_COMPLAINTS = 20
_ZERO_BYTES = 1024 * 1024
# GRUB of Debian 12 reads neither of these two, which newer mke2fs switches on.
_FEATURES = "^metadata_csum_seed,^orphan_file"
_FREE = re.compile(r"^  Free blocks: (.*)$", re.MULTILINE)
_EXTENT = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_GROUP = re.compile(r"^Group \d+: \(Blocks \d{1,18}-(\d{1,18})\)", re.MULTILINE)
LISTING_BYTES = 256 * 1024 * 1024
"""Of what ``dumpe2fs`` says, kept: half a kilobyte for each 128 MiB."""
_SUPERBLOCK_AT, _SUPERBLOCK_BYTES = 1024, 1024
_BLOCKS_AT, _BLOCK_SIZE_AT, _INCOMPATIBLE_AT, _BLOCKS_HIGH_AT, _IS_64BIT = 0x4, 0x18, 0x60, 0x150, 0x80
_SMALLEST_BLOCK, _LARGEST_SHIFT = 1024, 6
_FULL = "Could not allocate block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ext4:
    """An ext4 file system in a disk image.

    Attributes:
        disk: The disk image.
        offset_bytes: Where it starts.
        size_bytes: How long it is.
        uuid: Its name; also the seed of its directory hashes.
        epoch: Seconds since 1970: no file is younger, and the file system is that old.
        contents: Set where somebody else made the file system: programs are shut in with it, and with this folder.
    """

    disk: Path
    offset_bytes: int
    size_bytes: int
    uuid: UUID
    epoch: int
    contents: Path | None = None

    def make(self) -> None:
        """Make it, empty.

        Raises:
            BuildError: It could not be made.
        """
        options = f"offset={self.offset_bytes},hash_seed={self.uuid},root_owner=0:0,assume_storage_prezeroed=1"
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK_BYTES), "-m", "1", "-O", _FEATURES]
        argv += ["-U", str(self.uuid), "-L", "root", "-E", options, str(self.disk), str(self.size_bytes // BLOCK_BYTES)]
        self._tool(argv)

    def change(self, script: Path) -> None:
        """Run a script of debugfs commands on it, then check it.

        In a file system that somebody else made, files that the script names are in the folder of contents.

        Raises:
            BuildError: A command failed, or the file system is not clean afterwards.
            NoSpaceError: The disk image is too small.
        """
        said = self._write(script)
        # debugfs always ends with 0; it complains on standard error, after one line with its version.
        complaints = [line for line in said.splitlines() if not line.startswith("debugfs ")]
        if any(_FULL in line for line in complaints):
            raise NoSpaceError(
                f"the root file system of {self.size_bytes} bytes is too small for what is in it",
                details="\n".join(complaints[:_MOST_COMPLAINTS]),
                resolution="Give the appliance a larger build.disk-size.",
            )
        if complaints:
            raise BuildError("writing the root file system failed", details="\n".join(complaints[:_MOST_COMPLAINTS]))
        self._look(["e2fsck", "-f", "-n"])

    def clear(self) -> None:
        """Write zeros over all that no file has: what was taken away is then in no copy of the image.

        Raises:
            BuildError: It cannot be read.
            StorageError: The disk image cannot be written.
        """
        clear_free(self.disk, self.offset_bytes, self._look(["dumpe2fs"]).text())

    @property
    def _place(self) -> str:
        return f"{self.disk}?offset={self.offset_bytes}"

    def _environment(self) -> dict[str, str]:
        return {"E2FSPROGS_FAKE_TIME": str(self.epoch), "SOURCE_DATE_EPOCH": str(self.epoch)}

    def _write(self, script: Path) -> str:
        """Run commands of debugfs; return what it complains of."""
        contents = self.contents
        if contents is None:
            return self._tool(["debugfs", "-w", "-f", str(script), self._place])
        caged = script.with_name(f"{script.name}.caged")

        def words(inside: Callable[[Path], str]) -> list[str]:
            place = inside(contents).replace('"', '""')
            with storage_errors("writing", caged):
                caged.write_bytes(f'lcd "{place}"\n'.encode() + script.read_bytes())
            return ["debugfs", "-w", "-f", inside(caged), f"{inside(self.disk)}?offset={self.offset_bytes}"]

        with self._told():
            completed = run_caged(
                words,
                reads=[caged],
                writes=[self.disk],
                folders=[contents],
                timeout_seconds=_TOOL_SECONDS,
                env=self._environment(),
            )
        return _complaints(completed)

    def _look(self, argv: list[str]) -> Completed:
        with self._told():
            if self.contents is None:
                return run(
                    [*argv, self._place],
                    timeout_seconds=_TOOL_SECONDS,
                    env=self._environment(),
                    capture_bytes=LISTING_BYTES,
                )
            place = f"?offset={self.offset_bytes}"
            return run_caged(
                lambda inside: [*argv, f"{inside(self.disk)}{place}"],
                reads=[self.disk],
                timeout_seconds=_TOOL_SECONDS,
                env=self._environment(),
                capture_bytes=LISTING_BYTES,
            )

    def _tool(self, argv: list[str]) -> str:
        with self._told():
            return _complaints(run(argv, timeout_seconds=_TOOL_SECONDS, env=self._environment()))

    @staticmethod
    @contextmanager
    def _told() -> Iterator[None]:
        try:
            yield
        except ToolFailedError as problem:
            raise BuildError(
                f"making the root file system failed: {problem.message}", details=problem.details
            ) from problem


def _complaints(completed: Completed) -> str:
    return completed.stderr.decode("utf-8", errors="replace")


def shape_at(handle: int, offset: int) -> tuple[int, int]:
    """Return how many blocks a file system has, and how large they are, by its superblock."""
    said = os.pread(handle, _SUPERBLOCK_BYTES, offset + _SUPERBLOCK_AT).ljust(_SUPERBLOCK_BYTES, b"\0")

    def number(at: int) -> int:
        return int.from_bytes(said[at : at + 4], "little")

    high = number(_BLOCKS_HIGH_AT) << 32 if number(_INCOMPATIBLE_AT) & _IS_64BIT else 0
    return number(_BLOCKS_AT) | high, _SMALLEST_BLOCK << min(_LARGEST_SHIFT, number(_BLOCK_SIZE_AT))


def free_blocks(said: str, blocks: int) -> list[tuple[int, int]]:
    """Return the first and last block of each free extent, from what ``dumpe2fs`` says.

    Args:
        said: What it says. Of the head, in which names of the file system stand as they are, nothing is taken.
        blocks: How many blocks the file system has.

    Raises:
        BuildError: It does not tell of all of them, or an extent is none.
    """
    _, _, groups = said.rpartition("\nGroup 0: ")
    listed, ends = _FREE.findall(groups), _GROUP.findall(f"Group 0: {groups}")
    if not ends or len(listed) != len(ends) or int(ends[-1]) + 1 != blocks:
        raise BuildError("the root file system does not say where it is free", details=said[-500:])
    found = []
    for extent in (each.strip() for line in listed for each in line.split(",")):
        if not extent:
            continue
        match = _EXTENT.fullmatch(extent)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < blocks:
            raise BuildError("the root file system does not say where it is free", details=extent[:200])
        found.append((first, last))
    return found


def clear_free(disk: Path, offset: int, said: str) -> None:
    """Write zeros over what is free in the file system at ``offset`` of ``disk``, as ``dumpe2fs`` says.

    Raises:
        BuildError: It does not tell of all of it.
        StorageError: The disk cannot be written.
    """
    with storage_errors("clearing", disk), disk.open("r+b") as stream:
        blocks, block_bytes = shape_at(stream.fileno(), offset)
        if offset + blocks * block_bytes > os.fstat(stream.fileno()).st_size:
            raise BuildError(f"the root file system has {blocks} blocks, more than its disk")
        for first, last in free_blocks(said, blocks):
            zero_written(stream.fileno(), offset + first * block_bytes, offset + (last + 1) * block_bytes)


def zero_written(handle: int, start: int, end: int) -> None:
    """Write zeros over what is written between two places of an open file; what was never written stays a hole."""
    while start < end:
        try:
            start = os.lseek(handle, start, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:
                return
            raise
        stop = min(end, os.lseek(handle, start, os.SEEK_HOLE))
        while start < stop:
            start += os.pwrite(handle, bytes(min(_ZERO_BYTES, stop - start)), start)
