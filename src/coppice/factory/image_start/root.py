# SPDX-License-Identifier: Apache-2.0
"""A larger root file system, where a larger disk is wanted than an image has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.caged import run_caged
from coppice.factory.partition_table import find_root

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.caged import Words
    from coppice.factory.partition_table import Root

_TOOL_SECONDS = 600.0
_COPY_BYTES = 1024 * 1024
_SFDISK = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel")
BLOCK_BYTES = 4096


def grow_root(raw: Path, root: Root, size_bytes: int, *, work: Path, epoch: int) -> Root:
    """Make the disk ``raw`` larger, and its root with it; return where that is now.

    Raises:
        BuildError: Something lies behind the root, or a tool failed.
        StorageError: The disk cannot be written.
    """
    if not root.is_last:
        raise BuildError(
            f"the image cannot grow to {size_bytes} bytes: its root is not the last partition",
            resolution="Set build.disk-size to the size of the image that it starts from.",
        )
    with storage_errors("growing", raw), raw.open("r+b") as stream:
        stream.truncate(size_bytes)
    if root.label == "gpt":
        _tool(raw, lambda inside: [*_SFDISK, "--relocate", "gpt-bak-std", inside(raw)])
    number = str(root.number)
    _tool(raw, lambda inside: [*_SFDISK, "--wipe=never", "-N", number, inside(raw)], input_bytes=b", +\n")
    grown = find_root(raw)
    # resize2fs knows nothing of a file system inside of a disk.
    alone = work / "root.raw"
    _copy(raw, root.start_bytes, alone, 0, root.size_bytes)
    blocks = grown.size_bytes // BLOCK_BYTES
    with storage_errors("growing", alone):
        os.truncate(alone, blocks * BLOCK_BYTES)
    _tool(alone, lambda inside: ["e2fsck", "-f", "-y", inside(alone)], epoch=epoch, ok=(0, 1))
    _tool(alone, lambda inside: ["resize2fs", inside(alone), str(blocks)], epoch=epoch, asks_what_is_mounted=True)
    _copy(alone, 0, raw, grown.start_bytes, blocks * BLOCK_BYTES)
    alone.unlink()
    return grown


def _copy(source: Path, source_at: int, target: Path, target_at: int, length: int) -> None:
    """Copy a stretch of a file; holes stay holes."""
    with (
        storage_errors("copying to", target),
        source.open("rb") as reader,
        target.open("r+b" if target.exists() else "w+b") as writer,
    ):
        at, end = source_at, source_at + length
        while at < end:
            try:
                at = min(end, os.lseek(reader.fileno(), at, os.SEEK_DATA))
            except OSError:
                break
            stop = min(end, os.lseek(reader.fileno(), at, os.SEEK_HOLE))
            while at < stop:
                piece = os.pread(reader.fileno(), min(_COPY_BYTES, stop - at), at)
                os.pwrite(writer.fileno(), piece, target_at + at - source_at)
                at += len(piece)
        if target_at + length > os.fstat(writer.fileno()).st_size:
            writer.truncate(target_at + length)


def _tool(
    file: Path,
    words: Words,
    *,
    input_bytes: bytes | None = None,
    epoch: int | None = None,
    asks_what_is_mounted: bool = False,
    ok: tuple[int, ...] = (0,),
) -> None:
    # Shut in, they do not see what is mounted, and a file in a directory of this run is not; nor what the kernel would
    # do for the tables of new groups, on which the bytes must not depend.
    environment = {"EXT2FS_NO_MTAB_OK": "1", "RESIZE2FS_FORCE_LAZY_ITABLE_INIT": "1"}
    if epoch is not None:
        environment |= {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch)}
    try:
        run_caged(
            words,
            writes=[file],
            timeout_seconds=_TOOL_SECONDS,
            asks_what_is_mounted=asks_what_is_mounted,
            input_bytes=input_bytes,
            env=environment,
            ok=ok,
        )
    except ToolFailedError as problem:
        raise BuildError(f"making the disk larger failed: {problem.message}", details=problem.details) from problem
