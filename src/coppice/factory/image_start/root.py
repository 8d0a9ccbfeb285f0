# SPDX-License-Identifier: Apache-2.0
"""Where the root file system of a raw disk is, and a larger one where a larger disk is wanted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

_TOOL_SECONDS = 600.0
_SECTOR_BYTES = 512
_EXT_MAGIC_AT = 1080
_EXT_MAGIC = b"\x53\xef"
_COPY_BYTES = 1024 * 1024
BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root partition of a disk.

    Attributes:
        number: Of the partition.
        start_bytes: Where it begins.
        size_bytes: Its length.
        is_last: Whether nothing lies behind it.
        label: Of the partition table: ``gpt`` or ``dos``.
    """

    number: int
    start_bytes: int
    size_bytes: int
    is_last: bool
    label: str


def find_root(raw: Path) -> Root:
    """Return the largest partition of ``raw`` that holds ext4: the system's root.

    Raises:
        BuildError: There is no partition table, or no such partition.
    """
    try:
        said = run(["sfdisk", "--json", raw], timeout_seconds=_TOOL_SECONDS).text()
        table = json.loads(said)["partitiontable"]
        sector = int(table.get("sectorsize", _SECTOR_BYTES))
        rows = [
            (int(row["size"]) * sector, int(row["start"]) * sector, _number(row["node"])) for row in table["partitions"]
        ]
        label = str(table["label"])
    except (ToolFailedError, ValueError, KeyError) as problem:
        raise BuildError("the image has no partition table that could be read", details=str(problem)) from problem
    end = max((start + size for size, start, _ in rows), default=0)
    with storage_errors("reading", raw), raw.open("rb") as stream:
        for size, start, number in sorted(rows, reverse=True):
            stream.seek(start + _EXT_MAGIC_AT)
            if stream.read(len(_EXT_MAGIC)) == _EXT_MAGIC:
                return Root(number=number, start_bytes=start, size_bytes=size, is_last=start + size == end, label=label)
    raise BuildError(
        "the image has no ext4 partition: its files cannot be read",
        resolution="Start from an image whose root is ext4.",
    )


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
        _tool(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--relocate", "gpt-bak-std", raw])
    argv: list[str | Path] = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never"]
    _tool([*argv, "-N", str(root.number), raw], input_bytes=b", +\n")
    grown = find_root(raw)
    # resize2fs knows nothing of a file system inside of a disk.
    alone = work / "root.raw"
    _copy(raw, root.start_bytes, alone, 0, root.size_bytes)
    blocks = grown.size_bytes // BLOCK_BYTES
    with storage_errors("growing", alone):
        os.truncate(alone, blocks * BLOCK_BYTES)
    _tool(["e2fsck", "-f", "-y", alone], epoch=epoch, ok=(0, 1))
    _tool(["resize2fs", alone, str(blocks)], epoch=epoch)
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


def _number(node: str) -> int:
    return int(node[len(node.rstrip("0123456789")) :])


def _tool(
    argv: list[str | Path], *, input_bytes: bytes | None = None, epoch: int | None = None, ok: tuple[int, ...] = (0,)
) -> None:
    environment = None if epoch is None else {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch)}
    try:
        run(argv, timeout_seconds=_TOOL_SECONDS, input_bytes=input_bytes, env=environment, ok=ok)
    except ToolFailedError as problem:
        raise BuildError(f"making the disk larger failed: {problem.message}", details=problem.details) from problem
